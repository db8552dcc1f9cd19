"""Type promotion and broadcasting: how user-level operands become nodes of one type.

PyTorch's rules. A dtype has a category, bool < int < float < complex. Tensors with dimensions
decide; a 0-d tensor counts only where its category is higher, and a Python number only where its
category is higher still.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node
from tracegrad.ir.ops.build import to, wide_dtype
from tracegrad.ir.types import (
    DType,
    TensorType,
    bf16,
    bool_,
    c64,
    c128,
    f16,
    f32,
    f64,
    i8,
    i16,
    i32,
    i64,
    u8,
    u32,
    u64,
)
from tracegrad.tracer.dispatch import Weak
from tracegrad.tracer.state import get_default_dtype

Operand = Node | Weak
RANK = {"bool": 0, "int": 1, "float": 2, "complex": 3}
_SIGNED = (i8, i16, i32, i64)
_UNSIGNED = (u8, u32, u64)
EPSILON = {f16: 2.0**-10, bf16: 2.0**-7, f32: 2.0**-23, f64: 2.0**-52}  # the gap after 1


def promote_types(a: DType, b: DType) -> DType:
    """The smallest dtype that both convert to, as torch.promote_types."""
    if a is b:
        return a
    if RANK[a.category] > RANK[b.category]:
        a, b = b, a
    if a.category != b.category:
        if b.is_complex and a is f64:
            return c128
        return b
    if a.is_float:
        if a.itemsize == b.itemsize:  # f16 with bf16: neither holds the other
            return f32
        return a if a.itemsize > b.itemsize else b
    if a.is_complex:
        return c128
    if a in _SIGNED and b in _SIGNED or a in _UNSIGNED and b in _UNSIGNED:
        return a if a.itemsize > b.itemsize else b
    signed, unsigned = (a, b) if a in _SIGNED else (b, a)
    wanted = max(signed.itemsize, 2 * unsigned.itemsize)
    return next(d for d in _SIGNED if d.itemsize >= min(wanted, 8))


def complex_of(dtype: DType) -> DType:
    """The complex dtype whose parts are `dtype` (half precision has none: complex64)."""
    return c128 if dtype is f64 else c64


def extremes(dtype: DType) -> tuple[Any, Any]:
    """The smallest and the largest value."""
    if dtype.is_float:
        return float("-inf"), float("inf")
    if dtype.is_bool:
        return False, True
    bounds = np.iinfo(dtype.np)
    return int(bounds.min), int(bounds.max)


def can_cast(source: DType, target: DType) -> bool:
    """Whether an in-place op may store `source` in `target`: the category may not fall."""
    return RANK[source.category] <= RANK[target.category]


def weak_dtype(category: str) -> DType:
    """The dtype a Python number has where no tensor decides."""
    if category == "float":
        return get_default_dtype()
    if category == "complex":
        return complex_of(get_default_dtype())
    return i64 if category == "int" else bool_


def _combine(higher: DType | None, lower: DType | None) -> DType | None:
    """`lower` matters only if its category is higher."""
    if higher is None or lower is None:
        return higher or lower
    if higher.is_complex:
        return higher
    if higher.is_float:
        return complex_of(higher) if lower.is_complex else higher
    if higher.is_bool or lower.is_inexact:
        return promote_types(higher, lower)
    return higher


def result_dtype(*operands: Operand) -> DType:
    """torch.result_type: of tensors with dimensions, then 0-d tensors, then Python numbers."""
    found: list[DType | None] = [None, None, None]
    for operand in operands:
        if isinstance(operand, Weak):
            level, dtype = 2, weak_dtype(operand.category)
        else:
            level, dtype = (0 if operand.ndim else 1), operand.dtype
        before = found[level]
        found[level] = dtype if before is None else promote_types(before, dtype)
    dtype_ = _combine(found[0], _combine(found[1], found[2]))
    assert dtype_ is not None
    return dtype_


def cast(x: Node, dtype: DType) -> Node:
    """`x` as `dtype`; a constant is converted at once."""
    if x.dtype is dtype:
        return x
    if x.op is ops.constant and x.attrs.value.is_splat:
        return ops.splat(_converted(x.attrs.value.splat, dtype), TensorType(x.shape, dtype))
    return ops.cast(x, dtype=dtype)


def _converted(value: Any, dtype: DType) -> Any:
    """A Python number as `dtype` stores it: integers wrap, complex loses its imaginary part."""
    if isinstance(value, complex) and not dtype.is_complex:
        value = value.real
    with np.errstate(all="ignore"):
        return np.asarray(value).astype(dtype.np)[()]


def lift(operand: Operand, dtype: DType, shape: tuple[int, ...] = ()) -> Node:
    """An operand as a node of exactly this dtype and shape (broadcast)."""
    return expand(cast(node_of(operand), dtype), shape)


def expand(x: Node, shape: tuple[int, ...]) -> Node:
    """`x` broadcast to `shape`, aligned at the last axis. Raises IRTypeError if it does not fit."""
    shape = tuple(shape)
    if x.shape == shape:
        return x
    offset = len(shape) - x.ndim
    if offset < 0 or any(n not in (1, m) for n, m in zip(x.shape, shape[offset:])):
        raise IRTypeError(f"shape {list(x.shape)} does not broadcast to {list(shape)}")
    if x.op is ops.constant and x.attrs.value.is_splat:
        return ops.splat(x.attrs.value.splat, TensorType(shape, x.dtype))
    return ops.broadcast_to(x, shape=shape, dims=tuple(range(offset, len(shape))))


def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The common shape, aligned at the last axis. Raises IRTypeError naming all the shapes."""
    result: list[int] = []
    for k in range(-max(map(len, shapes), default=0), 0):
        sizes = {shape[k] for shape in shapes if len(shape) >= -k} - {1}
        if len(sizes) > 1:
            listed = " and ".join(str(list(shape)) for shape in shapes)
            raise IRTypeError(f"shapes {listed} do not broadcast: dimension {k} differs")
        result.append(sizes.pop() if sizes else 1)
    return tuple(result)


