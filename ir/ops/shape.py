"""Ops that move elements and compute nothing."""

from __future__ import annotations

from math import prod

from tracegrad.ir import ops
from tracegrad.ir.graph import Node, Op
from tracegrad.ir.ops.base import (
    checked_axis,
    checked_ints,
    index_type,
    no_flops,
    register,
    require,
    tensor,
    traits,
)
from tracegrad.ir.ops.traits import CHEAP, VIEW
from tracegrad.ir.types import TensorType

Ints = tuple[int, ...]
_VIEW = traits(VIEW, CHEAP)

# ---------------------------------------------------------------- reshape, transpose, broadcast_to


def _reshape_type(x: TensorType, shape: Ints) -> TensorType:
    checked_ints(shape, None, "shape")
    require(prod(shape) == tensor(x).size, f"{x} has not the {prod(shape)} elements of {shape}")
    return x.with_shape(shape)


def _reshape_vjp(ct: Node, y: Node, x: Node, shape: Ints) -> tuple[Node]:
    return (ops.reshape(ct, shape=x.shape),)


# The same elements in row-major order.
reshape = register(
    Op(
        "reshape",
        attrs=("shape",),
        infer=_reshape_type,
        vjp=_reshape_vjp,
        traits=_VIEW,
        flops=no_flops,
    )
)


def _transpose_type(x: TensorType, perm: Ints) -> TensorType:
    checked_ints(perm, tensor(x).ndim, "perm")
    require(sorted(perm) == list(range(x.ndim)), f"{perm} is not a permutation of the axes")
    return x.with_shape(tuple(x.shape[axis] for axis in perm))


def _transpose_vjp(ct: Node, y: Node, x: Node, perm: Ints) -> tuple[Node]:
    inverse = tuple(sorted(range(len(perm)), key=perm.__getitem__))
    return (ops.transpose(ct, perm=inverse),)


# Output axis k is input axis perm[k].
transpose = register(
    Op(
        "transpose",
        attrs=("perm",),
        infer=_transpose_type,
        vjp=_transpose_vjp,
        traits=_VIEW,
        flops=no_flops,
    )
)


def _broadcast_type(x: TensorType, shape: Ints, dims: Ints) -> TensorType:
    checked_ints(shape, None, "shape")
    checked_ints(dims, tensor(x).ndim, "dims")
    require(
        list(dims) == sorted(set(dims)) and all(dim < len(shape) for dim in dims),
        f"dims {dims} must be increasing axes of {shape}",
    )
    for size, dim in zip(x.shape, dims):
        require(size in (1, shape[dim]), f"size {size} does not broadcast to {shape[dim]}")
    return x.with_shape(shape)


def _broadcast_vjp(ct: Node, y: Node, x: Node, shape: Ints, dims: Ints) -> tuple[Node]:
    kept = {dim for size, dim in zip(x.shape, dims) if size == shape[dim]}
    summed = tuple(axis for axis in range(len(shape)) if axis not in kept)
    total = ops.sum_(ct, axes=summed) if summed else ct
    return (total if total.shape == x.shape else ops.reshape(total, shape=x.shape),)


# Input axis k becomes output axis dims[k]; its size is the output's or 1.
broadcast_to = register(
    Op(
        "broadcast_to",
        attrs=("shape", "dims"),
        infer=_broadcast_type,
        vjp=_broadcast_vjp,
        traits=_VIEW,
        flops=no_flops,
    )
)

# ---------------------------------------------------------------- slice, update_slice, pad


def _slice_shape(x: TensorType, start: Ints, stop: Ints, step: Ints) -> Ints:
    """The shape of the slice; refuses bounds that are not canonical."""
    for what, values in (("start", start), ("stop", stop), ("step", step)):
        checked_ints(values, tensor(x).ndim, what, low=None)
    for size, a, b, s in zip(x.shape, start, stop, step):
        good = (0 <= a <= b <= size) if s > 0 else (-1 <= b <= a < size)
        require(s != 0 and good, f"slice {a}:{b}:{s} is not canonical for size {size}")
    return tuple(len(range(a, b, s)) for a, b, s in zip(start, stop, step))


