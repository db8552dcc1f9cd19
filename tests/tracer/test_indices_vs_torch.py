"""Sequences and masks as indices: eager and recorded, as in PyTorch."""

import warnings
from collections import deque

import numpy as np
import pytest
import torch

import tracegrad as tg
from tracegrad.errors import GraphBreakError

SEQUENCES = {
    "range": lambda t, x: x[range(2)],
    "range backwards": lambda t, x: x[range(2, -1, -1)],
    "range and tensor": lambda t, x: x[range(3), t.tensor([0, 1, 2])],
    "slice and range": lambda t, x: x[:, range(1, 3)],
    "None and range": lambda t, x: x[None, range(2)],
    "ellipsis and range": lambda t, x: x[..., range(2)],
    "tuples": lambda t, x: x[(0, 1), (2, 3)],
    "deque": lambda t, x: x[deque([0, 1])],
    "empty": lambda t, x: x[[]],
    "empty range": lambda t, x: x[range(0)],
    "slice and empty": lambda t, x: x[:, []],
    "bools": lambda t, x: x[[True, False, True]],
    "a list read as a tuple": lambda t, x: x[[[0, 1], [1, 0]]],
    "a list of tensors": lambda t, x: x[[t.tensor([0, 1]), t.tensor([1, 2])]],
    "a list of arrays": lambda t, x: x[[np.array([0, 1]), np.array([1, 2])]],
    "a list with a slice": lambda t, x: x[[slice(0, 2), 1]],
    "a list in a tuple": lambda t, x: x[[[0, 1], [1, 2]], [0, 1]],
}
KNOWN_MASKS = {
    "off the diagonal": lambda t, x: (x @ x.T)[~t.eye(3).bool()].view(3, 2),
    "array": lambda t, x: x[np.array([True, False, True])],
    "one axis, then the other": lambda t, x: x[t.arange(3) > 0][:, [True, False, True, False]],
    "masked_select": lambda t, x: (x @ x.T).masked_select(~t.eye(3).bool()),
    "nonzero": lambda t, x: x.flatten()[t.ones(2, 2).triu().nonzero()],
    "where": lambda t, x: x[t.where(t.eye(3, 4) > 0)],
    "unique": lambda t, x: x * t.unique(t.tensor([3, 1, 1])).sum(),
}
WRITES = {
    "range": lambda t, x: (range(3), t.tensor([0, 1, 2])),
    "rows": lambda t, x: range(1, 2),
    "tuples": lambda t, x: ((0, 1), (1, 2)),
    "empty": lambda t, x: [],
    "known mask": lambda t, x: t.eye(3, 4).bool(),
}


def values(t):
    return t.arange(12.0).reshape(3, 4).clone()


@pytest.mark.parametrize("backend", ["eager", "numpy", "jax"])
@pytest.mark.parametrize("name", [*SEQUENCES, *KNOWN_MASKS])
def test_reading(name, backend):
    read = (SEQUENCES | KNOWN_MASKS)[name]

    def ours(x):
        y = read(tg, x)
        (y * y).sum().backward()
        return y

    function = ours if backend == "eager" else tg.compile(ours, backend=backend, fullgraph=True)
    x, expected_x = values(tg).requires_grad_(), values(torch).requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of lists read as tuples
        expected = read(torch, expected_x)
    (expected * expected).sum().backward()
    np.testing.assert_allclose(function(x).detach().numpy(), expected.detach().numpy())
    np.testing.assert_allclose(x.grad.numpy(), expected_x.grad.numpy())


@pytest.mark.parametrize("backend", ["eager", "numpy", "jax"])
@pytest.mark.parametrize("name", WRITES)
def test_writing(name, backend):
    def write(t, x):
        y, at = x * 2, WRITES[name](t, x)
        y[at] = -y[at]
        return y

    ours = lambda x: write(tg, x)
    function = ours if backend == "eager" else tg.compile(ours, backend=backend, fullgraph=True)
    np.testing.assert_array_equal(function(values(tg)).numpy(), write(torch, values(torch)).numpy())


def test_a_known_mask_follows_the_shape():
    pairs = tg.compile(lambda x: (x @ x.T)[~tg.eye(len(x)).bool()], fullgraph=True)
    for n in (2, 3, 2):
        assert tuple(pairs(tg.ones(n, 4)).shape) == (n * n - n,)


def test_a_known_mask_inside_vmap():
    rows = tg.vmap(lambda x: x[tg.arange(3) > 0])(values(tg)[:, :3])
    assert rows.tolist() == values(tg)[:, 1:3].tolist()


def test_a_large_known_mask_is_no_constant_of_the_graph():
    off = tg.compile(lambda x: x[~tg.eye(200).bool()].sum(), fullgraph=True)
    assert off(tg.ones(200, 200)).item() == off(tg.ones(200, 200)).item() == 200 * 199
    assert sum(node.op.name == "input" for node in off.graph.nodes) == 3  # x, rows, columns


def test_a_mask_that_changes_is_refused_by_what_was_done():
    def read(x):
        return x[x > 0]

    def write(x):
        y = tg.zeros(3)
        y[x > 0] = tg.ones(2)
        return y

    x = tg.tensor([1.0, 2.0, -1.0])
    with pytest.raises(GraphBreakError, match=r"reading x\[mask\]"):
        tg.compile(read, fullgraph=True)(x)
    with pytest.raises(GraphBreakError, match=r"(?s)writing x\[mask\] = values.*masked_scatter_"):
        tg.compile(write, fullgraph=True)(x)
    assert write(x).tolist() == [1, 1, 0]
