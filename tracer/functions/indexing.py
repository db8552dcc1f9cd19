"""Reading and writing by index tensors and masks."""

from __future__ import annotations

from typing import Any

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node
from tracegrad.ir.ops.build import full_like
from tracegrad.ir.ops.shape import take_range
from tracegrad.ir.types import TensorType, bool_, i64
from tracegrad.tracer.dispatch import Factor, Weak, apply, hashable, user_op
from tracegrad.tracer.functions.arithmetic import scaled
from tracegrad.tracer.functions.axes import axis_of, dimension_of, moved, reshape
from tracegrad.tracer.functions.checking import linked, required
from tracegrad.tracer.functions.promotion import (
    Operand,
    as_node,
    broadcast,
    broadcast_shapes,
    cast,
    expand,
    extremes,
    lift,
    require_dtype,
    require_same_dtype,
)


def places(index: Operand) -> Node:
    """An integer index as i64. What lies outside [0, size), negative ones too, raises at run time."""
    node = as_node(index)
    if not node.dtype.is_int:
        raise IRTypeError(f"an index must be an integer tensor, not {node.dtype.public_name}")
    return cast(node, i64)


def wrapped(index: Operand, size: int) -> Node:
    """An integer index as i64 in [0, size): negative ones count from the end."""
    node = places(index)
    return ops.where(ops.lt(node, ops.zeros_like(node)), node + size, node)


def _placed(x: Node, indices: tuple[Operand, ...], positions: tuple[int, ...]) -> tuple[Node, ...]:
    if len(indices) != len(positions):
        raise IRTypeError(f"{len(indices)} index tensors for the axes {positions}")
    return broadcast(*(wrapped(index, x.shape[axis]) for index, axis in zip(indices, positions)))


def _insertion(positions: tuple[int, ...]) -> int:
    """Where the index dimensions go: at the first indexed axis if these are adjacent, else in
    front.
    """
    adjacent = positions == tuple(range(positions[0], positions[0] + len(positions)))
    return positions[0] if adjacent else 0


@user_op
def index(input: Operand, /, *indices: Operand, positions: tuple[int, ...]) -> Node:
    """x[...] with integer tensors on the axes `positions` (ascending), broadcast together."""
    x = as_node(input)
    placed = _placed(x, indices, positions)
    taken = ops.gather(x, *placed, axes=positions)
    rank, front = placed[0].ndim, _insertion(positions)
    if not front:
        return taken
    # gather puts the index dimensions first; the axes before the first indexed one go there
    # instead.
    perm = (*range(rank, rank + front), *range(rank), *range(rank + front, taken.ndim))
    return ops.transpose(taken, perm=perm)


@user_op(stores="wide", shown="index_put")
def index_put_at(
    input: Operand,
    values: Operand,
    /,
    *indices: Operand,
    positions: tuple[int, ...],
    accumulate: bool,
) -> Node:
    """A copy of x with `values` (broadcast) stored at, or added to, x[...] on the axes
    `positions`.
    """
    x = as_node(input)
    placed = _placed(x, indices, positions)
    rank, front = placed[0].ndim, _insertion(positions)
    rest = tuple(n for axis, n in enumerate(x.shape) if axis not in positions)
    shape = (*rest[:front], *placed[0].shape, *rest[front:])
    u = lift(values, x.dtype, shape)
    if front:
        u = ops.transpose(
            u, perm=(*range(front, front + rank), *range(front), *range(front + rank, u.ndim))
        )
    return ops.scatter(x, *placed, u, axes=positions, mode="add" if accumulate else "set")


@user_op
def gather_(input: Operand, index: Operand, /, *, dim: int) -> Node:
    """out[i][j] = input[index[i][j]][j] for dim 0; index may be smaller than input elsewhere."""
    x, at = as_node(input), places(index)
    if 0 in at.shape:
        axis_of(dim, x.ndim)
        nothing = ops.splat(0, TensorType(at.shape, x.dtype))
        return linked(nothing, x) if x.dtype.is_inexact else nothing
    x, axis, where = _along(input, dim, at, "gather")
    return reshape(ops.take_along(_cropped(x, where.shape, axis), where, axis=axis), at.shape)


