"""State that XLA updates stays in the sequence it came in: who may look at it, share it, and lose it."""

from __future__ import annotations

import functools
import gc
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
from tests.runtime.programs import compiled
from tracegrad.tracer.memory.bundle import Bundled


def adding(*parameters):
    """A compiled step that adds its argument to each of them."""

    @tg.compile(backend="jax")
    def step(x):
        with tg.no_grad():
            for parameter in parameters:
                parameter.add_(x)
        return x.sum()

    return step


def is_bundled(parameter: Any) -> bool:
    return isinstance(parameter._jax, Bundled)


def test_a_step_that_nothing_came_between_finds_its_state_at_once():
    parameters = [tg.nn.Parameter(tg.ones(2)) for _ in range(2)]

    @tg.compile(backend="jax")
    def step():
        with tg.no_grad():
            for p in parameters:
                p.add_(1.0)

    for _ in range(3):  # made on the host; then in jax, with looks; then in jax alone
        step()
    assert all(map(is_bundled, parameters))
    assert parameters[1].shape == (2,) and parameters[1].dtype is tg.float32
    assert all(map(is_bundled, parameters))
    parameters[1].sum()
    assert not any(map(is_bundled, parameters))
    step()
    assert all(map(is_bundled, parameters))
    assert parameters[1].tolist() == [5.0, 5.0]
    assert not any(map(is_bundled, parameters))


@pytest.mark.parametrize("backend", [None, "jax"])
def test_a_guard_in_jax_says_nothing_of_state_that_has_views(backend):
    guarded, viewed = tg.zeros(2), tg.ones(2)

    def step():
        if guarded.sum() < 100.0:
            guarded.add_(viewed)

    call = compiled(step, backend)
    for _ in range(3):
        call()
    view = viewed[:1]
    call()
    view.fill_(7.0)
    call()
    assert guarded.tolist() == [11.0, 5.0]


@pytest.fixture
def often_switched():
    """Threads take turns so often that one stops in the middle of anything."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.parametrize("backend", ["numpy", "jax"])
def test_steps_and_reads_in_threads_lose_nothing(backend, often_switched):
    parameter, count = tg.nn.Parameter(tg.zeros(4)), tg.zeros(4)

    def step(x):
        with tg.no_grad():
            parameter.add_(x)
            count.add_(1)
        return parameter.sum()

    train, read = (
        compiled(step, backend),
        compiled(lambda x: (parameter.detach() * x).sum(), backend),
    )
    failed: list[BaseException] = []

    def repeat(action: Callable[[], Any]) -> None:
        try:
            for _ in range(100):
                action()
        except BaseException as error:
            failed.append(error)

    x = tg.ones(4)
    actions = [
        lambda: train(x),
        lambda: train(x),
        lambda: read(x).item(),
        lambda: parameter[0].item(),
        lambda: count.tolist(),
    ]
    threads = [threading.Thread(target=repeat, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert parameter.tolist() == count.tolist() == [200.0] * 4


def test_gradients_from_xla_are_looks_at_its_memory_until_somebody_writes():
    model = tg.nn.Linear(3, 2)
    compiled = tg.compile(model, backend="jax")
    x = tg.ones(4, 3)
    compiled(x).sum().backward()
    gradient = model.weight.grad
    assert not gradient._data.flags.writeable
    before = gradient.clone().numpy()
    gradient.mul_(2.0)
    compiled(x).sum().backward()
    np.testing.assert_array_equal(model.weight.grad.numpy(), 3 * before)


def test_a_step_that_dies_gives_the_state_back():
    model = tg.nn.Linear(4, 4)

    def train():
        optimizer = tg.optim.SGD(model.parameters(), lr=0.1)

        def step(x):
            optimizer.zero_grad()
            loss = model(x).square().sum()
            loss.backward()
            optimizer.step()
            return loss

        compiled = tg.compile(step, backend="jax")
        for _ in range(3):
            compiled(tg.ones(2, 4))
        assert is_bundled(model.weight)

    train()
    gc.collect()
    assert not is_bundled(model.weight)


def test_what_is_only_read_may_change_beside_bundled_state():
    parameter, scale = tg.nn.Parameter(tg.zeros(3)), tg.ones(3)

    @tg.compile(backend="jax")
    def step(x):
        with tg.no_grad():
            parameter.add_(x * scale)
        return x.sum()

    x = tg.ones(3)
    for _ in range(4):
        step(x)
    assert is_bundled(parameter)
    scale.mul_(10.0)
    step(x)
    scale[0] = 0.0
    step(x)
    assert is_bundled(parameter)
    assert parameter.tolist() == [14.0, 24.0, 24.0]


def test_a_new_value_that_is_also_returned_stays_what_it_was():
    parameter = tg.nn.Parameter(tg.zeros(3))

    @tg.compile(backend="jax")
    def step(x):
        with tg.no_grad():
            parameter.add_(x)
        return parameter.detach().clone()

    shown = [step(tg.ones(3)) for _ in range(6)]
    assert [value.tolist() for value in shown] == [[float(k)] * 3 for k in range(1, 7)]


def test_bundled_state_given_as_an_argument():
    parameter = tg.nn.Parameter(tg.zeros(3))

    @tg.compile(backend="jax")
    def step(x):
        with tg.no_grad():
            parameter.add_(1.0)
        return x.sum()

    for _ in range(4):
        step(tg.ones(3))
    assert is_bundled(parameter)
    for k in range(3):
        assert step(parameter).item() == 3.0 * (5 + k)
    assert parameter.tolist() == [7.0] * 3


def test_two_steps_that_share_state_take_turns():
    shared, own = tg.nn.Parameter(tg.zeros(2)), tg.nn.Parameter(tg.zeros(2))

    first = adding(shared)

    @tg.compile(backend="jax")
    def second(x):
        with tg.no_grad():
            own.add_(shared * x)
        return x.sum()

    x = tg.ones(2)
    for _ in range(4):
        first(x)
        second(x)
    for _ in range(4):
        first(x)
    for _ in range(4):
        second(x)
    assert shared.tolist() == [8.0, 8.0]
    assert own.tolist() == [42.0, 42.0]


def test_a_cache_filled_while_recording_reads_beside_hidden_bundled_state():
    first, second = tg.nn.Parameter(tg.zeros(2)), tg.nn.Parameter(tg.zeros(2))

    step = adding(first, second)

    for _ in range(4):
        step(tg.ones(2))
    assert is_bundled(first) and is_bundled(second)

    @functools.lru_cache
    def table():
        return second.detach() * 10.0

    @tg.compile(backend="jax")
    def other(x):
        with tg.no_grad():
            first.add_(x)
        return first.detach() + table()

    assert other(tg.ones(2)).tolist() == [45.0, 45.0]
    assert first.tolist() == [5.0, 5.0] and second.tolist() == [4.0, 4.0]


def test_a_copied_dict_of_bundled_state_is_refused():
    parameter = tg.nn.Parameter(tg.zeros(2))

    step = adding(parameter)

    for _ in range(4):
        step(tg.ones(2))
    copied = tg.nn.Parameter(tg.zeros(2))
    del copied._data
    copied.__dict__.update(parameter.__dict__)
    with pytest.raises(tg.errors.UnsupportedError, match="__dict__ was copied"):
        copied.sum()
    assert parameter.tolist() == [4.0, 4.0]