def _slice_type(x: TensorType, start: Ints, stop: Ints, step: Ints) -> TensorType:
    return x.with_shape(_slice_shape(x, start, stop, step))


def reverse_axes(x: Node, axes: Ints) -> Node:
    """`x` with the order of elements reversed along `axes`."""
    flipped = [axis in axes and x.shape[axis] > 0 for axis in range(x.ndim)]
    if not any(flipped):
        return x
    return ops.slice_(
        x,
        start=tuple(n - 1 if flip else 0 for n, flip in zip(x.shape, flipped)),
        stop=tuple(-1 if flip else n for n, flip in zip(x.shape, flipped)),
        step=tuple(-1 if flip else 1 for flip in flipped),
    )


def take_range(x: Node, axis: int, start: int, stop: int) -> Node:
    """x[start:stop] along one axis."""
    return ops.slice_(
        x,
        start=tuple(start if k == axis else 0 for k in range(x.ndim)),
        stop=tuple(stop if k == axis else n for k, n in enumerate(x.shape)),
        step=(1,) * x.ndim,
    )


def _slice_vjp(ct: Node, y: Node, x: Node, start: Ints, stop: Ints, step: Ints) -> tuple[Node]:
    if y.type.size == 0:
        return (ops.zeros_like(x),)
    ct = reverse_axes(ct, tuple(axis for axis, s in enumerate(step) if s < 0))
    ends = [(a, a + (n - 1) * s) for a, s, n in zip(start, step, y.shape)]
    low = tuple(min(pair) for pair in ends)
    high = tuple(n - 1 - max(pair) for n, pair in zip(x.shape, ends))
    interior = tuple(abs(s) - 1 if n > 1 else 0 for s, n in zip(step, y.shape))
    zero = ops.splat(0, TensorType((), ct.dtype))
    return (ops.pad(ct, zero, low=low, high=high, interior=interior),)


# Elements start, start + step, ... before stop, per axis.
slice_ = register(
    Op(
        "slice",
        attrs=("start", "stop", "step"),
        infer=_slice_type,
        vjp=_slice_vjp,
        traits=_VIEW,
        flops=no_flops,
    )
)


def _update_slice_type(
    x: TensorType, u: TensorType, start: Ints, stop: Ints, step: Ints
) -> TensorType:
    region = x.with_shape(_slice_shape(x, start, stop, step))
    require(u == region, f"the slice is {region}, the update {u}")
    return x


def _update_slice_vjp(
    ct: Node, y: Node, x: Node, u: Node, start: Ints, stop: Ints, step: Ints
) -> tuple[Node, Node]:
    where = {"start": start, "stop": stop, "step": step}
    return ops.update_slice(ct, ops.zeros_like(u), **where), ops.slice_(ct, **where)


# x with that slice replaced by u.
update_slice = register(
    Op(
        "update_slice",
        attrs=("start", "stop", "step"),
        infer=_update_slice_type,
        vjp=_update_slice_vjp,
        flops=no_flops,
    )
)


def _pad_type(
    x: TensorType, value: TensorType, low: Ints, high: Ints, interior: Ints
) -> TensorType:
    require(value == tensor(x).with_shape(()), f"the pad value must be {x.dtype.name}[]")
    for what, values in (("low", low), ("high", high), ("interior", interior)):
        checked_ints(values, x.ndim, what)
    sizes = zip(x.shape, low, high, interior)
    return x.with_shape(tuple(a + n + max(n - 1, 0) * i + b for n, a, b, i in sizes))


def _pad_vjp(
    ct: Node, y: Node, x: Node, value: Node, low: Ints, high: Ints, interior: Ints
) -> tuple[Node, Node]:
    where = {
        "start": low,
        "stop": tuple(
            a + (n - 1) * (i + 1) + 1 if n else a for a, n, i in zip(low, x.shape, interior)
        ),
        "step": tuple(i + 1 for i in interior),
    }
    outside = ops.update_slice(ct, ops.zeros_like(x), **where)
    return ops.slice_(ct, **where), ops.sum_(outside, axes=tuple(range(ct.ndim)))


