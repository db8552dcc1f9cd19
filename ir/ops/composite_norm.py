"""Normalisations. Backward saves x, the mean and 1 / std; statistics of f16 and bf16 are f32."""

from __future__ import annotations

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node, Op
from tracegrad.ir.ops.base import of_category, output_flops, register, traits
from tracegrad.ir.ops.build import (
    along,
    average,
    count,
    part,
    plus,
    spread,
    to,
    total,
    wide,
    wide_dtype,
)
from tracegrad.ir.ops.traits import COMPOSITE, MULTI
from tracegrad.ir.types import TensorType, TupleType

Axes = tuple[int, ...]
Parts = tuple[Node | None, ...]


def _moments(x: Node, axes: Axes) -> tuple[Node, Node, Node]:
    """Mean, biased variance (in two passes: no cancellation) and x - mean."""
    mean = average(x, axes)
    centred = x - spread(mean, x.shape, axes)
    return mean, average(centred * centred, axes), centred


def _normal_vjp(g: Node, normal: Node, rstd: Node, axes: Axes) -> Node:
    """To x, of normal = (x - mean) rstd: rstd (g - mean(g) - normal mean(g normal))."""
    shape = g.shape
    along_normal = spread(average(g * normal, axes), shape, axes)
    centred = g - spread(average(g, axes), shape, axes) - normal * along_normal
    return centred * spread(rstd, shape, axes)


# ---- layer_norm_stats(x, weight, bias; ndim, eps) -> (y, mean, rstd), over the last ndim axes ----


def _affine_check(x: TensorType, ndim: int, *parameters: TensorType) -> None:
    of_category(x, "f")
    if not 1 <= ndim <= x.ndim:
        raise IRTypeError(f"ndim={ndim} axes of {x}")
    expected = x.with_shape(x.shape[x.ndim - ndim :])
    for parameter in parameters:
        if parameter != expected:
            raise IRTypeError(f"weight and bias must be {expected}, not {parameter}")


def _layer_norm_type(
    x: TensorType, weight: TensorType, bias: TensorType, ndim: int, eps: float
) -> TensorType:
    _affine_check(x, ndim, weight, bias)
    return x


def _layer_norm_stats_type(
    x: TensorType, weight: TensorType, bias: TensorType, ndim: int, eps: float
) -> TupleType:
    _affine_check(x, ndim, weight, bias)
    stat = TensorType(x.shape[: x.ndim - ndim], wide_dtype(x.dtype))
    return TupleType((x, stat, stat))


def _split(x: Node, ndim: int) -> tuple[Axes, Axes]:
    """The leading axes and the normalised ones."""
    lead = x.ndim - ndim
    return tuple(range(lead)), tuple(range(lead, x.ndim))


def _layer_norm_stats(
    x: Node, weight: Node, bias: Node, ndim: int, eps: float
) -> tuple[Node, Node, Node]:
    _, axes = _split(x, ndim)
    mean, variance, centred = _moments(wide(x), axes)
    rstd = ops.rsqrt(variance + eps)
    normal = centred * spread(rstd, x.shape, axes)
    y = normal * along(wide(weight), x.shape, axes) + along(wide(bias), x.shape, axes)
    return to(y, x.dtype), mean, rstd


def _layer_norm_stats_vjp(
    ct: Parts, out: Node, x: Node, weight: Node, bias: Node, ndim: int, eps: float
) -> tuple[Node | None, Node | None, Node | None]:
    lead, axes = _split(x, ndim)
    mean, rstd = part(out, 1), part(out, 2)
    number = count(x.shape, axes)
    scale = spread(rstd, x.shape, axes)
    normal = (wide(ops.fence(x)) - spread(mean, x.shape, axes)) * scale
    to_x = to_weight = to_bias = None
    if ct[0] is not None:
        g = wide(ct[0])
        to_weight, to_bias = to(total(g * normal, lead), x.dtype), to(total(g, lead), x.dtype)
        to_x = _normal_vjp(g * along(wide(weight), x.shape, axes), normal, rstd, axes)
    if ct[1] is not None:  # d mean = 1 / N
        to_x = plus(to_x, spread(ct[1] * (1.0 / number), x.shape, axes))
    if ct[2] is not None:  # d rstd = -rstd^2 normal / N
        slope = spread(ct[2] * rstd * rstd * (-1.0 / number), x.shape, axes)
        to_x = plus(to_x, slope * normal)
    return None if to_x is None else to(to_x, x.dtype), to_weight, to_bias


layer_norm_stats = register(
    Op(
        "layer_norm_stats",
        attrs=("ndim", "eps"),
        infer=_layer_norm_stats_type,
        vjp=_layer_norm_stats_vjp,
        decompose=_layer_norm_stats,
        traits=traits(COMPOSITE, MULTI),
        flops=lambda node: 8.0 * node.inputs[0].type.size,
    )
)

# ---- layer_norm(x, weight, bias; ndim, eps): y alone (Ba, Kiros & Hinton 2016) ----


def _layer_norm(x: Node, weight: Node, bias: Node, ndim: int, eps: float) -> Node:
    return part(ops.layer_norm_stats(x, weight, bias, ndim=ndim, eps=eps), 0)


def _layer_norm_vjp(
    ct: Node, y: Node, x: Node, weight: Node, bias: Node, ndim: int, eps: float
) -> tuple[Node | None, Node | None, Node | None]:
    # The statistics are written as the forward writes them; CSE makes them one.
    stats = ops.layer_norm_stats(x, weight, bias, ndim=ndim, eps=eps)
    return _layer_norm_stats_vjp((ct, None, None), stats, x, weight, bias, ndim, eps)


