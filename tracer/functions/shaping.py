"""Functions that copy elements elsewhere: joining, repeating, flipping."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node
from tracegrad.ir.ops.shape import reverse_axes, take_range
from tracegrad.tracer.dispatch import apply, hashable, user_op
from tracegrad.tracer.errors import ArgumentError, InvalidValueError, ShapeError
from tracegrad.tracer.functions.axes import (
    axes_in_turn,
    axes_of,
    axis_of,
    reshape,
)
from tracegrad.tracer.functions.indexing import index_select
from tracegrad.tracer.functions.promotion import Operand, as_node, promote


@user_op
def cat_(*tensors: Operand, dim: int) -> Node:
    """Tensors joined along an existing dimension, promoted to one dtype."""
    nodes = list(promote(*tensors))
    # PyTorch lets an empty vector join anything.
    shaped = [node for node in nodes if node.shape != (0,)]
    if not shaped:
        return nodes[0]
    axis = axis_of(dim, shaped[0].ndim)
    first = shaped[0].shape
    if not first:
        raise IRTypeError("cat() of 0-d tensors; use stack()")
    for node in shaped[1:]:
        if node.ndim != len(first) or any(
            n != m for k, (n, m) in enumerate(zip(node.shape, first)) if k != axis
        ):
            raise IRTypeError(
                f"cat(): shapes {list(first)} and {list(node.shape)} differ outside dimension "
                f"{axis}"
            )
    return ops.concatenate(*shaped, axis=axis) if len(shaped) > 1 else shaped[0]


@user_op
def stack_(*tensors: Operand, dim: int) -> Node:
    """Tensors of one shape joined along a new dimension."""
    nodes = promote(*tensors)
    first = nodes[0].shape
    for node in nodes[1:]:
        if node.shape != first:
            raise IRTypeError(f"stack(): shapes {list(first)} and {list(node.shape)} differ")
    axis = axis_of(dim, len(first) + 1)
    parts = [reshape(node, (*first[:axis], 1, *first[axis:])) for node in nodes]
    return ops.concatenate(*parts, axis=axis) if len(parts) > 1 else parts[0]


def _sequence(name: str, tensors: Any) -> Any:
    tensors = tuple(tensors)
    if not tensors:
        raise InvalidValueError(f"{name}() needs at least one tensor", fix="give a list of tensors")
    return tensors


def cat(tensors: Any, dim: int = 0, *, axis: int | None = None) -> Any:
    """Join tensors along an existing dimension (or `axis`, as NumPy names it); dtypes are promoted."""
    return apply(cat_, _sequence("cat", tensors), (hashable(dim if axis is None else axis),))


def stack(tensors: Any, dim: int = 0, *, axis: int | None = None) -> Any:
    """Join tensors of one shape along a new dimension (or `axis`, as NumPy names it)."""
    return apply(stack_, _sequence("stack", tensors), (hashable(dim if axis is None else axis),))


def _at_least(tensors: Any, ndim: int) -> list[Any]:
    """Tensors with axes of 1 added as NumPy's atleast functions do."""
    result = []
    for t in tensors:
        if ndim == 2 and t.ndim < 2:
            t = t.reshape(1, -1)
        elif t.ndim == 0:
            t = t.reshape(1)
        result.append(t)
    return result


def hstack(tensors: Any) -> Any:
    """Join along dimension 1 (vectors: 0)."""
    parts = _at_least(_sequence("hstack", tensors), 1)
    return cat(parts, 0 if parts[0].ndim == 1 else 1)


def vstack(tensors: Any) -> Any:
    """Join as rows."""
    return cat(_at_least(tensors, 2), 0)


@user_op
def repeat(input: Operand, /, repeats: Any) -> Node:
    """The tensor repeated so often along every dimension (leading ones are added)."""
    x = as_node(input)
    times = (repeats,) if isinstance(repeats, int) else tuple(repeats)
    if len(times) < x.ndim:
        raise IRTypeError(
            f"repeat{times} has fewer numbers than the tensor {list(x.shape)} dimensions"
        )
    return tiled(x, times)