def _along(input: Operand, dim: int, index: Operand, name: str) -> tuple[Node, int, Node]:
    """The tensor and its index, vectors of one element where they are 0-d, and the axis."""
    x = as_node(input)
    axis = axis_of(dim, x.ndim)
    x, node = vector(x), vector(places(index))
    if node.ndim != x.ndim or any(
        m > n for k, (m, n) in enumerate(zip(node.shape, x.shape)) if k != axis
    ):
        raise IRTypeError(
            f"{name}(): index {list(node.shape)} does not fit input {list(x.shape)} outside "
            f"dimension {axis}"
        )
    return x, axis, node


def vector(x: Node) -> Node:
    """A 0-d tensor as a vector of one element; others as they are."""
    return x if x.ndim else reshape(x, (1,))


def _cropped(x: Node, shape: tuple[int, ...], axis: int) -> Node:
    """The leading part of x that an index of `shape` can reach."""
    for k, size in enumerate(shape):
        if k != axis and size != x.shape[k]:
            x = take_range(x, k, 0, size)
    return x


def _scattered(
    input: Operand, dim: int, index: Operand, source: Operand, mode: str, name: str
) -> Node:
    shape = as_node(input).shape
    at = places(index)
    if 0 in at.shape:
        return as_node(input)
    x, axis, where = _along(input, dim, at, name)
    if isinstance(source, Weak):
        u = lift(source, x.dtype, where.shape)
    else:
        if source.dtype is not x.dtype:
            raise IRTypeError(
                f"{name}(): src is {source.dtype.public_name}, the tensor "
                f"{x.dtype.public_name}; cast one"
            )
        u = _cropped(vector(source), where.shape, -1)
    part = _cropped(x, where.shape, axis)
    written = ops.scatter_along(part, where, u, axis=axis, mode=mode)
    if written.shape != x.shape:
        start, step = (0,) * x.ndim, (1,) * x.ndim
        written = ops.update_slice(x, written, start=start, stop=written.shape, step=step)
    return reshape(written, shape)


@user_op(stores="exact")
def scatter_(
    input: Operand, index: Operand, src: Operand, /, *, dim: int, reduce: str | None
) -> Node:
    """A copy of input with src (a tensor or number) stored at index along dim."""
    modes = {None: "set", "add": "add", "multiply": "mul"}
    if reduce not in modes:
        raise IRTypeError(f'scatter(): reduce must be "add" or "multiply", not {reduce!r}')
    return _scattered(input, dim, index, src, modes[reduce], "scatter")


@user_op
def scatter_add_(input: Operand, index: Operand, src: Operand, /, *, dim: int) -> Node:
    """A copy of input with src added at index along dim; repeated indices accumulate."""
    return _scattered(input, dim, index, src, "add", "scatter_add")


_REDUCTIONS = {"sum": "add", "prod": "mul", "amax": "max", "amin": "min"}


@user_op
def scatter_reduce_(
    input: Operand, index: Operand, src: Operand, /, *, dim: int, reduce: str, include_self: bool
) -> Node:
    """A copy of input with src reduced into it at index along dim."""
    if reduce != "mean":
        if reduce not in _REDUCTIONS:
            raise IRTypeError(
                f"scatter_reduce(): reduce must be sum, prod, mean, amax or amin, not {reduce!r}"
            )
        base = input if include_self else _cleared(input, dim, index, reduce)
        return _scattered(base, dim, index, src, _REDUCTIONS[reduce], "scatter_reduce")
    base, start = as_node(input), ops.ones_like(as_node(input))
    if not include_self:
        base, start = (_cleared(x, dim, index, "sum") for x in (base, start))
    total = _scattered(base, dim, index, src, "add", "scatter_reduce")
    one = ops.ones_like(as_node(src))
    count = _scattered(start, dim, index, one, "add", "scatter_reduce")
    return ops.div(total, count) if total.dtype.is_float else ops.floor_div(total, count)


def _cleared(input: Operand, dim: int, index: Operand, reduce: str) -> Node:
    """input with the neutral element where something will be written."""
    x = as_node(input)
    lowest, largest = extremes(x.dtype)
    neutral = {"sum": 0, "prod": 1, "amax": lowest, "amin": largest}[reduce]
    at = as_node(index)
    fill = ops.splat(neutral, TensorType(at.shape, x.dtype))
    return _scattered(x, dim, at, fill, "set", "scatter_reduce")