layer_norm = register(
    Op(
        "layer_norm",
        attrs=("ndim", "eps"),
        infer=_layer_norm_type,
        vjp=_layer_norm_vjp,
        decompose=_layer_norm,
        traits=traits(COMPOSITE),
        flops=output_flops(8),
    )
)

# ---- rms_norm(x, weight; ndim, eps): x / sqrt(mean(x^2) + eps) weight (Zhang & Sennrich 2019) ----


def _rms_norm_type(x: TensorType, weight: TensorType, ndim: int, eps: float) -> TensorType:
    _affine_check(x, ndim, weight)
    return x


def _reciprocal_rms(x: Node, axes: Axes, eps: float) -> Node:
    return ops.rsqrt(average(x * x, axes) + eps)


def _rms_norm(x: Node, weight: Node, ndim: int, eps: float) -> Node:
    _, axes = _split(x, ndim)
    wide_x = wide(x)
    normal = wide_x * spread(_reciprocal_rms(wide_x, axes, eps), x.shape, axes)
    return to(normal * along(wide(weight), x.shape, axes), x.dtype)


def _rms_norm_vjp(
    ct: Node, y: Node, x: Node, weight: Node, ndim: int, eps: float
) -> tuple[Node, Node]:
    # rstd (g - normal mean(g normal)), g = ct weight; saves x and (through CSE) rstd
    lead, axes = _split(x, ndim)
    ct = wide(ct)
    scale = spread(_reciprocal_rms(wide(x), axes, eps), x.shape, axes)
    normal = wide(ops.fence(x)) * scale
    g = ct * along(wide(weight), x.shape, axes)
    to_x = (g - normal * spread(average(g * normal, axes), x.shape, axes)) * scale
    return to(to_x, x.dtype), to(total(ct * normal, lead), x.dtype)


rms_norm = register(
    Op(
        "rms_norm",
        attrs=("ndim", "eps"),
        infer=_rms_norm_type,
        vjp=_rms_norm_vjp,
        decompose=_rms_norm,
        traits=traits(COMPOSITE),
        flops=output_flops(6),
    )
)

# ---- batch_norm(x[N, C, ..], weight[C], bias[C]; eps) -> (y, mean[C], biased variance[C]) ----


def _batch_norm_type(x: TensorType, weight: TensorType, bias: TensorType, eps: float) -> TupleType:
    of_category(x, "f")
    if x.ndim < 2:
        raise IRTypeError(f"needs x[N, C, ..], not {x}")
    channel = x.with_shape((x.shape[1],))
    if weight != channel or bias != channel:
        raise IRTypeError(f"weight and bias must be {channel}, not {weight} and {bias}")
    stat = channel.with_dtype(wide_dtype(x.dtype))
    return TupleType((x, stat, stat))


def _all_but_channel(x: Node) -> Axes:
    return tuple(axis for axis in range(x.ndim) if axis != 1)


def _batch_norm(x: Node, weight: Node, bias: Node, eps: float) -> tuple[Node, Node, Node]:
    axes = _all_but_channel(x)
    mean, variance, centred = _moments(wide(x), axes)
    scale = ops.rsqrt(variance + eps) * wide(weight)
    y = centred * spread(scale, x.shape, axes) + spread(wide(bias), x.shape, axes)
    return to(y, x.dtype), mean, variance


def _batch_norm_vjp(
    ct: Parts, out: Node, x: Node, weight: Node, bias: Node, eps: float
) -> tuple[Node | None, Node | None, Node | None]:
    # Ioffe & Szegedy 2015, section 3; saves x, mean and variance
    axes = _all_but_channel(x)
    mean, variance = part(out, 1), part(out, 2)
    number = count(x.shape, axes)
    centred = wide(ops.fence(x)) - spread(mean, x.shape, axes)
    to_x = to_weight = to_bias = None
    if ct[0] is not None:
        g = wide(ct[0])
        rstd = ops.rsqrt(variance + eps)
        normal = centred * spread(rstd, x.shape, axes)
        sum_g, sum_g_normal = total(g, axes), total(g * normal, axes)
        to_weight, to_bias = to(sum_g_normal, x.dtype), to(sum_g, x.dtype)
        # weight rstd (g - mean(g) - normal mean(g normal)); the sums are the parameters' gradients
        inner = g - spread(sum_g * (1.0 / number), x.shape, axes)
        inner = inner - normal * spread(sum_g_normal * (1.0 / number), x.shape, axes)
        to_x = inner * spread(rstd * wide(weight), x.shape, axes)
    if ct[1] is not None:  # d mean = 1 / N
        to_x = plus(to_x, spread(ct[1] * (1.0 / number), x.shape, axes))
    if ct[2] is not None:  # d variance = 2 (x - mean) / N
        to_x = plus(to_x, spread(ct[2] * (2.0 / number), x.shape, axes) * centred)
    return None if to_x is None else to(to_x, x.dtype), to_weight, to_bias


batch_norm = register(
    Op(
        "batch_norm",
        attrs=("eps",),
        infer=_batch_norm_type,
        vjp=_batch_norm_vjp,
        decompose=_batch_norm,
        traits=traits(COMPOSITE, MULTI),
        flops=lambda node: 8.0 * node.inputs[0].type.size,
    )
)