@user_op
def tile(input: Operand, /, dims: Any) -> Node:
    """As repeat; missing leading numbers are 1."""
    x = as_node(input)
    times = (dims,) if isinstance(dims, int) else tuple(dims)
    return tiled(x, (1,) * (x.ndim - len(times)) + times)


def tiled(x: Node, times: tuple[int, ...]) -> Node:
    shape = (1,) * (len(times) - x.ndim) + x.shape
    if all(n == 1 for n in times):
        return reshape(x, shape)
    spread = tuple(m for t, n in zip(times, shape) for m in (t, n))
    wide = ops.broadcast_to(
        reshape(x, shape), shape=spread, dims=tuple(range(1, 2 * len(shape), 2))
    )
    return reshape(wide, tuple(t * n for t, n in zip(times, shape)))


@user_op(shown="repeat_interleave")
def repeat_interleave_int(input: Operand, /, repeats: int, dim: int | None = None) -> Node:
    """Every element (along dim; of the flat tensor if None) repeated in place."""
    x = as_node(input)
    if dim is None:
        x, dim = reshape(x, (x.type.size,)), 0
    axis = axis_of(dim, x.ndim)
    shape = x.shape
    spread = (*shape[: axis + 1], repeats, *shape[axis + 1 :])
    dims = tuple(k for k in range(len(spread)) if k != axis + 1)
    wide = ops.broadcast_to(x, shape=spread, dims=dims)
    return reshape(wide, (*shape[:axis], shape[axis] * repeats, *shape[axis + 1 :]))


@user_op(
    eager_only="the number of repeats of each element decides the shape", shown="repeat_interleave"
)
def repeat_interleave_each(repeats: Any, /, size: int) -> np.ndarray:
    """The position, out of `size`, of the element that stands at every place of the result."""
    if repeats.dtype.kind not in "iu" or repeats.ndim > 1:
        raise ArgumentError(
            f"repeat_interleave(): repeats is a {repeats.dtype} tensor of shape {list(repeats.shape)}",
            fix="give an int or a vector of int64 or int32",
        )
    if repeats.size not in (1, size):
        raise ShapeError(
            f"repeat_interleave(): {repeats.size} repeats for {size} elements",
            fix="give one repeat for every element along the dimension, or one for all",
        )
    if (repeats < 0).any():
        raise InvalidValueError(
            "repeat_interleave(): a repeat is negative", fix="give repeats of 0 or more"
        )
    return np.repeat(np.arange(size), repeats.reshape(-1))


def repeat_interleave(
    input: Any, repeats: Any = None, dim: int | None = None, *, output_size: int | None = None
) -> Any:
    """Every element repeated in place, all equally often (an int) or each its own number of
    times; of repeats alone, the positions.
    """
    if repeats is None:
        return repeat_interleave_each(input, input.shape[0] if input.ndim else 1)
    if isinstance(repeats, int):
        result = repeat_interleave_int(input, repeats, dim)
    else:
        if dim is None:
            input, dim = input.reshape(-1), 0
        positions = repeat_interleave_each(repeats, input.shape[dim] if input.ndim else 1)
        result = index_select(input, dim, positions)
    if output_size is not None and result.shape[dim or 0] != output_size:
        raise InvalidValueError(
            f"repeat_interleave(output_size={output_size}) makes {result.shape[dim or 0]} elements",
            fix="give the sum of the repeats, or leave output_size out",
        )
    return result


@user_op
def flip(input: Operand, /, dims: Any) -> Node:
    """The tensor read backwards along dims."""
    x = as_node(input)
    return reverse_axes(x, axes_of(dims, x.ndim)) if dims != () else x


@user_op
def fliplr(input: Operand, /) -> Node:
    """Columns in reverse order."""
    return _flipped("fliplr", input, 1)