@user_op
def take_along_dim(input: Operand, indices: Operand, /, dim: int | None = None) -> Node:
    """Elements at indices along dim, the other dimensions broadcast."""
    x, at = as_node(input), as_node(indices)
    if dim is None:
        x, at, dim = reshape(x, (x.type.size,)), reshape(at, (at.type.size,)), 0
    axis = dimension_of(dim, x.ndim)
    shape = broadcast_shapes(
        tuple(1 if k == axis else n for k, n in enumerate(x.shape)),
        tuple(1 if k == axis else n for k, n in enumerate(at.shape)),
    )
    x = expand(x, tuple(x.shape[k] if k == axis else n for k, n in enumerate(shape)))
    at = expand(at, tuple(at.shape[k] if k == axis else n for k, n in enumerate(shape)))
    return ops.take_along(x, wrapped(at, x.shape[axis]), axis=axis)


@user_op
def take(input: Operand, index: Operand, /) -> Node:
    """Elements of the flat tensor."""
    x = as_node(input)
    flat = reshape(x, (x.type.size,))
    return ops.gather(flat, wrapped(index, flat.shape[0]), axes=(0,))


def _vector_index(at: Node, name: str) -> Node:
    if at.ndim > 1:
        raise IRTypeError(f"{name}(): index must be a vector, got {list(at.shape)}")
    return reshape(at, (at.type.size,))


@user_op
def index_select_(input: Operand, index: Operand, /, *, dim: int) -> Node:
    """Entries of one dimension, in the order of a vector of indices."""
    whole = as_node(input)
    axis = axis_of(dim, whole.ndim)
    x, at = vector(whole), _vector_index(places(index), "index_select")
    if not whole.ndim and at.shape != (1,):
        raise IRTypeError(f"index_select(): {at.shape[0]} indices into a 0-d tensor; it has one")
    taken = moved(ops.gather(x, at, axes=(axis,)), 0, axis)
    return taken if whole.ndim else reshape(taken, ())


def _index_written(
    name: str, input: Operand, dim: int, index: Operand, source: Operand, mode: str, alpha: Factor = 1
) -> Node:  # fmt: skip
    whole = as_node(input)
    axis = axis_of(dim, whole.ndim)
    x, at = vector(whole), _vector_index(places(index), name)
    u = cast(as_node(source), x.dtype)
    shape = (*x.shape[:axis], at.shape[0], *x.shape[axis + 1 :])
    if u.ndim and u.shape != shape:
        raise IRTypeError(f"{name}(): the source has shape {list(u.shape)}, not {list(shape)}")
    u = scaled(expand(u, shape), alpha)
    written = ops.scatter(x, at, moved(u, axis, 0), axes=(axis,), mode=mode)
    return reshape(written, whole.shape)


@user_op
def index_add_(
    input: Operand, index: Operand, source: Operand, /, *, dim: int, alpha: Factor
) -> Node:
    """A copy of input with alpha * source added at the entries `index` of dim; repeats
    accumulate.
    """
    return _index_written("index_add", input, dim, index, source, "add", alpha)


@user_op
def index_copy_(input: Operand, index: Operand, source: Operand, /, *, dim: int) -> Node:
    """A copy of input with source stored at the entries `index` of dim."""
    return _index_written("index_copy", input, dim, index, source, "set")


@user_op(stores="exact")
def index_fill_(input: Operand, index: Operand, value: Operand, /, *, dim: int) -> Node:
    """A copy of input with value (a number or 0-d) stored at the entries `index` of dim."""
    whole = as_node(input)
    axis = axis_of(dim, whole.ndim)
    if isinstance(value, Node) and value.ndim:
        raise IRTypeError(f"index_fill(): the value has shape {list(value.shape)}, not []")
    x = vector(whole)
    # This one counts negative indices from the end.
    at = _vector_index(wrapped(index, x.shape[axis]), "index_fill")
    # A mask: a place that is named twice is written, and passes its gradient, once.
    none = ops.splat(False, TensorType((x.shape[axis],), bool_))
    named = ops.scatter(
        none, at, ops.splat(True, TensorType(at.shape, bool_)), axes=(0,), mode="set"
    )
    mask = ops.broadcast_to(named, shape=x.shape, dims=(axis,))
    return reshape(ops.where(mask, lift(value, x.dtype, x.shape), x), whole.shape)