# low[k] values before, high[k] after, interior[k] between the elements of axis k.
pad = register(
    Op("pad", attrs=("low", "high", "interior"), infer=_pad_type, vjp=_pad_vjp, flops=no_flops)
)

# ---------------------------------------------------------------- concatenate


def _concatenate_type(*xs: TensorType, axis: int) -> TensorType:
    require(len(xs) > 0, "needs at least one input")
    first = tensor(xs[0])
    checked_axis(axis, first.ndim)
    for x in xs:
        like = x.dtype is first.dtype and x.ndim == first.ndim
        require(
            like and all(k == axis or n == m for k, (n, m) in enumerate(zip(x.shape, first.shape))),
            f"inputs may differ in axis {axis} only",
        )
    total = sum(x.shape[axis] for x in xs)
    return first.with_shape((*first.shape[:axis], total, *first.shape[axis + 1 :]))


def _concatenate_vjp(ct: Node, y: Node, *xs: Node, axis: int) -> tuple[Node, ...]:
    parts, start = [], 0
    for x in xs:
        parts.append(take_range(ct, axis, start, start + x.shape[axis]))
        start += x.shape[axis]
    return tuple(parts)


# One after the other along `axis`.
concatenate = register(
    Op(
        "concatenate",
        attrs=("axis",),
        infer=_concatenate_type,
        vjp=_concatenate_vjp,
        flops=no_flops,
    )
)

# ---------------------------------------------------------------- slices at computed positions


def _checked_starts(x: TensorType, starts: tuple[TensorType, ...]) -> None:
    require(len(starts) == tensor(x).ndim, f"{x.ndim} starts are needed, one per axis")
    for start in starts:
        require(index_type(start, "start").ndim == 0, f"a start must be i64[], not {start}")


def _dynamic_slice_type(x: TensorType, *starts: TensorType, sizes: Ints) -> TensorType:
    _checked_starts(x, starts)
    checked_ints(sizes, x.ndim, "sizes")
    require(all(s <= n for s, n in zip(sizes, x.shape)), f"sizes {sizes} exceed {x}")
    return x.with_shape(sizes)


def _dynamic_slice_vjp(
    ct: Node, y: Node, x: Node, *starts: Node, sizes: Ints
) -> tuple[Node | None, ...]:
    dx = ops.dynamic_update_slice(ops.zeros_like(x), ct, *starts)
    return (dx, *(None for _ in starts))


# The block of `sizes` that begins at `starts`, which are clamped so that it fits.
dynamic_slice = register(
    Op(
        "dynamic_slice",
        attrs=("sizes",),
        infer=_dynamic_slice_type,
        vjp=_dynamic_slice_vjp,
        flops=no_flops,
    )
)


def _dynamic_update_slice_type(x: TensorType, u: TensorType, *starts: TensorType) -> TensorType:
    _checked_starts(x, starts)
    fits = tensor(u).ndim == x.ndim and all(s <= n for s, n in zip(u.shape, x.shape))
    require(fits and u.dtype is x.dtype, f"update {u} does not fit into {x}")
    return x


def _dynamic_update_slice_vjp(
    ct: Node, y: Node, x: Node, u: Node, *starts: Node
) -> tuple[Node | None, ...]:
    dx = ops.dynamic_update_slice(ct, ops.zeros_like(u), *starts)
    du = ops.dynamic_slice(ct, *starts, sizes=u.shape)
    return (dx, du, *(None for _ in starts))


# x with the block that begins at `starts` (clamped) replaced by u.
dynamic_update_slice = register(
    Op(
        "dynamic_update_slice",
        infer=_dynamic_update_slice_type,
        vjp=_dynamic_update_slice_vjp,
        flops=no_flops,
    )
)
