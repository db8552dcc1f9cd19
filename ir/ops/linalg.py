"""Factorisations and triangular systems over the last two axes; f32 and f64, any batch axes."""

from __future__ import annotations

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError, MissingVJPError
from tracegrad.ir.graph import Node, Op
from tracegrad.ir.hazards import DEFINITE, FINITE, FINITE_LOWER, Hazard
from tracegrad.ir.ops.base import register, tensor, traits
from tracegrad.ir.ops.build import along, full_like, given, part, plus, swap, triangle
from tracegrad.ir.ops.shape import take_range
from tracegrad.ir.ops.traits import COMPOSITE, EXPENSIVE, MULTI
from tracegrad.ir.types import TensorType, TupleType, i64

Parts = tuple[Node | None, ...]


def _matrix(x: TensorType) -> TensorType:
    if tensor(x).ndim < 2 or not x.dtype.is_float or x.dtype.itemsize < 4:
        raise IRTypeError(f"needs matrices of f32 or f64, not {x}")
    return x


def _square(x: TensorType) -> TensorType:
    if _matrix(x).shape[-1] != x.shape[-2]:
        raise IRTypeError(f"needs square matrices, not {x}")
    return x


def _diagonal(v: Node) -> Node:
    """v[.., n] on the diagonal of zeros[.., n, n]."""
    shape = (*v.shape, v.shape[-1])
    return ops.where(
        _is_diagonal(shape), _columns(v, shape), ops.splat(0, v.type.with_shape(shape))
    )


def _is_diagonal(shape: tuple[int, ...]) -> Node:
    n, m = shape[-2:]
    same = ops.eq(
        ops.iota(shape=(n, m), axis=0, dtype=i64), ops.iota(shape=(n, m), axis=1, dtype=i64)
    )
    return along(same, shape, (len(shape) - 2, len(shape) - 1))


def _columns(v: Node, shape: tuple[int, ...]) -> Node:
    """v[.., m] repeated down the rows of [.., n, m]: scales columns."""
    return along(v, shape, (*range(len(shape) - 2), len(shape) - 1))


def _rows(v: Node, shape: tuple[int, ...]) -> Node:
    """v[.., n] repeated along the columns of [.., n, m]: scales rows."""
    return along(v, shape, range(len(shape) - 1))


def _solve(a: Node, b: Node, lower: bool, transpose: bool = False, unit: bool = False) -> Node:
    return ops.triangular_solve(a, b, lower=lower, transpose=transpose, unit_diagonal=unit)


# ---- cholesky(x): lower l with l l^T = x, of the symmetric part of x ----


def _cholesky_vjp(ct: Node, lower: Node, x: Node) -> tuple[Node]:
    # l^-T phi(l^T ct) l^-1, symmetrised; phi keeps the lower triangle and halves the diagonal
    # (Murray 2016, eq. 10)
    inner = triangle(ops.matmul(swap(lower), ct), "lower")
    inner = ops.where(_is_diagonal(inner.shape), inner * 0.5, inner)
    left = _solve(lower, inner, lower=True, transpose=True)
    both = _solve(lower, swap(left), lower=True, transpose=True)  # the transpose of left l^-1
    return ((both + swap(both)) * 0.5,)


cholesky = register(
    Op(
        "cholesky",
        infer=_square,
        vjp=_cholesky_vjp,
        traits=traits(EXPENSIVE),
        flops=lambda node: node.type.size * node.shape[-1] / 3.0,
        hazards=lambda node: [Hazard(DEFINITE, node.inputs[0])],
    )
)


# ---- triangular_solve(a, b; lower, transpose, unit_diagonal): a x = b, or a^T x = b ----


def _triangular_solve_type(
    a: TensorType, b: TensorType, lower: bool, transpose: bool, unit_diagonal: bool
) -> TensorType:
    _square(a), _matrix(b)
    if a.dtype is not b.dtype or a.shape[:-1] != b.shape[:-1]:
        raise IRTypeError(f"needs a[.., n, n] and b[.., n, k] of one dtype, not {a} and {b}")
    return b


def _triangular_solve_vjp(
    ct: Node, x: Node, a: Node, b: Node, lower: bool, transpose: bool, unit_diagonal: bool
) -> tuple[Node, Node]:
    # a x = b: db = a^-T ct, da = -db x^T within the triangle that was read
    to_b = _solve(a, ct, lower, not transpose, unit_diagonal)
    to_a = -(ops.matmul(x, swap(to_b)) if transpose else ops.matmul(to_b, swap(x)))
    if lower:
        to_a = triangle(to_a, "strict lower" if unit_diagonal else "lower")
    else:
        to_a = swap(triangle(swap(to_a), "strict lower" if unit_diagonal else "lower"))
    return to_a, to_b


triangular_solve = register(
    Op(
        "triangular_solve",
        attrs=("lower", "transpose", "unit_diagonal"),
        infer=_triangular_solve_type,
        vjp=_triangular_solve_vjp,
        traits=traits(EXPENSIVE),
        flops=lambda node: float(node.type.size * node.shape[-2]),
    )
)