@user_op(stores="exact")
def masked_fill(input: Operand, mask: Operand, value: Operand, /) -> Node:
    """value (a number or 0-d tensor) where mask, else input; the dtype of input."""
    x, m = as_node(input), as_node(mask)
    if not m.dtype.is_bool:
        raise IRTypeError(f"masked_fill() needs a bool mask, not {m.dtype.public_name}")
    if isinstance(value, Node) and value.ndim:
        raise IRTypeError(
            f"masked_fill() needs a number or 0-d value, got shape {list(value.shape)}; use where()"
        )
    x, m = broadcast(x, m)
    return ops.where(m, lift(value, x.dtype, x.shape), x)


@user_op
def masked_scatter(input: Operand, mask: Operand, source: Operand, /) -> Node:
    """input with the elements of source, in order, where mask is true."""
    x, m = broadcast(as_node(input), as_node(mask))
    values, size = as_node(source), as_node(source).type.size
    require_same_dtype("masked_scatter", x, values)
    require_dtype("masked_scatter", (m,), "b")
    chosen = ops.cast(reshape(m, (m.type.size,)), dtype=i64)
    enough = ops.le(ops.sum_(chosen, axes=(0,)), ops.splat(size, TensorType((), i64)))
    x = required(x, enough, f"masked_scatter(): the mask has more than {size} true elements")
    if not size:
        return linked(x, values) if x.dtype.is_inexact else x
    # The n-th true position takes element n: the running count of the mask less one.
    order = ops.cumsum(chosen, axis=0) - 1
    at = ops.minimum(ops.maximum(order, ops.zeros_like(order)), full_like(order, size - 1))
    taken = ops.gather(reshape(values, (size,)), at, axes=(0,))
    return ops.where(m, reshape(taken, x.shape), x)


def gather(input: Any, dim: int, index: Any, *, sparse_grad: bool = False) -> Any:
    """out[i][j] = input[index[i][j]][j] for dim 0; index may be smaller than input elsewhere."""
    return apply(gather_, (input, index), (hashable(dim),))


def scatter(
    input: Any,
    dim: int,
    index: Any,
    src: Any = None,
    *,
    value: Any = None,
    reduce: str | None = None,
) -> Any:
    """A copy of input with src (a tensor or number) stored at index along dim."""
    return scatter_(input, index, value if src is None else src, dim=dim, reduce=reduce)


def scatter_add(input: Any, dim: int, index: Any, src: Any) -> Any:
    """A copy of input with src added at index along dim; repeated indices accumulate."""
    return scatter_add_(input, index, src, dim=dim)


def scatter_reduce(
    input: Any, dim: int, index: Any, src: Any, reduce: str, *, include_self: bool = True
) -> Any:
    """A copy of input with src reduced into it at index along dim: sum, prod, mean, amax, amin."""
    return scatter_reduce_(input, index, src, dim=dim, reduce=reduce, include_self=include_self)


def index_select(input: Any, dim: int, index: Any) -> Any:
    """Entries of one dimension, in the order of a vector of indices."""
    return index_select_(input, index, dim=dim)


def index_add(input: Any, dim: int, index: Any, source: Any, *, alpha: Any = 1) -> Any:
    """A copy of input with alpha * source added at the entries `index` of dim; repeats
    accumulate.
    """
    return index_add_(input, index, source, dim=dim, alpha=alpha)


def index_copy(input: Any, dim: int, index: Any, source: Any) -> Any:
    """A copy of input with source stored at the entries `index` of dim."""
    return index_copy_(input, index, source, dim=dim)


def index_fill(input: Any, dim: int, index: Any, value: Any) -> Any:
    """A copy of input with value stored at the entries `index` of dim."""
    return index_fill_(input, index, value, dim=dim)


PLAIN = (
    gather, scatter, scatter_add, scatter_reduce, index_select, index_add, index_copy, index_fill,
)  # fmt: skip
