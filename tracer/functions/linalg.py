"""Linear algebra on batches of matrices."""

from __future__ import annotations

from typing import Any

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node
from tracegrad.ir.ops.build import adjoint, along, full_like, part, swap
from tracegrad.ir.ops.shape import take_range
from tracegrad.ir.types import TensorType, c128, f64, i64
from tracegrad.tracer.dispatch import user_op
from tracegrad.tracer.functions.axes import reshape
from tracegrad.tracer.functions.checking import linked, required
from tracegrad.tracer.functions.matmul import matmul, product
from tracegrad.tracer.functions.promotion import (
    Operand,
    as_node,
    broadcast_shapes,
    cast,
    expand,
    require_dtype,
    require_same_dtype,
)
from tracegrad.tracer.functions.triangles import diagonal_of


def matrix(name: str, input: Operand, square: bool = False) -> Node:
    x = as_node(input)
    require_dtype(name, (x,), "fc")
    if x.ndim < 2 or (square and x.shape[-1] != x.shape[-2]):
        what = "square matrices" if square else "matrices"
        raise IRTypeError(f"{name}() needs {what}, got shape {list(x.shape)}")
    return x


def identity_like(x: Node) -> Node:
    """Identity matrices of the shape of x[.., n, n]."""
    n = x.shape[-1]
    mask = ops.eq(
        ops.iota(shape=(n, n), axis=0, dtype=i64), ops.iota(shape=(n, n), axis=1, dtype=i64)
    )
    return along(cast(mask, x.dtype), x.shape, (x.ndim - 2, x.ndim - 1))


@user_op
def cholesky(input: Operand, /, *, upper: bool = False) -> Node:
    """Lower L (or upper U) with L L^T = input, of symmetric positive definite matrices."""
    lower = ops.cholesky(matrix("cholesky", input, square=True))
    return swap(lower) if upper else lower


