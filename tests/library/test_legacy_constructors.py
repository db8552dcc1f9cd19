"""`tg.Tensor(...)` is `torch.Tensor(...)`: sizes, or values in the default dtype."""

import numpy as np
import pytest
import torch

import tracegrad as tg
from tracegrad.errors import ArgumentError, InvalidValueError

VALUES = [
    lambda t: t.Tensor([1, 2]),
    lambda t: t.Tensor((2, 3)),
    lambda t: t.Tensor([True, False]),
    lambda t: t.Tensor([[1.5], [2]]),
    lambda t: t.Tensor(range(3)),
    lambda t: t.Tensor(data=[1, 2]),
    lambda t: t.Tensor([1, 2], device="cpu"),
    lambda t: t.Tensor(np.arange(3.0)),
    lambda t: t.Tensor(np.arange(3)),
    lambda t: t.Tensor(np.array(2.5)),
    lambda t: t.Tensor([np.float64(1.5)]),
    lambda t: t.Tensor([t.tensor(1.0), t.tensor(2)]),
    lambda t: t.Tensor(t.ones(3)),
    lambda t: t.Tensor(t.tensor(5)),
    lambda t: t.Tensor([]),
    lambda t: t.Tensor(),
    lambda t: t.Tensor(0),
    lambda t: t.FloatTensor(np.arange(3)),
    lambda t: t.FloatTensor(),
    lambda t: t.LongTensor(np.array([1.5, 2.5])),
    lambda t: t.ones(2).new([1, 2]),
    lambda t: t.ones(2, dtype=t.int64).new([1, 2]),
    lambda t: t.ones(2).new(np.arange(2)),
]
CASTS = [
    lambda t: t.tensor([1.5, 2.0]).type(t.LongTensor),
    lambda t: t.tensor([1, 0]).type(t.BoolTensor),
    lambda t: t.tensor([1, 0]).type(t.float64),
]
SIZES = [
    lambda t: t.Tensor(5),
    lambda t: t.Tensor(2, 3),
    lambda t: t.Tensor(np.int64(5), 2),
    lambda t: t.Tensor(t.zeros(2, 3).size()),
    lambda t: t.Tensor(size=(2, 3)),
    lambda t: t.Tensor(t.tensor(2), t.tensor(3)),
    lambda t: t.FloatTensor(np.int64(5)),
    lambda t: t.ones(2).new(4),
]


@pytest.mark.parametrize("make", VALUES + CASTS)
def test_values_and_dtype(make):
    theirs = make(torch)
    for ours in (make(tg), tg.compile(lambda: make(tg))()):
        assert str(ours.dtype)[10:] == str(theirs.dtype)[6:]
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.parametrize("make", SIZES)
def test_sizes(make):
    theirs = make(torch)
    for ours in (make(tg), tg.compile(lambda: make(tg))()):
        assert tuple(ours.shape) == tuple(theirs.shape) and ours.dtype is tg.float32


@pytest.mark.parametrize(
    "data", [5.0, np.float64(3), True, "a", {1, 2}, [1j], ["a"], (k for k in range(2))]
)
def test_what_is_neither(data):
    for t, error in ((torch, (TypeError, ValueError)), (tg, ArgumentError)):
        with pytest.raises(error):
            t.Tensor(data)


def test_sizes_that_cannot_be():
    for t in (torch, tg):
        with pytest.raises(TypeError):
            t.Tensor(2, "a")
        with pytest.raises(TypeError):
            t.FloatTensor(t.ones(2, dtype=t.int64))
    with pytest.raises(InvalidValueError, match=r"\[-1\]"):
        tg.Tensor(-1)


def test_memory_and_history():
    for t in (torch, tg):
        array = np.zeros(2, np.float32)
        t.Tensor(array)[0] = 1
        assert array.tolist() == [1, 0]
        x = t.ones(2, requires_grad=True)
        again = t.Tensor(x)
        assert not again.is_leaf
        (again * 3).sum().backward()
        assert x.grad.tolist() == [3, 3]


def test_the_default_dtype_and_subclasses():
    class Labelled(tg.Tensor):
        pass

    before = tg.get_default_dtype()
    tg.set_default_dtype(tg.float64)
    try:
        assert tg.Tensor([1]).dtype is tg.float64 and tg.Tensor().dtype is tg.float64
    finally:
        tg.set_default_dtype(before)
    assert type(Labelled([1, 2])) is Labelled and tuple(Labelled(2, 3).shape) == (2, 3)
    weight = tg.nn.Parameter(tg.Tensor(2, 3).uniform_(1, 2))
    assert tuple(weight.shape) == (2, 3) and weight.is_leaf and float(weight.min()) >= 1


@pytest.mark.parametrize("backend", ["numpy", "jax"])
def test_a_recorded_one_is_new_in_every_call(backend):
    def step(x):
        total = tg.Tensor(2)
        total.add_(x)
        total += tg.Tensor([1, 2])
        return total

    compiled = tg.compile(step, backend=backend, fullgraph=True)
    for _ in range(3):
        assert compiled(tg.ones(2)).tolist() == step(tg.ones(2)).tolist() == [2, 3]