# ---- qr(x[.., m, n]) -> q[.., m, k], r[.., k, n], k = min(m, n) ----


def _qr_type(x: TensorType) -> TupleType:
    *batch, m, n = _matrix(x).shape
    k = min(m, n)
    return TupleType((x.with_shape((*batch, m, k)), x.with_shape((*batch, k, n))))


def _qr_vjp(ct: Parts, out: Node, x: Node) -> tuple[Node]:
    q, r = part(out, 0), part(out, 1)
    ct_q, ct_r = given(ct[0], q.type), given(ct[1], r.type)
    k, n = r.shape[-2:]
    if n == k:
        return (_tall_qr_vjp(ct_q, ct_r, q, r),)
    # x = [x1 x2] = q [r1 r2], r1 square: r2 = q^T x2, so its part reaches x2 directly, x1 through q
    last = r.ndim - 1
    x2 = take_range(x, last, k, n)
    ct_r1, ct_r2 = take_range(ct_r, last, 0, k), take_range(ct_r, last, k, n)
    to_x1 = _tall_qr_vjp(ct_q + ops.matmul(x2, swap(ct_r2)), ct_r1, q, take_range(r, last, 0, k))
    return (ops.concatenate(to_x1, ops.matmul(q, ct_r2), axis=last),)


def _tall_qr_vjp(ct_q: Node, ct_r: Node, q: Node, r: Node) -> Node:
    # (ct_q + q sym(m)) r^-T with m = r ct_r^T - ct_q^T q, sym copying the lower triangle up
    # (Walter, Lehmann & Lamour 2012)
    m = ops.matmul(r, swap(ct_r)) - ops.matmul(swap(ct_q), q)
    mirrored = triangle(m, "lower") + swap(triangle(m, "strict lower"))
    inner = ct_q + ops.matmul(q, mirrored)
    return swap(_solve(r, swap(inner), lower=False))


qr = register(
    Op(
        "qr",
        infer=_qr_type,
        vjp=_qr_vjp,
        traits=traits(EXPENSIVE, MULTI),
        flops=lambda node: 4.0 * node.inputs[0].type.size * min(node.inputs[0].shape[-2:]),
    )
)


# ---- eigh(x) -> w[.., n] ascending, v[.., n, n] with x v = v diag(w), x symmetric ----


def _eigh_type(x: TensorType) -> TupleType:
    return TupleType((_square(x).with_shape(x.shape[:-1]), x))


def _reciprocal(x: Node, keep: Node) -> Node:
    """1 / x where `keep`, else 0; no division by the others, whose derivative would be nan."""
    safe = ops.where(keep, x, full_like(x, 1))
    return ops.where(keep, 1.0 / safe, full_like(x, 0))


def _eigh_vjp(ct: Parts, out: Node, x: Node) -> tuple[Node]:
    # sym(v (diag(ct_w) + (v^T ct_v) / (w_j - w_i)) v^T); equal eigenvalues have no defined gradient
    w, v = part(out, 0), part(out, 1)
    inner = None if ct[0] is None else _diagonal(ct[0])
    if ct[1] is not None:
        gaps = _columns(w, x.shape) - _rows(w, x.shape)
        off = ops.bitwise_not(_is_diagonal(x.shape))
        inner = plus(inner, ops.matmul(swap(v), ct[1]) * _reciprocal(gaps, off))
    assert inner is not None  # the walk calls no rule without a cotangent
    grad = ops.matmul(ops.matmul(v, inner), swap(v))
    return ((grad + swap(grad)) * 0.5,)


eigh = register(
    Op(
        "eigh",
        infer=_eigh_type,
        vjp=_eigh_vjp,
        traits=traits(EXPENSIVE, MULTI),
        flops=lambda node: 9.0 * node.inputs[0].type.size * node.inputs[0].shape[-1],
        # LAPACK gives up on some such matrices, spins on others; here all are refused
        hazards=lambda node: [Hazard(FINITE_LOWER, node.inputs[0])],
    )
)


# ---- svd(x[.., m, n]) -> u[.., m, k], s[.., k] descending, vh[.., k, n], k = min(m, n) ----


def _svd_type(x: TensorType) -> TupleType:
    *batch, m, n = _matrix(x).shape
    k = min(m, n)
    shapes = ((*batch, m, k), (*batch, k), (*batch, k, n))
    return TupleType(tuple(x.with_shape(shape) for shape in shapes))


