"""Which steps may raise for the values they get: state is written after them (passes/schedule.py)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tracegrad.ir.graph import Graph, Node
from tracegrad.ir.ops.traits import EFFECT

_AXES = frozenset({"gather", "scatter"})
_AXIS = frozenset({"take_along", "scatter_along"})
_DIVISIONS = frozenset({"floor_div", "rem"})
_FACTORISATIONS = frozenset({"cholesky", "eigh", "svd", "qr"})  # np.linalg raises LinAlgError
_VIEWS = frozenset({"reshape", "transpose", "broadcast_to", "slice"})


def raises(node: Node) -> Iterator[object]:
    """What `node` may raise for, as keys: equal keys pass or fail together."""
    name = node.op.name
    if name in _AXES or name in _AXIS:
        shape = node.inputs[0].shape
        axes = node.attrs["axes"] if name in _AXES else (node.attrs["axis"],)
        for index, axis in zip(node.inputs[1:], axes):
            if not within(index, shape[axis]):
                yield (index, shape[axis])
    elif name in _DIVISIONS:
        if not node.type.dtype.is_inexact and not never_zero(node.inputs[1]):
            yield (node.inputs[1], "zero")
    elif name in _FACTORISATIONS:
        yield node
    else:
        for inner in node.attrs.values():
            if isinstance(inner, Graph) and any(map(may_raise, inner.nodes)):
                yield node
                return


def may_raise(node: Node) -> bool:
    return node.op.has(EFFECT) or any(True for _ in raises(node))


def within(index: Node, size: int) -> bool:
    """Whether `index` lies in [0, size) by what it is."""
    while index.op.name in _VIEWS:
        index = index.inputs[0]
    name = index.op.name
    if name == "iota":
        return bool(index.shape[index.attrs["axis"]] <= size)
    if name in ("argmax", "argmin", "argsort"):
        return bool(index.inputs[0].shape[index.attrs["axis"]] <= size)
    if name == "constant":
        array = index.attrs["value"].array
        return array.size == 0 or bool(array.min() >= 0 and array.max() < size)
    return False


def never_zero(divisor: Node) -> bool:
    while divisor.op.name in _VIEWS:
        divisor = divisor.inputs[0]
    return divisor.op.name == "constant" and bool(np.all(divisor.attrs["value"].array != 0))