@user_op
def solve_triangular(
    A: Operand, B: Operand, /, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Node:
    """X with A X = B (left) or X A = B, A triangular."""
    a, b = matrix("solve_triangular", A, square=True), matrix("solve_triangular", B)
    require_same_dtype("solve_triangular", a, b)
    batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = expand(a, (*batch, *a.shape[-2:])), expand(b, (*batch, *b.shape[-2:]))
    if left:
        return ops.triangular_solve(
            a, b, lower=not upper, transpose=False, unit_diagonal=unitriangular
        )
    # X A = B  <=>  A^T X^T = B^T
    turned = ops.triangular_solve(
        a, swap(b), lower=not upper, transpose=True, unit_diagonal=unitriangular
    )
    return swap(turned)


def solved(a: Node, b: Node, name: str) -> Node:
    """a^-1 b through LU with row pivots: a[p] = L U. A singular `a` raises LinAlgError at run time."""
    if not a.type.size:
        return linked(b, a)  # no elements either
    packed, pivots = (part(ops.lu(a), k) for k in (0, 1))
    pivot = ops.detach(diagonal_of(packed, 0, -2, -1))
    regular = ops.bitwise_not(ops.eq(pivot, ops.zeros_like(pivot)))
    packed = required(packed, regular, f"{name}: the matrix is singular", "linalg")
    rows = ops.take_along(b, along(pivots, b.shape, range(b.ndim - 1)), axis=b.ndim - 2)
    low = ops.triangular_solve(packed, rows, lower=True, transpose=False, unit_diagonal=True)
    return ops.triangular_solve(packed, low, lower=False, transpose=False, unit_diagonal=False)


@user_op
def solve(A: Operand, B: Operand, /, *, left: bool = True) -> Node:
    """X with A X = B (or X A = B); B may be a vector, or a batch of vectors."""
    a, b = matrix("solve", A, square=True), as_node(B)
    require_same_dtype("solve", a, b)
    vector = b.ndim == 1 or (b.ndim == a.ndim - 1 and b.shape == a.shape[:-1])
    if vector:
        b = reshape(b, (*b.shape, 1))
    if not left:
        a, b = swap(a), swap(b)
    if a.shape[-1] != b.shape[-2]:
        raise IRTypeError(f"solve(): A {list(a.shape)} and B {list(b.shape)} do not fit")
    batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = expand(a, (*batch, *a.shape[-2:])), expand(b, (*batch, *b.shape[-2:]))
    x = solved(a, b, "linalg.solve")
    if vector:
        return reshape(x, x.shape[:-1])
    return x if left else swap(x)


@user_op
def inv(input: Operand, /) -> Node:
    """The inverse of square matrices."""
    x = matrix("inv", input, square=True)
    return solved(x, identity_like(x), "linalg.inv")


def _parity(pivots: Node, like: Node) -> Node:
    """The sign of a row permutation: even or odd number of pairs out of order."""
    n = pivots.shape[-1]
    shape = (*pivots.shape, n)
    lead = range(pivots.ndim - 1)
    first = along(pivots, shape, (*lead, pivots.ndim - 1))
    second = along(pivots, shape, (*lead, pivots.ndim))
    row, column = (ops.iota(shape=(n, n), axis=k, dtype=i64) for k in (0, 1))
    earlier = along(ops.lt(row, column), shape, (pivots.ndim - 1, pivots.ndim))
    swaps = cast(ops.and_(earlier, ops.lt(second, first)), i64)
    number = ops.sum_(swaps, axes=(pivots.ndim - 1, pivots.ndim))
    odd = ops.eq(ops.rem(number, full_like(number, 2)), full_like(number, 1))
    one = ops.splat(1, TensorType(number.shape, like.dtype))
    return ops.where(odd, ops.neg(one), one)


@user_op
def det(input: Operand, /) -> Node:
    """The determinant of square matrices."""
    x = matrix("det", input, square=True)
    if not x.type.size:
        return linked(ops.splat(1, x.type.with_shape(x.shape[:-2])), x)
    packed, pivots = (part(ops.lu(x), k) for k in (0, 1))
    diagonal = diagonal_of(packed, 0, -2, -1)
    return ops.mul(ops.prod(diagonal, axes=(diagonal.ndim - 1,)), _parity(pivots, x))


@user_op(results=("sign", "logabsdet"))
def slogdet(input: Operand, /) -> tuple[Node, Node]:
    """Sign and log |determinant| of square matrices."""
    x = matrix("slogdet", input, square=True)
    require_dtype("slogdet", (x,), "f")
    if not x.type.size:
        one = ops.splat(1, x.type.with_shape(x.shape[:-2]))
        return one, linked(ops.zeros_like(one), x)
    packed, pivots = (part(ops.lu(x), k) for k in (0, 1))
    diagonal = diagonal_of(packed, 0, -2, -1)
    axis = (diagonal.ndim - 1,)
    sign = ops.mul(ops.prod(ops.sign(diagonal), axes=axis), _parity(pivots, x))
    return sign, ops.sum_(ops.log(ops.abs_(diagonal)), axes=axis)


@user_op
def logdet(input: Operand, /) -> Node:
    """log of the determinant; nan where it is negative."""
    sign, size = slogdet.emit(input)
    negative = ops.lt(sign, ops.zeros_like(sign))
    return ops.where(negative, full_like(size, float("nan")), size)


def _completed(u: Node) -> Node:
    """Orthonormal columns [.., m, k] and m - k more, orthogonal to them; those get no gradient.

    They are the eigenvectors of the projection I - U U^H to its eigenvalue 1, the largest.
    """
    m, k = u.shape[-2:]
    if m == k:
        return u
    if not u.type.size:
        return identity_like(ops.splat(0, u.type.with_shape((*u.shape[:-1], m))))
    fixed = ops.detach(u)
    rest = ops.sub(
        identity_like(ops.matmul(fixed, adjoint(fixed))), ops.matmul(fixed, adjoint(fixed))
    )
    found = take_range(part(ops.eigh(rest), 1), u.ndim - 1, k, m)
    return ops.concatenate(u, found, axis=u.ndim - 1)


@user_op(results=("Q", "R"))
def qr(A: Operand, /, mode: str = "reduced") -> tuple[Node, Node]:
    """A = Q R, Q with orthonormal columns, R upper triangular; "complete" has a square Q, "r" none."""
    if mode not in ("reduced", "complete", "r"):
        raise IRTypeError(f'qr(mode={mode!r}): "reduced", "complete" or "r"')
    x = matrix("qr", A)
    *lead, m, n = x.shape
    if not x.type.size:
        k = min(m, n)
        empty = [ops.splat(0, x.type.with_shape((*lead, *size))) for size in ((m, k), (k, n))]
        q, r = (linked(factor, x) for factor in empty)
    else:
        q, r = (part(ops.qr(x), k) for k in (0, 1))
    if mode == "r":
        return ops.splat(0, x.type.with_shape((0,))), r
    if mode == "complete" and m > n:
        below = ops.splat(0, x.type.with_shape((*lead, m - n, n)))
        return _completed(q), ops.concatenate(r, below, axis=x.ndim - 2)
    return q, r


@user_op(results=("U", "S", "Vh"), shown="linalg.svd")
def svd_parts(A: Operand, /, *, full_matrices: bool) -> tuple[Node, Node, Node]:
    """A = U diag(S) Vh: reduced, or with square U and Vh."""
    u, s, vh = (part(ops.svd(matrix("svd", A)), k) for k in (0, 1, 2))
    if full_matrices:
        return _completed(u), s, adjoint(_completed(adjoint(vh)))
    return u, s, vh


@user_op(results=("U", "S", "V"))
def svd(input: Operand, /, some: bool = True, compute_uv: bool = True) -> tuple[Node, Node, Node]:
    """input = U diag(S) V^H, singular values descending: V, where `linalg.svd` has V^H."""
    x = matrix("svd", input)
    u, s, vh = svd_parts.emit(x, full_matrices=not some)
    if compute_uv:
        return u, s, adjoint(vh)
    *lead, m, n = x.shape
    return (
        ops.splat(0, x.type.with_shape((*lead, m, m))), s, ops.splat(0, x.type.with_shape((*lead, n, n)))
    )  # fmt: skip


@user_op
def svdvals(A: Operand, /) -> Node:
    """Singular values, descending."""
    return part(ops.svd(matrix("svdvals", A)), 1)


@user_op(results=("eigenvalues", "eigenvectors"))
def eigh(A: Operand, /, UPLO: str = "L") -> tuple[Node, Node]:
    """Eigenvalues (ascending) and eigenvectors (columns) of symmetric matrices."""
    x = matrix("eigh", A, square=True)
    if UPLO not in ("L", "l", "U", "u"):
        raise IRTypeError(f'eigh(UPLO={UPLO!r}): "L" or "U"')
    whole = ops.eigh(x if UPLO in "Ll" else adjoint(x))
    return part(whole, 0), part(whole, 1)


@user_op
def eigvalsh(A: Operand, /, UPLO: str = "L") -> Node:
    """Eigenvalues of symmetric matrices, ascending."""
    return eigh.emit(A, UPLO)[0]


@user_op
def pinv(A: Operand, /, *, rtol: float | None = None) -> Node:
    """The Moore-Penrose inverse: singular values below rtol times the largest count as 0."""
    x = matrix("pinv", A)
    if not x.type.size:
        return swap(x)  # as many elements: none
    return ops.pinv(x, rtol=_tolerance(x) if rtol is None else float(rtol))


def _tolerance(x: Node) -> float:
    """Singular values up to so much of the largest may be roundings of 0."""
    return max(x.shape[-2:]) * (2.0**-52 if x.dtype in (f64, c128) else 2.0**-23)


@user_op
def matrix_rank(A: Operand, /, *, rtol: float | None = None) -> Node:
    """How many singular values exceed rtol times the largest, int64."""
    x = matrix("matrix_rank", A)
    if not x.type.size:
        return ops.splat(0, TensorType(x.shape[:-2], i64))
    s = part(ops.svd(x), 1)
    axis = s.ndim - 1
    largest = ops.max_(s, axes=(axis,)) * (_tolerance(x) if rtol is None else rtol)
    kept = ops.lt(along(largest, s.shape, range(axis)), s)
    return ops.sum_(cast(kept, i64), axes=(axis,))


@user_op
def matrix_power(input: Operand, /, n: int) -> Node:
    """Square matrices to an integer power, by repeated squaring."""
    x = matrix("matrix_power", input, square=True)
    if n < 0:
        x, n = solved(x, identity_like(x), "linalg.matrix_power"), -n
    result = None
    while n:
        if n % 2:
            result = x if result is None else ops.matmul(result, x)
        n //= 2
        x = ops.matmul(x, x) if n else x
    return linked(identity_like(x), x) if result is None else result


def multi_dot(tensors: Any) -> Any:
    """The product of several matrices, from left to right."""
    result = tensors[0]
    for tensor in tensors[1:]:
        result = matmul(result, tensor)
    return result


def _powers(x: Node, count: int) -> list[Node]:
    """Powers 0 .. count - 1, as columns; of integers in int64."""
    v = x if x.dtype.is_inexact else cast(x, i64)
    columns = [ops.ones_like(v)]
    for _ in range(count - 1):
        columns.append(ops.mul(columns[-1], v))
    return [reshape(c, (*c.shape, 1)) for c in columns]


@user_op
def vander(x: Operand, /, N: int | None = None, increasing: bool = False) -> Node:
    """Powers N - 1 .. 0 of a vector's elements as columns, or 0 .. N - 1 (increasing)."""
    v = as_node(x)
    count = v.type.size if N is None else N
    if v.ndim != 1 or count < 0:
        raise IRTypeError(
            f"vander() takes a vector and N >= 0, not {list(v.shape)} and N = {count}"
        )
    columns = _powers(v, count)
    if not count:
        return ops.splat(0, columns[0].type.with_shape((v.shape[0], 0)))
    return ops.concatenate(*(columns if increasing else reversed(columns)), axis=1)


@user_op(shown="linalg.vander")
def vander_increasing(x: Operand, /, *, N: int | None = None) -> Node:
    """Powers 0 .. N - 1 of the elements as a last dimension; a 0-d tensor is a vector of one."""
    v = as_node(x)
    require_dtype("vander", (v,), "ifc")
    v = v if v.ndim else reshape(v, (1,))
    if N is not None and N < 2:
        raise IRTypeError(f"linalg.vander(N={N}): N must be above 1")
    return ops.concatenate(*_powers(v, v.shape[-1] if N is None else N), axis=v.ndim)


@user_op(shown="lstsq")
def lstsq_solution(A: Operand, B: Operand, /) -> Node:
    """X that minimises |A X - B|, A of full column rank: R X = Q^T B."""
    a, b = matrix("lstsq", A), matrix("lstsq", B)
    whole = ops.qr(a)
    q, r = part(whole, 0), part(whole, 1)
    return ops.triangular_solve(
        r, product(adjoint(q), b), lower=False, transpose=False, unit_diagonal=False
    )


PLAIN = (multi_dot,)