def broadcast(*nodes: Node) -> tuple[Node, ...]:
    """All nodes at their common shape."""
    shape = broadcast_shapes(*(node.shape for node in nodes))
    return tuple(expand(node, shape) for node in nodes)


def promote(*operands: Operand) -> tuple[Node, ...]:
    """All operands as nodes of their result dtype (shapes unchanged; numbers are 0-d)."""
    dtype = result_dtype(*operands)
    return tuple(lift(x, dtype, node_of(x).shape) for x in operands)


def common(*operands: Operand) -> tuple[Node, ...]:
    """Nodes of one type: promoted and broadcast."""
    return broadcast(*promote(*operands))


def keeping_digits(
    function: Callable[..., Node], *operands: Operand, dtype: DType | None = None
) -> Node:
    """A function of nodes of one type, the result of `operands` (or `dtype`).

    A number (or a tensor without dimensions) among 16-bit floats keeps its digits: float32 is
    computed with, and rounded once.
    """
    dtype = dtype or result_dtype(*operands)
    shape = broadcast_shapes(*(node_of(x).shape for x in operands))
    precise = any(not node_of(x).ndim and node_of(x).dtype is not dtype for x in operands)
    inner = wide_dtype(dtype) if precise else dtype
    nodes = [node_of(x) for x in operands]
    nodes = [cast(cast(x, dtype) if x.ndim else x, inner) for x in nodes]
    return to(function(*(expand(x, shape) for x in nodes)), dtype)


def node_of(operand: Operand) -> Node:
    return operand.node if isinstance(operand, Weak) else operand


def float_dtype(dtype: DType) -> DType:
    """The dtype a function of reals computes in: integers and bools become the default dtype."""
    return dtype if dtype.is_inexact else get_default_dtype()


def common_float(*operands: Operand) -> tuple[Node, ...]:
    """Nodes of one inexact type: as `common`, integers becoming the default dtype."""
    dtype = float_dtype(result_dtype(*operands))
    nodes = (lift(x, dtype, node_of(x).shape) for x in operands)
    return broadcast(*nodes)


def as_node(operand: Operand) -> Node:
    """An operand as a tensor node; a number gets the dtype it has alone."""
    if isinstance(operand, Weak):
        return lift(operand, weak_dtype(operand.category), operand.node.shape)
    return operand


def to_float(operand: Operand) -> Node:
    """An operand as an inexact node."""
    node = as_node(operand)
    return cast(node, float_dtype(node.dtype))


def as_type_of(operand: Operand, like: Node) -> Node:
    """An operand as a node of exactly the type of `like`."""
    return lift(operand, like.dtype, like.shape)


def constant_value(operand: Any) -> Any:
    """The Python value of a number known while emitting, else None."""
    if isinstance(operand, Weak) and operand.node.op is ops.constant:
        return operand.node.attrs.value.splat
    return None


def require_dtype(name: str, nodes: Iterable[Node], categories: str) -> None:
    """Raise IRTypeError unless all nodes have a category with one of these initials."""
    for node in nodes:
        if node.dtype.category[0] not in categories:
            raise IRTypeError(f"{name}() does not take {node.dtype.public_name} tensors")


def require_same_dtype(name: str, *nodes: Node | None) -> None:
    """Contractions do not promote, as in PyTorch. Raises IRTypeError."""
    dtypes = [node.dtype for node in nodes if node is not None]
    if any(dtype is not dtypes[0] for dtype in dtypes):
        names = " and ".join(dtype.public_name for dtype in dtypes)
        raise IRTypeError(
            f"{name}() needs tensors of one dtype, got {names}; cast one of them with .to(dtype)"
        )
