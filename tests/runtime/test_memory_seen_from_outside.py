"""Storages come and go with aliases and NumPy arrays: compiled functions keep to the tensor's memory,
and return to the fast way when nobody else looks at it.
"""

import copy
import gc
import io

import numpy as np
import pytest

import tracegrad as tg
from tracegrad import nn

both = pytest.mark.parametrize("backend", ["numpy", "jax"])


def counter(backend):
    total = tg.zeros(3)

    def count(x):
        total.add_(1.0)
        return total.sum() + x.sum()

    return total, tg.compile(count, backend=backend)


@both
def test_a_captured_tensor_given_as_argument_after_an_alias_came_and_went(backend):
    total, count = counter(backend)
    count(tg.zeros(3))
    alias = total.detach()
    count(tg.zeros(3))
    del alias
    tg.compile(lambda x: total * x, backend=backend)(tg.ones(3))
    assert count(total).item() == 18.0  # both see it after the addition


@both
@pytest.mark.parametrize("other", ["numpy", "jax"])
def test_state_captured_with_an_alias_stays_the_tensors_when_the_alias_is_gone(backend, other):
    total, count = counter(backend)
    alias = total.detach()
    count(tg.zeros(3))
    count(tg.zeros(3))
    del alias
    read = tg.compile(lambda x: total * x, backend=other)
    assert read(tg.ones(3)).tolist() == [2.0, 2.0, 2.0]
    count(tg.zeros(3))
    assert total.tolist() == [3.0, 3.0, 3.0] and read(tg.ones(3)).tolist() == [3.0, 3.0, 3.0]


LOOKS = {
    "detach": lambda p: p.detach().sum().item(),
    "view": lambda p: p[1].item(),
    "numpy": lambda p: p.numpy().sum(),
    "part of an array": lambda p: p[1:].numpy()[:1].copy(),
    "asarray": lambda p: np.asarray(p).T.sum(),
    "save": lambda p: tg.save({"p": p}, io.BytesIO()),
    "deepcopy": lambda p: copy.deepcopy({"p": p, "again": p[1:]}),
}


@both
@pytest.mark.parametrize("look", LOOKS)
def test_a_look_at_state_is_forgotten_with_what_it_gave(backend, look):
    total, count = counter(backend)
    for _ in range(3):
        count(tg.zeros(3))
    LOOKS[look](total)
    gc.collect()
    count(tg.zeros(3))
    assert total._storage is None
    assert count(tg.zeros(3)).item() == 15.0 and total.tolist() == [5.0, 5.0, 5.0]
    assert count.stats()["recordings"] == 1


@both
@pytest.mark.parametrize("dtype", [tg.float32, tg.bfloat16, tg.bool, tg.complex64], ids=str)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_an_array_and_what_is_left_of_it_see_every_write(backend, dtype, shape):
    state = tg.zeros(shape, dtype=dtype)
    toggle = tg.compile(lambda x: (state.copy_(1 - state.float()), x * 2)[1], backend=backend)
    array = state.numpy()
    assert array.shape == shape and array.dtype == state.dtype.np
    rest = array.reshape(-1)[:1]
    del array
    for k in range(1, 5):
        toggle(tg.ones(2))
        assert np.all(rest == rest.dtype.type(k % 2))
    rest[...] = 1
    toggle(tg.ones(2))
    assert not state.flatten()[:1].bool().any()


@both
@pytest.mark.parametrize("also", ["nothing", "alias"])
def test_what_an_array_wrote_is_not_forgotten_with_it(backend, also):
    total, count = counter(backend)
    count(tg.zeros(3))
    array = total.numpy()
    alias = total.detach() if also == "alias" else None
    count(tg.zeros(3))
    array[:] = 10.0
    del array
    assert count(tg.zeros(3)).item() == 33.0
    assert total.tolist() == [11.0] * 3 and (alias is None or alias.tolist() == [11.0] * 3)


def test_a_read_only_array_is_left_alone_and_its_successor_is_seen():
    given = np.zeros(3, np.float32)
    given.flags.writeable = False
    tensor = tg.from_numpy(given)
    tensor.add_(1.0)
    seen = tensor.numpy()
    tensor.add_(1.0)
    assert given.tolist() == [0.0] * 3 and seen.tolist() == tensor.tolist() == [2.0] * 3


