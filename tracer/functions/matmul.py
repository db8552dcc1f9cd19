"""Matrix products. Rows times one matrix are always one 2-D product, never a broadcast weight."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node
from tracegrad.ir.ops.build import swap
from tracegrad.tracer.dispatch import Factor, user_op
from tracegrad.tracer.functions.arithmetic import scaled
from tracegrad.tracer.functions.axes import axes_in_turn, dimension_of, reshape
from tracegrad.tracer.functions.checking import linked
from tracegrad.tracer.functions.promotion import (
    Operand,
    as_node,
    broadcast,
    broadcast_shapes,
    common,
    expand,
    promote,
    require_same_dtype,
)
from tracegrad.tracer.functions.reductions import summed
from tracegrad.tracer.functions.shaping import rolled


def product(x: Node, y: Node) -> Node:
    """torch.matmul of any ranks. Raises IRTypeError where the inner sizes differ."""
    require_same_dtype("matmul", x, y)
    if x.ndim == 0 or y.ndim == 0:
        raise IRTypeError(
            f"matmul() needs at least 1 dimension, got {list(x.shape)} and {list(y.shape)}"
        )
    inner, rows = x.shape[-1], y.shape[-2 if y.ndim > 1 else 0]
    if inner != rows:
        raise IRTypeError(
            f"matmul() of {list(x.shape)} and {list(y.shape)}: the last dimension of the first "
            f"({inner}) "
            f"must equal the {'last but one' if y.ndim > 1 else 'only'} dimension of the second "
            f"({rows})"
        )
    if x.ndim == 1:
        result = product(reshape(x, (1, inner)), y)
        return reshape(result, (*result.shape[: max(y.ndim - 2, 0)], *y.shape[-1:][: y.ndim - 1]))
    if y.ndim == 1:
        return reshape(product(x, reshape(y, (inner, 1))), x.shape[:-1])
    if y.ndim == 2:
        return rows_times(x, y)
    batch = broadcast_shapes(x.shape[:-2], y.shape[:-2])
    return ops.matmul(expand(x, (*batch, *x.shape[-2:])), expand(y, (*batch, *y.shape[-2:])))


def rows_times(x: Node, w: Node) -> Node:
    """x[.., k] @ w[k, n] as one 2-D product."""
    if x.ndim == 2:
        return ops.matmul(x, w)
    rows = reshape(x, (prod(x.shape[:-1]), x.shape[-1]))
    return reshape(ops.matmul(rows, w), (*x.shape[:-1], w.shape[1]))


@user_op
def matmul(input: Operand, other: Operand, /) -> Node:
    """The matrix product, of batches of matrices and of vectors as torch.matmul. No promotion."""
    return product(as_node(input), as_node(other))


def _of_ranks(name: str, nodes: Sequence[Node], ranks: tuple[int, ...]) -> None:
    if tuple(node.ndim for node in nodes) != ranks:
        shapes = ", ".join(str(list(node.shape)) for node in nodes)
        raise IRTypeError(
            f"{name}() needs tensors of {', '.join(map(str, ranks))} dimensions, got {shapes}"
        )


@user_op
def mm(input: Operand, mat2: Operand, /) -> Node:
    """The product of two matrices."""
    x, y = as_node(input), as_node(mat2)
    _of_ranks("mm", (x, y), (2, 2))
    return product(x, y)


@user_op
def bmm(input: Operand, mat2: Operand, /) -> Node:
    """Products of two equal batches of matrices."""
    x, y = as_node(input), as_node(mat2)
    _of_ranks("bmm", (x, y), (3, 3))
    if x.shape[0] != y.shape[0]:
        raise IRTypeError(f"bmm() of {list(x.shape)} and {list(y.shape)}: the batch sizes differ")
    return product(x, y)


@user_op
def mv(input: Operand, vec: Operand, /) -> Node:
    """A matrix times a vector."""
    x, y = as_node(input), as_node(vec)
    _of_ranks("mv", (x, y), (2, 1))
    return product(x, y)


@user_op
def dot(input: Operand, tensor: Operand, /) -> Node:
    """The sum of products of two vectors."""
    x, y = as_node(input), as_node(tensor)
    _of_ranks("dot", (x, y), (1, 1))
    return product(x, y)


@user_op
def outer(input: Operand, vec2: Operand, /) -> Node:
    """All products of the elements of two vectors, [n, m]."""
    x, y = promote(input, vec2)
    _of_ranks("outer", (x, y), (1, 1))
    shape = (x.shape[0], y.shape[0])
    return ops.mul(
        ops.broadcast_to(x, shape=shape, dims=(0,)), ops.broadcast_to(y, shape=shape, dims=(1,))
    )


@user_op
def inner(input: Operand, other: Operand, /) -> Node:
    """Products summed over the last dimension of both."""
    x, y = as_node(input), as_node(other)
    if x.ndim == 0 or y.ndim == 0:
        return ops.mul(*common(x, y))
    flat = reshape(y, (prod(y.shape[:-1]), y.shape[-1]))
    return reshape(rows_times(x, swap(flat)), (*x.shape[:-1], *y.shape[:-1]))


@user_op
def linear(input: Operand, weight: Operand, bias: Operand | None = None, /) -> Node:
    """input[.., in] @ weight[out, in].T + bias[out]."""
    x, w = as_node(input), as_node(weight)
    b = None if bias is None else as_node(bias)
    require_same_dtype("linear", x, w, b)
    if w.ndim == 1:
        result = product(x, w)
        return result if b is None else ops.add(result, expand(b, result.shape))
    if x.ndim == 0 or x.shape[-1] != w.shape[1]:
        raise IRTypeError(
            f"linear(): input {list(x.shape)} does not end in the {w.shape[1]} features of "
            f"weight {list(w.shape)}"
        )
    flat = reshape(x, (1, x.shape[0])) if x.ndim == 1 else x
    result = reshape(rows_times(flat, swap(w)), (*x.shape[:-1], w.shape[0]))
    return result if b is None else ops.add(result, expand(b, result.shape))


@user_op
def bilinear(
    input1: Operand, input2: Operand, weight: Operand, bias: Operand | None = None, /
) -> Node:
    """input1[.., i] weight[o, i, j] input2[.., j] + bias[o]."""
    x, y, w = as_node(input1), as_node(input2), as_node(weight)
    if w.ndim != 3 or not (x.ndim and y.ndim) or (x.shape[-1], y.shape[-1]) != w.shape[1:]:
        raise IRTypeError(
            f"bilinear() of {list(x.shape)} and {list(y.shape)} with a weight {list(w.shape)}: "
            "input1[.., i], input2[.., j] and weight[o, i, j] are needed"
        )
    o, i, j = w.shape
    # [.., i] @ [i, o j] -> [.., o, j], then the sum over j with input2.
    left = rows_times(x, reshape(ops.transpose(w, perm=(1, 0, 2)), (i, o * j)))
    left = reshape(left, (*x.shape[:-1], o, j))
    right = expand(reshape(y, (*y.shape[:-1], 1, j)), left.shape)
    result = summed(ops.mul(left, right), (left.ndim - 1,))
    return result if bias is None else ops.add(result, expand(as_node(bias), result.shape))


def _combined(name: str, base: Operand, x: Node, beta: Any, alpha: Factor) -> Node:
    """beta * base + alpha * x; beta 0 ignores base, nan or not."""
    b = as_node(base)
    require_same_dtype(name, b, x)
    x = scaled(x, alpha)
    if beta == 0:
        return linked(x, b) if b.dtype.is_inexact else x
    b = expand(b, x.shape)
    return ops.add(b if beta == 1 else b * beta, x)


@user_op
def addmm(
    input: Operand, mat1: Operand, mat2: Operand, /, *, beta: Any = 1, alpha: Factor = 1
) -> Node:
    """beta * input + alpha * mat1 @ mat2."""
    return _combined("addmm", input, mm.emit(mat1, mat2), beta, alpha)


@user_op
def addmv(
    input: Operand, mat: Operand, vec: Operand, /, *, beta: Any = 1, alpha: Factor = 1
) -> Node:
    """beta * input + alpha * mat @ vec."""
    return _combined("addmv", input, mv.emit(mat, vec), beta, alpha)


@user_op
def addr(
    input: Operand, vec1: Operand, vec2: Operand, /, *, beta: Any = 1, alpha: Factor = 1
) -> Node:
    """beta * input + alpha * outer(vec1, vec2)."""
    return _combined("addr", input, outer.emit(vec1, vec2), beta, alpha)


@user_op
def baddbmm(
    input: Operand, batch1: Operand, batch2: Operand, /, *, beta: Any = 1, alpha: Factor = 1
) -> Node:
    """beta * input + alpha * batch1 @ batch2."""
    return _combined("baddbmm", input, bmm.emit(batch1, batch2), beta, alpha)


@user_op
def addbmm(
    input: Operand, batch1: Operand, batch2: Operand, /, *, beta: Any = 1, alpha: Factor = 1
) -> Node:
    """beta * input + alpha * the sum of batch1 @ batch2 over the batch."""
    return _combined("addbmm", input, summed(bmm.emit(batch1, batch2), (0,)), beta, alpha)


def tensordot_of(x: Node, y: Node, dims_x: tuple[int, ...], dims_y: tuple[int, ...]) -> Node:
    """Products summed over pairs of axes; the remaining axes of x, then those of y."""
    for a, b in zip(dims_x, dims_y):
        if x.shape[a] != y.shape[b]:
            raise IRTypeError(
                f"tensordot() of {list(x.shape)} and {list(y.shape)}: dims {a} and {b} differ"
            )
    rest_x = tuple(k for k in range(x.ndim) if k not in dims_x)
    rest_y = tuple(k for k in range(y.ndim) if k not in dims_y)
    outside_x = tuple(x.shape[k] for k in rest_x)
    outside_y = tuple(y.shape[k] for k in rest_y)
    inner = prod(x.shape[a] for a in dims_x)
    left = reshape(ops.transpose(x, perm=(*rest_x, *dims_x)), (prod(outside_x), inner))
    right = reshape(ops.transpose(y, perm=(*dims_y, *rest_y)), (inner, prod(outside_y)))
    return reshape(ops.matmul(left, right), (*outside_x, *outside_y))


@user_op
def tensordot(a: Operand, b: Operand, /, dims: Any = 2) -> Node:
    """Products summed over dims: the last n of a with the first n of b, or two lists of axes."""
    x, y = as_node(a), as_node(b)
    require_same_dtype("tensordot", x, y)
    if isinstance(dims, int):
        if not 0 <= dims <= min(x.ndim, y.ndim):
            raise IRTypeError(
                f"tensordot(dims={dims}) of {list(x.shape)} and {list(y.shape)}: that many "
                "dimensions they do not both have"
            )
        dims = range(x.ndim - dims, x.ndim), range(dims)
    dims_x, dims_y = axes_in_turn(dims[0], x.ndim), axes_in_turn(dims[1], y.ndim)
    if len(dims_x) != len(dims_y):
        raise IRTypeError(f"tensordot(dims={dims}): as many dimensions of one as of the other")
    return tensordot_of(x, y, dims_x, dims_y)


@user_op
def kron(input: Operand, other: Operand, /) -> Node:
    """The Kronecker product."""
    x, y = promote(input, other)
    ndim = max(x.ndim, y.ndim)
    shape_x = (1,) * (ndim - x.ndim) + x.shape
    shape_y = (1,) * (ndim - y.ndim) + y.shape
    x = reshape(x, tuple(s for n in shape_x for s in (n, 1)))
    y = reshape(y, tuple(s for n in shape_y for s in (1, n)))
    return reshape(ops.mul(*broadcast(x, y)), tuple(a * b for a, b in zip(shape_x, shape_y)))


@user_op
def cross(input: Operand, other: Operand, /, dim: int | None = None) -> Node:
    """The cross product of 3-vectors along dim: the first of size 3 if None."""
    first, second = as_node(input).shape, as_node(other).shape
    if len(first) != len(second):
        raise IRTypeError(f"cross() of {list(first)} and {list(second)}: as many dimensions")
    x, y = common(input, other)
    if dim is None and 3 in first:
        dim = first.index(3)
    axis = -1 if dim is None else dimension_of(dim, x.ndim)
    if axis < 0 or x.shape[axis] != 3:
        raise IRTypeError(f"cross() needs size 3 along dim, got dim={dim} of {list(x.shape)}")
    # (x * y shifted) - (x shifted * y), shifted once more
    inner_part = ops.sub(ops.mul(x, rolled(y, -1, axis)), ops.mul(rolled(x, -1, axis), y))
    return rolled(inner_part, -1, axis)
