"""Copies and pickles of what is compiled: a copy of a model computes with the copy's weights."""

import copy
import functools
import gc
import pickle
import weakref
from dataclasses import dataclass

import numpy as np
import pytest

import tracegrad as tg


class Scale(tg.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = tg.nn.Parameter(tg.ones(2))

    def forward(self, x):
        return x * self.weight


@tg.compile
def doubled(x):
    return x * 2


def tripled(x):
    return x * 3


def fill(model, value):
    with tg.no_grad():
        model.weight.fill_(value)


def value(model):
    return model(tg.ones(2)).tolist()


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("called", [False, True])
def test_a_compiled_model_and_its_copy_are_two(again, called, backend):
    model = tg.compile(Scale(), backend=backend)
    if called:
        value(model)
    average = again(model)
    assert isinstance(average, Scale) and average.state_dict().keys() == model.state_dict().keys()
    fill(average, 5.0)
    fill(model, 3.0)
    assert value(average) == [5.0, 5.0] and value(model) == [3.0, 3.0]
    assert average.stats()["recordings"] == 1 and model.stats()["recordings"] == 1


def test_a_model_that_holds_a_compiled_one():
    model = tg.nn.Sequential(tg.compile(Scale()), Scale())
    value(model)
    average = copy.deepcopy(model)
    fill(average[0], 5.0)
    fill(average[1], 2.0)
    assert value(average) == [10.0, 10.0] and value(model) == [1.0, 1.0]
    assert average[0].stats()["recordings"] == 1


def test_a_model_and_what_it_was_compiled_to_still_share_their_weights():
    model = Scale()
    both = copy.deepcopy({"model": model, "compiled": tg.compile(model)})
    fill(both["model"], 4.0)
    assert value(both["compiled"]) == [4.0, 4.0] and value(model) == [1.0, 1.0]


def test_a_shallow_copy_shares_the_weights():
    model = tg.compile(Scale())
    other = copy.copy(model)
    fill(model, 2.0)
    other.bonus = 1
    assert value(other) == [2.0, 2.0] and not hasattr(model, "bonus")


def test_a_compiled_function_is_copied_as_a_function_is():
    doubled(tg.ones(2))
    local = tg.compile(lambda x: x + 1)
    for function in (doubled, local):
        assert copy.deepcopy(function) is function and copy.copy(function) is function
    assert copy.deepcopy({"f": doubled})["f"] is doubled


def test_a_compiled_method_of_a_copied_model_is_the_copys():
    model = Scale()
    model.forward = tg.compile(model.forward)
    model.scaled = tg.compile(functools.partial(Scale.forward, model), fullgraph=True)
    value(model)
    average = copy.deepcopy(model)
    fill(average, 5.0)
    assert value(average) == [5.0, 5.0] and value(model) == [1.0, 1.0]
    assert average.scaled(tg.ones(2)).tolist() == [5.0, 5.0] and average.scaled.settings.fullgraph


def test_a_pickled_function_keeps_its_name_or_its_options():
    assert pickle.loads(pickle.dumps(doubled)) is doubled
    step = tg.compile(tripled, fullgraph=True, max_paths=3, threads=1)
    step(tg.ones(2))
    again = pickle.loads(pickle.dumps(step))
    np.testing.assert_array_equal(again(tg.ones(2)).numpy(), [3.0, 3.0])
    assert (
        again.settings.fullgraph
        and again.settings.max_paths == 3
        and again.stats()["recordings"] == 1
    )


def test_a_local_function_cannot_be_pickled_and_the_error_names_it():
    with pytest.raises((pickle.PicklingError, AttributeError), match="<lambda>"):
        pickle.dumps(tg.compile(lambda x: x))


def test_a_copied_average_follows_the_model(backend):
    model = tg.compile(tg.nn.Linear(2, 1), backend=backend)
    average = copy.deepcopy(model)
    optimizer = tg.optim.SGD(model.parameters(), lr=0.1)
    x = tg.ones(3, 2)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
        with tg.no_grad():
            for mine, theirs in zip(average.parameters(), model.parameters()):
                mine.lerp_(theirs, 0.5)
        plain = x.numpy() @ average.weight.detach().numpy().T + average.bias.detach().numpy()
        np.testing.assert_allclose(average(x).detach().numpy(), plain, rtol=1e-5)


class Counted(tg.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = tg.nn.Parameter(tg.ones(2))

    @tg.compile
    def forward(self, x):
        return x * self.weight

    @tg.compile
    def twice(self, x):
        return self.forward(x) * 2


class More(Counted):
    @tg.compile
    def forward(self, x):
        return super().forward(x) + 1


def test_compiled_methods_of_a_class_belong_to_their_instances():
    first, second = Counted(), Counted()
    fill(second, 3.0)
    for _ in range(2):
        assert value(first) == [1.0, 1.0] and value(second) == [3.0, 3.0]
        assert second.twice(tg.ones(2)).tolist() == [6.0, 6.0]
    assert first.forward.stats()["recordings"] == second.forward.stats()["recordings"] == 1
    assert value(More()) == [2.0, 2.0]
    for again in (copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))):
        copied = again(second)
        fill(copied, 5.0)
        assert value(copied) == [5.0, 5.0] and value(second) == [3.0, 3.0]
    shallow = copy.copy(first)
    shallow.weight = tg.nn.Parameter(tg.zeros(2))
    assert value(shallow) == [0.0, 0.0] and value(first) == [1.0, 1.0]
    assert list(first.state_dict()) == ["weight"]


def test_compiled_methods_let_their_instances_go(backend):
    class Local(tg.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = tg.nn.Parameter(tg.ones(2))

        @tg.compile(backend=backend)
        def forward(self, x):
            return x * self.weight

    model = Local()
    for _ in range(3):
        model(tg.ones(2)).sum().backward()
    kept = [weakref.ref(model), weakref.ref(model.weight)]
    del model
    gc.collect()
    assert [one() for one in kept] == [None, None]


def test_a_compiled_method_of_what_is_compared_by_value_is_recorded_once():
    @dataclass(frozen=True)
    class Factor:
        by: float

        @tg.compile
        def __call__(self, x):
            return x * self.by

    for by in (2.0, 2.0, 3.0):
        assert Factor(by)(tg.ones(1)).tolist() == [by]
    assert Factor.__call__.stats()["recordings"] == 2
