"""Contractions: matrix product and convolution."""

from __future__ import annotations

from math import prod

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node, Op
from tracegrad.ir.ops.base import register, traits
from tracegrad.ir.ops.build import adjoint, full_like
from tracegrad.ir.ops.shape import reverse_axes
from tracegrad.ir.ops.traits import CONTRACTION, EXPENSIVE
from tracegrad.ir.types import TensorType

Ints = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]


# ---- matmul(x[.., m, k], y[.., k, n]) -> [.., m, n] ----


def _matmul_type(x: TensorType, y: TensorType) -> TensorType:
    if x.ndim < 2 or x.ndim != y.ndim:
        raise IRTypeError(f"needs two operands of one rank >= 2, not {x} and {y}")
    if x.dtype is not y.dtype:
        raise IRTypeError(f"dtypes differ: {x} and {y}")
    if x.shape[:-2] != y.shape[:-2]:
        raise IRTypeError(f"batch dims differ: {x} and {y}")
    if x.shape[-1] != y.shape[-2]:
        raise IRTypeError(f"inner sizes differ: {x} and {y}")
    return x.with_shape((*x.shape[:-1], y.shape[-1]))


def _matmul_vjp(ct: Node, out: Node, x: Node, y: Node) -> tuple[Node, Node]:
    # d(xy) = dx y + x dy, so the adjoints multiply by y^H from the right, x^H from the left
    return ops.matmul(ct, adjoint(y)), ops.matmul(adjoint(x), ct)


matmul = register(
    Op(
        "matmul",
        infer=_matmul_type,
        vjp=_matmul_vjp,
        traits=traits(CONTRACTION, EXPENSIVE),
        flops=lambda node: 2.0 * node.type.size * node.inputs[0].shape[-1],
    )
)


# ---- conv(x[N, C, *S], w[O, C/groups, *K]) -> [N, O, *out], cross-correlation ----


def dilated(size: int, dilation: int) -> int:
    """Length of `size` elements with dilation - 1 gaps between neighbours."""
    return (size - 1) * dilation + 1 if size else 0


def out_size(size: int, window: int, stride: int, low: int, high: int) -> int:
    """How many windows of length `window` fit; both lengths already dilated."""
    padded = size + low + high
    return (padded - window) // stride + 1 if padded >= window else 0


def _conv_type(
    x: TensorType,
    w: TensorType,
    strides: Ints,
    padding: Pairs,
    lhs_dilation: Ints,
    rhs_dilation: Ints,
    groups: int,
) -> TensorType:
    rank = x.ndim - 2
    if rank not in (1, 2, 3) or w.ndim != x.ndim:
        raise IRTypeError(
            f"needs x[N,C,*S] and w[O,C/groups,*K] with 1 to 3 spatial axes: {x}, {w}"
        )
    if x.dtype is not w.dtype:
        raise IRTypeError(f"dtypes differ: {x} and {w}")
    for name, values in (("strides", strides), ("lhs_dilation", lhs_dilation),
                         ("rhs_dilation", rhs_dilation)):  # fmt: skip
        if len(values) != rank or any(value < 1 for value in values):
            raise IRTypeError(f"{name} needs {rank} ints >= 1, not {values}")
    if len(padding) != rank or any(len(pair) != 2 for pair in padding):
        raise IRTypeError(f"padding needs {rank} (low, high) pairs, not {padding}")
    if groups < 1 or x.shape[1] != w.shape[1] * groups or w.shape[0] % groups:
        raise IRTypeError(
            f"{x.shape[1]} input and {w.shape[0]} output channels do not split into {groups} "
            f"groups of a filter that reads {w.shape[1]}"
        )
    sizes = tuple(
        out_size(dilated(n, ld), dilated(k, rd), s, lo, hi)
        for n, k, s, (lo, hi), ld, rd in zip(
            x.shape[2:], w.shape[2:], strides, padding, lhs_dilation, rhs_dilation
        )
    )
    return x.with_shape((x.shape[0], w.shape[0], *sizes))


def _conv_vjp(
    ct: Node,
    out: Node,
    x: Node,
    w: Node,
    strides: Ints,
    padding: Pairs,
    lhs_dilation: Ints,
    rhs_dilation: Ints,
    groups: int,
) -> tuple[Node, Node]:
    # out[i] = sum_j x[i s + j rd - lo] w[j]. Both adjoints are convolutions again: the roles of
    # stride and dilation swap, and the high padding takes up what a stride leaves over (it may be
    # negative).
    if out.type.size == 0 or x.type.size == 0 or w.type.size == 0:
        return full_like(x, 0), full_like(w, 0)
    if x.dtype.is_complex:
        x, w = ops.conj(x), ops.conj(w)
    rank = x.ndim - 2
    spatial = range(2, 2 + rank)
    x_sizes = [dilated(n, d) for n, d in zip(x.shape[2:], lhs_dilation)]
    w_sizes = [dilated(n, d) for n, d in zip(w.shape[2:], rhs_dilation)]
    ct_sizes = [dilated(n, d) for n, d in zip(out.shape[2:], strides)]
    o, c = w.shape[0], x.shape[1]

    # to x: correlate ct, spread by the strides, with the flipped filter, channels exchanged
    per_group = (groups, o // groups, c // groups, *w.shape[2:])
    turned = ops.transpose(
        ops.reshape(reverse_axes(w, tuple(spatial)), shape=per_group),
        perm=(0, 2, 1, *range(3, 3 + rank)),
    )
    to_x = ops.conv(
        ct,
        ops.reshape(turned, shape=(c, o // groups, *w.shape[2:])),
        strides=lhs_dilation,
        padding=tuple(
            (k - 1 - lo, n + lo - m)  # so that the result has n elements: m + lo' + hi' - k + 1 = n
            for n, k, m, (lo, _) in zip(x_sizes, w_sizes, ct_sizes, padding)
        ),
        lhs_dilation=strides,
        rhs_dilation=rhs_dilation,
        groups=groups,
    )

    # to w: correlate x with ct (spread by the strides), the batch taking the place of the channels
    batch = x.shape[0]
    image = ops.reshape(x, shape=(batch, groups, c // groups, *x.shape[2:]))
    image = ops.transpose(image, perm=(2, 1, 0, *range(3, 3 + rank)))
    grad = ops.conv(
        ops.reshape(image, shape=(c // groups, groups * batch, *x.shape[2:])),
        ops.transpose(ct, perm=(1, 0, *spatial)),
        strides=rhs_dilation,
        padding=tuple(
            (lo, k + m - 1 - n - lo)  # so that the result has k elements: n + lo + hi' - m + 1 = k
            for n, k, m, (lo, _) in zip(x_sizes, w_sizes, ct_sizes, padding)
        ),
        lhs_dilation=lhs_dilation,
        rhs_dilation=strides,
        groups=groups,
    )
    return to_x, ops.transpose(grad, perm=(1, 0, *spatial))


conv = register(
    Op(
        "conv",
        attrs=("strides", "padding", "lhs_dilation", "rhs_dilation", "groups"),
        infer=_conv_type,
        vjp=_conv_vjp,
        traits=traits(CONTRACTION, EXPENSIVE),
        flops=lambda node: 2.0 * node.type.size * prod(node.inputs[1].shape[1:]),
    )
)
