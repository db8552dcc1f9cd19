"""Indexing by arrays as NumPy expressions; see straight.py and straight_ops.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tracegrad.backends.numpy.kernels.index import check_bounds
from tracegrad.backends.numpy.kernels.registry import Array
from tracegrad.backends.numpy.straight_ops import FLOATS, expression
from tracegrad.ir.graph import Node
from tracegrad.ir.types import i64
from tracegrad.passes.rules.patterns import shown_value


@expression("gather")
def _gather(w: Any, node: Node) -> str | None:
    source, *indices = node.inputs
    if node.attrs.axes != (0,) or not indices[0].type.size or not indices[0].type.shape:
        return None
    signed = signed_index(node)
    if signed is not None:
        return f"{w.whole(source)}.take({w.whole(signed)}, 0)"
    index = w.whole(indices[0])
    _within(w, index, indices[0].type.dtype, source.type.shape[0], 0)
    # the bounds are checked: `clip` spares the slow checking mode of take
    return f"{w.whole(source)}.take({index}, 0, None, 'clip')"


def signed_index(gather: Node) -> Node | None:
    """i, where rows are gathered at where(i < 0, i + rows, i): NumPy wraps and checks i itself.

    An index that it refuses is refused again, and explained, by the interpreter.
    """
    size, chosen = gather.inputs[0].type.shape[0], gather.inputs[1]
    if chosen.op.name != "where" or np.intp != np.int64 or chosen.type.dtype is not i64:
        return None
    below, wrapped, index = chosen.inputs
    counted = wrapped.op.name == "add" and wrapped.inputs[0] is index
    compared = below.op.name == "lt" and below.inputs[0] is index
    if not (counted and compared):
        return None
    if shown_value(wrapped.inputs[1]) != size or shown_value(below.inputs[1]) != 0:
        return None
    return index


def _within(w: Any, index: str, dtype: Any, size: int, axis: int) -> None:
    """A line that raises IndexOutOfRange unless every index is in [0, size)."""
    seen = index
    if dtype.np.kind == "i":  # negative ones are large then
        seen = f"{index}.view({w.use(np.dtype(f'u{dtype.itemsize}'))})"
    w.line(
        f"if {w.use(np.maximum.reduce)}({seen}, None) >= {size}: "
        f"{w.use(check_bounds)}({index}, {size}, {axis})"
    )


@expression("take_along")
def _take_along(w: Any, node: Node) -> str | None:
    source, index = node.inputs
    axis, shape = node.attrs.axis, index.type.shape
    if not index.type.size:
        return None
    at = w.whole(index)
    if not _sorted_order(index, axis, source.type.shape[axis]):
        _within(w, at, index.type.dtype, source.type.shape[axis], axis)
    counters = np.ogrid[tuple(map(slice, shape))]
    places = [at if k == axis else w.use(counters[k], (node, k)) for k in range(len(shape))]
    return f"{w.whole(source)}[{', '.join(places)}]"


def _sorted_order(index: Node, axis: int, size: int) -> bool:
    """Whether these places, or what they are a part of, sort an axis of this size."""
    while index.op.name == "slice":
        index = index.inputs[0]
    return (
        index.op.name == "argsort" and index.attrs.axis == axis and index.type.shape[axis] == size
    )


@expression("cross_entropy")
def _cross_entropy(w: Any, node: Node) -> str | None:
    logits, target = node.inputs
    if node.type.dtype not in FLOATS or not logits.type.size:
        return None
    return f"{w.use(_row_losses(node), node)}({w.whole(logits)}, {w.whole(target)})"


def _row_losses(node: Node) -> Callable[[Array, Array], Array]:
    """The kernel's steps; those for ignored rows only where a target is no class, or may be one."""
    (rows, classes), integer = node.inputs[0].type.shape, node.inputs[1].type.dtype.np
    zero, first = np.zeros((), node.type.dtype.np), np.zeros((), integer)
    no_row = np.asarray(node.attrs.ignore_index, integer)
    always = 0 <= node.attrs.ignore_index < classes
    row = np.arange(rows)
    unsigned = np.dtype(f"u{integer.itemsize}")  # negative ones are large then

    def losses(x: Array, target: Array) -> Array:
        column, ignored = target, None
        if always or np.maximum.reduce(target.view(unsigned)) >= classes:
            ignored = np.equal(target, no_row)
            column = np.where(ignored, first, target)
            check_bounds(column, classes, 1)
        top = np.maximum.reduce(x, 1, None, None, True)  # type: ignore[call-overload]
        shift = np.where(np.isfinite(top), top, zero)
        shifted = np.subtract(x, shift)
        mass = np.add.reduce(np.exp(shifted, shifted), 1)
        np.log(mass, mass)
        np.add(mass, shift[:, 0], mass)
        np.subtract(mass, x[row, column], mass)
        return mass if ignored is None else np.where(ignored, zero, mass)

    return losses