@user_op
def flipud(input: Operand, /) -> Node:
    """Rows in reverse order."""
    return _flipped("flipud", input, 0)


def _flipped(name: str, input: Operand, axis: int) -> Node:
    x = as_node(input)
    if x.ndim <= axis:
        raise IRTypeError(f"{name}() of a tensor of {x.ndim} dimensions")
    return reverse_axes(x, (axis,))


def rolled(x: Node, shift: int, axis: int) -> Node:
    """Elements moved up by `shift` along an axis, around the end."""
    size = x.shape[axis]
    shift = shift % size if size else 0
    if not shift:
        return x
    return ops.concatenate(
        take_range(x, axis, size - shift, size), take_range(x, axis, 0, size - shift), axis=axis
    )


@user_op
def roll(input: Operand, /, shifts: Any, dims: Any = None) -> Node:
    """Elements shifted along dims, around the end; of the flat tensor if dims is None."""
    x = as_node(input)
    shifts = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    flat = dims in (None, ())
    axes = axes_in_turn(0 if flat else dims, 1 if flat else x.ndim)
    if len(shifts) != len(axes):
        raise IRTypeError(f"roll(shifts={shifts}, dims={dims}): a shift for every dimension")
    rows = reshape(x, (x.type.size,)) if flat else x
    for shift, axis in zip(shifts, axes):
        rows = rolled(rows, shift, axis)
    return reshape(rows, x.shape)


@user_op
def rot90(input: Operand, /, k: int = 1, dims: Any = (0, 1)) -> Node:
    """Turned by k quarters in the plane of dims."""
    x = as_node(input)
    axes = axes_in_turn(dims, x.ndim)
    if len(set(axes)) != 2 or len(axes) != 2:
        raise IRTypeError(f"rot90(dims={dims}) of {list(x.shape)}: two dimensions that differ")
    a, b = axes
    perm = list(range(x.ndim))
    perm[a], perm[b] = b, a
    k %= 4
    if k == 1:
        return ops.transpose(reverse_axes(x, (b,)), perm=tuple(perm))
    if k == 2:
        return reverse_axes(x, (a, b))
    return reverse_axes(ops.transpose(x, perm=tuple(perm)), (b,)) if k == 3 else x


@user_op
def meshgrid_(*tensors: Operand, indexing: str) -> tuple[Node, ...]:
    """Vectors as coordinates of a grid."""
    nodes = [as_node(t) for t in tensors]
    nodes = [reshape(n, (1,)) if n.ndim == 0 else n for n in nodes]
    order = list(range(len(nodes)))
    if indexing == "xy" and len(nodes) > 1:
        order[:2] = [1, 0]
    elif indexing not in ("ij", "xy"):
        raise IRTypeError(f'meshgrid(): indexing must be "ij" or "xy", not {indexing!r}')
    shape: list[int] = [0] * len(nodes)
    for node, axis in zip(nodes, order):
        shape[axis] = node.shape[0]
    return tuple(
        ops.broadcast_to(n, shape=tuple(shape), dims=(axis,)) for n, axis in zip(nodes, order)
    )


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Any, ...]:
    """Coordinates of a grid, one tensor per vector; dimension k follows vector k ("ij")."""
    if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
        tensors = tuple(tensors[0])
    result = apply(meshgrid_, tensors, (hashable(indexing),))
    return result if isinstance(result, tuple) else (result,)


def cartesian_prod(*tensors: Any) -> Any:
    """Every combination of the elements of vectors, [n, vectors]."""
    if any(x.ndim != 1 for x in tensors):
        shapes = [list(x.shape) for x in tensors]
        raise ShapeError(f"cartesian_prod() takes vectors, got shapes {shapes}")
    if len(tensors) == 1:
        return tensors[0]
    return stack([grid.reshape(-1) for grid in meshgrid(*tensors)], dim=-1)


PLAIN = (
    cat, stack, hstack, vstack, repeat_interleave, meshgrid, cartesian_prod,
)  # fmt: skip