class Tied(nn.Module):
    """Two parameters on one memory, and a buffer that is a part of another."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
        self.second.weight.data = self.first.weight.data
        self.register_buffer("all", tg.zeros(4))
        self.register_buffer("middle", self.all[1:3])

    def forward(self, x):
        with tg.no_grad():
            self.middle.add_(1.0)
            self.first.weight.mul_(0.5)
        return self.second(x).sum() + self.all.sum()


@both
def test_a_deep_copy_shares_memory_where_the_original_does(backend):
    original = Tied()
    twin = copy.deepcopy(original)
    compiled = tg.compile(twin, backend=backend)
    for _ in range(3):
        expected, found = original(tg.ones(1, 2)), compiled(tg.ones(1, 2))
        assert found.item() == pytest.approx(expected.item())
        expected.backward()
        found.backward()
    assert twin.first.weight.grad is None
    assert twin.second.weight.grad.tolist() == original.second.weight.grad.tolist()
    assert twin.all.tolist() == [0.0, 3.0, 3.0, 0.0]
    assert twin.first.weight.tolist() == twin.second.weight.tolist()


def test_aliases_in_a_deep_copy_have_gradients_of_their_own():
    base = tg.zeros(3)
    part, again = base[:2], base.detach().requires_grad_()
    base, part, again = copy.deepcopy([base, part, again])
    with tg.no_grad():
        part.add_(1.0)
    (again * 2).sum().backward()
    assert again.tolist() == [1.0, 1.0, 0.0] and again.grad.tolist() == [2.0, 2.0, 2.0]
    assert not base.requires_grad and not part.requires_grad


def test_a_shallow_copy_is_a_leaf_on_the_same_memory():
    weight = nn.Parameter(tg.zeros(3))
    weight.name_of_mine = "w"
    same = copy.copy(weight)
    with tg.no_grad():
        weight[1:].add_(1.0)
    assert type(same) is nn.Parameter and same.requires_grad and same.name_of_mine == "w"
    assert same.tolist() == [0.0, 1.0, 1.0]
    (same * 3).sum().backward()
    assert weight.grad is None and same.grad.tolist() == [3.0, 3.0, 3.0]
    assert copy.copy(weight * 2).is_leaf
    part = tg.arange(4)[1:3]
    copy.copy(part).zero_()
    assert part.tolist() == [0, 0]


def whole(buffer):
    return tg.from_numpy(buffer), tg.from_numpy(buffer.T)


def overlapping(buffer):
    return tg.from_numpy(buffer[:190, :190]), tg.from_numpy(buffer[2:, 2:])


@both
@pytest.mark.parametrize("cut", [whole, overlapping])
@pytest.mark.parametrize("captured", [True, False])
def test_a_write_where_another_from_numpy_looks_is_seen_there(backend, cut, captured):
    """No graph is right then: its inputs are values of their own."""

    def results(compiled):
        buffer = np.random.default_rng(0).standard_normal((192, 192)).astype("f4") / 10
        w, x = cut(buffer)
        y = tg.tensor(np.random.default_rng(1).standard_normal(tuple(w.shape)).astype("f4") / 10)

        def of_captured(x):
            w.sub_(0.5 * (x @ y))
            return x.sum() + w.sum()

        def of_arguments(w, x):
            w.sub_(0.5 * (x @ y))
            return x.sum() + w.sum()

        function = compiled(of_captured if captured else of_arguments)
        given = (x,) if captured else (w, x)
        return [function(*given).item(), function(*given).item(), buffer.sum()]

    wanted = results(lambda function: function)
    with pytest.warns(UserWarning, match="eagerly from now on: it writes a tensor made by"):
        actual = results(lambda function: tg.compile(function, backend=backend))
    np.testing.assert_allclose(actual, wanted, rtol=1e-4)


@both
def test_another_from_numpy_may_come_later(backend):
    buffer = np.ones((4, 8), "f4")
    w = tg.from_numpy(buffer)

    def step(x):
        w.add_(x)
        return x.sum()

    compiled = tg.compile(step, backend=backend, fullgraph=True)
    assert compiled(tg.ones(4, 8)).item() == 32.0
    with pytest.raises(tg.errors.GraphBreakError, match="lies in the same memory"):
        compiled(tg.from_numpy(buffer))
    assert buffer.max() == 2.0  # nothing was written
    assert compiled(tg.ones(4, 8)).item() == 32.0 and buffer.max() == 3.0


@both
def test_tensors_on_columns_of_one_array_stay_compiled(backend):
    buffer = np.ones((4, 8), "f4")
    w, x = tg.from_numpy(buffer[:, :4]), tg.from_numpy(buffer[:, 4:])
    step = tg.compile(lambda x: w.add_(x).sum(), backend=backend, fullgraph=True)
    assert [step(x).item(), step(x).item()] == [32.0, 48.0] and buffer.sum() == 64.0


@both
def test_a_branch_looks_at_what_another_from_numpy_wrote(backend):
    """What the branch reads is computed before the write."""
    buffer = np.zeros(3, np.float32)
    written, read = tg.from_numpy(buffer), tg.from_numpy(buffer)

    def step(x):
        written.add_(x)
        return x * 2 if read.sum() > 1 else x * 3

    with pytest.warns(UserWarning, match="another such tensor lies in the same memory"):
        result = tg.compile(step, backend=backend)(tg.ones(3))
    np.testing.assert_array_equal(result.numpy(), [2, 2, 2])
    np.testing.assert_array_equal(buffer, [1, 1, 1])
