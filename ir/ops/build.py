"""Short spellings that VJPs and decompositions share. They only emit IR."""

from __future__ import annotations

from collections.abc import Iterable

from tracegrad.ir import ops
from tracegrad.ir.graph import Node
from tracegrad.ir.types import DType, TensorType, f32, i64


def part(node: Node, index: int) -> Node:
    """Result `index` of a several-result op."""
    return ops.proj(node, index=index)


def to(x: Node, dtype: DType) -> Node:
    """`x` as `dtype`; nothing is emitted when it already is."""
    return x if x.dtype is dtype else ops.cast(x, dtype=dtype)


def wide(x: Node) -> Node:
    """`x` in the dtype that sums and exponentials are computed in: f32 for f16 and bf16."""
    return to(x, wide_dtype(x.dtype))


def wide_dtype(dtype: DType) -> DType:
    return f32 if dtype.is_float and dtype.itemsize < 4 else dtype


def full(shape: tuple[int, ...], dtype: DType, value: bool | int | float) -> Node:
    return ops.splat(value, TensorType(tuple(shape), dtype))


def full_like(x: Node, value: bool | int | float) -> Node:
    return ops.splat(value, x.type)


def total(x: Node, axes: Iterable[int]) -> Node:
    """Sum over `axes` (dropped); `x` itself when there are none."""
    axes = tuple(axes)
    return ops.sum_(x, axes=axes) if axes else x


def count(shape: tuple[int, ...], axes: Iterable[int]) -> int:
    size = 1
    for axis in axes:
        size *= shape[axis]
    return size


def average(x: Node, axes: Iterable[int]) -> Node:
    """Mean over `axes` (dropped). Of nothing it is nan, as in PyTorch."""
    axes = tuple(axes)
    number = count(x.shape, axes)
    return total(x, axes) * (1.0 / number if number else float("nan"))


def spread(x: Node, shape: tuple[int, ...], dropped: Iterable[int]) -> Node:
    """Undo a reduction: `x` broadcast to `shape`, whose axes `dropped` it lacks."""
    gone = set(dropped)
    dims = tuple(axis for axis in range(len(shape)) if axis not in gone)
    return ops.broadcast_to(x, shape=tuple(shape), dims=dims)


def along(x: Node, shape: tuple[int, ...], axes: Iterable[int]) -> Node:
    """`x`, whose axes are the axes `axes` of `shape`, broadcast to `shape`."""
    return ops.broadcast_to(x, shape=tuple(shape), dims=tuple(axes))


def swap(x: Node) -> Node:
    """The last two axes exchanged."""
    return ops.transpose(x, perm=(*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def adjoint(x: Node) -> Node:
    """Conjugate transpose of the last two axes."""
    return swap(ops.conj(x) if x.dtype.is_complex else x)


def reshape(x: Node, shape: tuple[int, ...]) -> Node:
    return x if x.shape == tuple(shape) else ops.reshape(x, shape=tuple(shape))


def greater(x: Node, y: Node) -> Node:
    return ops.lt(y, x)


def plus(x: Node | None, y: Node | None) -> Node | None:
    """Sum of two contributions to a cotangent, either of which may be absent."""
    if x is None:
        return y
    return x if y is None else x + y


def given(ct: Node | None, type_: TensorType) -> Node:
    """The cotangent, zeros where it is absent."""
    return ops.splat(0, type_) if ct is None else ct


def triangle(x: Node, keep: str) -> Node:
    """`x[.., n, m]` with zeros outside the part `keep`: "lower", "strict lower" or "upper"."""
    *_, n, m = x.shape
    row = ops.iota(shape=(n, m), axis=0, dtype=i64)
    column = ops.iota(shape=(n, m), axis=1, dtype=i64)
    if keep == "lower":
        mask = ops.le(column, row)
    elif keep == "strict lower":
        mask = ops.lt(column, row)
    else:
        mask = ops.le(row, column)
    mask = along(mask, x.shape, (x.ndim - 2, x.ndim - 1))
    return ops.where(mask, x, full_like(x, 0))