def _svd_vjp(ct: Parts, out: Node, x: Node) -> tuple[Node]:
    # u [ (skew(u^T ct_u) / e) s + s (skew(v^T ct_v) / e) + diag(ct_s) ] v^T, e_ij = s_j^2 - s_i^2,
    # plus what u and v lose by not being square: (1 - u u^T) ct_u s^-1 v^T and its mirror image.
    u, s, vh = part(out, 0), part(out, 1), part(out, 2)
    shape = (*s.shape, s.shape[-1])
    square = s * s
    off = ops.bitwise_not(_is_diagonal(shape))
    per_gap = _reciprocal(_columns(square, shape) - _rows(square, shape), off)
    inner = None if ct[1] is None else _diagonal(ct[1])
    outside: Node | None = None
    m, n, k = u.shape[-2], vh.shape[-1], s.shape[-1]
    if ct[0] is not None:
        turn = ops.matmul(swap(u), ct[0])
        inner = plus(inner, (turn - swap(turn)) * per_gap * _columns(s, shape))
        if m > k:
            rest = ct[0] - ops.matmul(u, turn)
            outside = ops.matmul(rest / _columns(s, rest.shape), vh)
    if ct[2] is not None:
        turn = ops.matmul(vh, swap(ct[2]))
        inner = plus(inner, _rows(s, shape) * ((turn - swap(turn)) * per_gap))
        if n > k:
            rest = ct[2] - ops.matmul(swap(turn), vh)
            outside = plus(outside, ops.matmul(u, rest / _rows(s, rest.shape)))
    assert inner is not None  # the walk calls no rule without a cotangent
    grad = plus(ops.matmul(ops.matmul(u, inner), vh), outside)
    assert grad is not None
    return (grad,)


svd = register(
    Op(
        "svd",
        infer=_svd_type,
        vjp=_svd_vjp,
        traits=traits(EXPENSIVE, MULTI),
        flops=lambda node: 14.0 * node.inputs[0].type.size * min(node.inputs[0].shape[-2:]),
        hazards=lambda node: [Hazard(FINITE, node.inputs[0])],  # as for eigh
    )
)


# ---- pinv(x[.., m, n]; rtol) -> [.., n, m]: v s^-1 u^T, the s up to rtol * max(s) counting as 0 ----


def _pinv_type(x: TensorType, *, rtol: float) -> TensorType:
    *batch, m, n = _matrix(x).shape
    return x.with_shape((*batch, n, m))


def _pinv(x: Node, *, rtol: float) -> Node:
    u, s, vh = (part(ops.svd(x), k) for k in (0, 1, 2))
    axis = s.ndim - 1
    largest = along(ops.max_(s, axes=(axis,)) * rtol, s.shape, range(axis))
    inverse = _reciprocal(s, ops.lt(largest, s))
    v = swap(vh)
    return ops.matmul(v * _columns(inverse, v.shape), swap(u))


def _pinv_vjp(ct: Node, out: Node, x: Node, *, rtol: float) -> tuple[Node]:
    # Golub and Pereyra 1973. Where the rank does not change no singular vector is needed, so equal
    # singular values do no harm: -p^T ct p^T + (1 - x p) ct^T p p^T + p^T p ct^T (1 - p x)
    p, back = out, swap(ct)
    inner = ops.matmul(back, p)
    left = ops.matmul(inner, swap(p))
    right = ops.matmul(ops.matmul(swap(p), p), back - ops.matmul(inner, x))
    grad = left - ops.matmul(ops.matmul(x, p), left) + right
    return (grad - swap(ops.matmul(p, inner)),)


pinv = register(
    Op(
        "pinv",
        attrs=("rtol",),
        infer=_pinv_type,
        vjp=_pinv_vjp,
        decompose=_pinv,
        traits=traits(COMPOSITE),
        flops=lambda node: 20.0 * node.inputs[0].type.size * min(node.inputs[0].shape[-2:]),
        hazards=svd.hazards,
    )
)


# ---- lu(x[.., m, n]) -> packed[.., m, n], p: i64[.., m] with x[p] = l u ----


def _lu_type(x: TensorType) -> TupleType:
    return TupleType((_matrix(x), TensorType(x.shape[:-1], i64)))


def _lu_vjp(ct: Parts, out: Node, x: Node) -> tuple[Node | None]:
    # x[p] = l u: l^-T [strictly lower(l^T ct_l) + upper(ct_u u^T)] u^-T, rows put back
    if ct[0] is None:
        return (None,)
    if x.shape[-1] != x.shape[-2]:
        raise MissingVJPError(f"the gradient of lu needs square matrices, not {x.type}")
    packed, order = part(out, 0), part(out, 1)
    lower = triangle(packed, "strict lower") + ops.where(
        _is_diagonal(x.shape), full_like(x, 1), full_like(x, 0)
    )
    upper = triangle(packed, "upper")
    inner = triangle(ops.matmul(swap(lower), triangle(ct[0], "strict lower")), "strict lower")
    inner = inner + triangle(ops.matmul(triangle(ct[0], "upper"), swap(upper)), "upper")
    left = _solve(packed, inner, lower=True, transpose=True, unit=True)
    both = swap(_solve(packed, swap(left), lower=False))
    inverse = ops.argsort(order, axis=order.ndim - 1, descending=False)
    return (ops.take_along(both, _rows(inverse, x.shape), axis=x.ndim - 2),)


lu = register(
    Op(
        "lu",
        infer=_lu_type,
        vjp=_lu_vjp,
        traits=traits(EXPENSIVE, MULTI),
        flops=lambda node: 2.0 / 3.0 * node.inputs[0].type.size * min(node.inputs[0].shape[-2:]),
    )
)
