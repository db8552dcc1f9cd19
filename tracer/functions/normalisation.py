"""Normalisation layers: batch, layer, group, instance, RMS, local response."""

from __future__ import annotations

from typing import Any

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node
from tracegrad.ir.ops.build import count, full, spread, wide_dtype
from tracegrad.ir.types import DType
from tracegrad.tracer.dispatch import user_op
from tracegrad.tracer.functions.activations import floating
from tracegrad.tracer.functions.axes import reshape
from tracegrad.tracer.functions.promotion import EPSILON, Operand, as_node, cast
from tracegrad.tracer.functions.reductions import moments


def parameter(
    name: str, value: Operand | None, shape: tuple[int, ...], dtype: DType, default: float
) -> Node:
    """A scale or shift of exactly this shape, `default` where there is none."""
    if value is None:
        return full(shape, dtype, default)
    node = as_node(value)
    if node.shape != shape:
        raise IRTypeError(f"{name} of shape {list(node.shape)} must have shape {list(shape)}")
    return cast(node, dtype)


def _normalized(name: str, x: Node, normalized_shape: Any) -> tuple[int, ...]:
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or x.shape[x.ndim - len(shape) :] != shape:
        raise IRTypeError(
            f"{name}(): input {list(x.shape)} does not end in normalized_shape {list(shape)}"
        )
    return shape


@user_op
def layer_norm_(
    input: Operand,
    weight: Operand | None = None,
    bias: Operand | None = None,
    /,
    *,
    normalized_shape: Any,
    eps: float,
) -> Node:
    """Layer normalisation over the last dimensions."""
    x = floating("layer_norm", input)
    shape = _normalized("layer_norm", x, normalized_shape)
    w = parameter("layer_norm weight", weight, shape, x.dtype, 1.0)
    b = parameter("layer_norm bias", bias, shape, x.dtype, 0.0)
    return ops.layer_norm(x, w, b, ndim=len(shape), eps=float(eps))


def layer_norm(
    input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    """(x - mean) / sqrt(var + eps) * weight + bias over the dimensions of normalized_shape."""
    return layer_norm_(input, weight, bias, normalized_shape=normalized_shape, eps=eps)


@user_op
def rms_norm_(
    input: Operand, weight: Operand | None = None, /, *, normalized_shape: Any, eps: float | None
) -> Node:
    """Root-mean-square normalisation over the last dimensions."""
    x = floating("rms_norm", input)
    shape = _normalized("rms_norm", x, normalized_shape)
    w = parameter("rms_norm weight", weight, shape, x.dtype, 1.0)
    return ops.rms_norm(x, w, ndim=len(shape), eps=EPSILON[x.dtype] if eps is None else float(eps))


def rms_norm(
    input: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None
) -> Any:
    """x / sqrt(mean(x**2) + eps) * weight over the last dimensions; eps None: the dtype's."""
    return rms_norm_(input, weight, normalized_shape=normalized_shape, eps=eps)


@user_op(shown="batch_norm")
def batch_norm_train(
    input: Operand,
    weight: Operand | None = None,
    bias: Operand | None = None,
    /,
    *,
    eps: float = 1e-5,
) -> tuple[Node, Node, Node]:
    """(y, mean[C], biased variance[C]) by this batch's statistics; axis 1 holds the channels."""
    x = floating("batch_norm", input)
    channels = _channels("batch_norm", x)
    if count(x.shape, (k for k in range(x.ndim) if k != 1)) == 1:
        raise IRTypeError(
            f"batch_norm in training needs more than 1 value per channel, got {list(x.shape)}"
        )
    w = parameter("batch_norm weight", weight, channels, x.dtype, 1.0)
    b = parameter("batch_norm bias", bias, channels, x.dtype, 0.0)
    whole = ops.batch_norm(x, w, b, eps=float(eps))
    return ops.proj(whole, index=0), ops.proj(whole, index=1), ops.proj(whole, index=2)


def _channels(name: str, x: Node) -> tuple[int]:
    if x.ndim < 2:
        raise IRTypeError(f"{name}() needs input (N, C, ..), got {list(x.shape)}")
    return (x.shape[1],)


@user_op(shown="batch_norm")
def batch_norm_eval(
    input: Operand,
    mean: Operand,
    var: Operand,
    weight: Operand | None = None,
    bias: Operand | None = None,
    /,
    *,
    eps: float = 1e-5,
) -> Node:
    """(x - mean) / sqrt(var + eps) * weight + bias, by given statistics, as one scale and shift a
    channel.
    """
    x = floating("batch_norm", input)
    channels = _channels("batch_norm", x)
    wide = wide_dtype(x.dtype)
    m = parameter("running_mean", mean, channels, wide, 0.0)
    v = parameter("running_var", var, channels, wide, 1.0)
    scale = ops.rsqrt(v + eps)
    if weight is not None:
        scale = ops.mul(scale, parameter("batch_norm weight", weight, channels, wide, 1.0))
    shift = ops.neg(ops.mul(m, scale))
    if bias is not None:
        shift = ops.add(shift, parameter("batch_norm bias", bias, channels, wide, 0.0))
    scaled = ops.mul(cast(x, wide), ops.broadcast_to(scale, shape=x.shape, dims=(1,)))
    return cast(ops.add(scaled, ops.broadcast_to(shift, shape=x.shape, dims=(1,))), x.dtype)


@user_op
def group_norm_(
    input: Operand,
    weight: Operand | None = None,
    bias: Operand | None = None,
    /,
    *,
    num_groups: int,
    eps: float,
) -> Node:
    """Normalisation of groups of channels, each over its spatial positions."""
    x = floating("group_norm", input)
    channels = _channels("group_norm", x)
    if num_groups < 1 or channels[0] % num_groups:
        raise IRTypeError(
            f"group_norm(): {channels[0]} channels do not split into {num_groups} groups"
        )
    rows = reshape(x, (x.shape[0], num_groups, x.type.size // max(x.shape[0] * num_groups, 1)))
    y = reshape(_centred(rows, (2,), eps), x.shape)
    return _affine(y, weight, bias, "group_norm")


def group_norm(
    input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    """(x - mean) / sqrt(var + eps) * weight[C] + bias[C], statistics over each group of
    channels.
    """
    return group_norm_(input, weight, bias, num_groups=num_groups, eps=eps)


def _centred(x: Node, axes: tuple[int, ...], eps: float) -> Node:
    """(x - mean) / sqrt(biased variance + eps) over axes."""
    mean, var = moments(x, axes, 0.0)
    rstd = ops.rsqrt(var + eps)
    wide = cast(x, mean.dtype)
    centred = ops.sub(wide, spread(mean, x.shape, axes))
    return cast(ops.mul(centred, spread(rstd, x.shape, axes)), x.dtype)


def _affine(y: Node, weight: Operand | None, bias: Operand | None, name: str) -> Node:
    channels = (y.shape[1],)
    if weight is not None:
        w = parameter(f"{name} weight", weight, channels, y.dtype, 1.0)
        y = ops.mul(y, ops.broadcast_to(w, shape=y.shape, dims=(1,)))
    if bias is not None:
        b = parameter(f"{name} bias", bias, channels, y.dtype, 0.0)
        y = ops.add(y, ops.broadcast_to(b, shape=y.shape, dims=(1,)))
    return y


@user_op
def instance_norm_(
    input: Operand, weight: Operand | None = None, bias: Operand | None = None, /, *, eps: float
) -> tuple[Node, Node, Node]:
    """(y, mean[N, C], biased variance[N, C]): every channel of every sample over its positions."""
    x = floating("instance_norm", input)
    _channels("instance_norm", x)
    axes = tuple(range(2, x.ndim))
    if count(x.shape, axes) == 1:
        raise IRTypeError(
            f"instance_norm needs more than 1 position per channel, got {list(x.shape)}"
        )
    mean, var = moments(x, axes, 0.0)
    return _affine(_centred(x, axes, eps), weight, bias, "instance_norm"), mean, var


@user_op
def local_response_norm(
    input: Operand, /, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Node:
    """x / (k + alpha * mean of squares over `size` neighbouring channels) ** beta."""
    x = floating("local_response_norm", input)
    if x.ndim < 3:
        raise IRTypeError(f"local_response_norm() needs (N, C, .., L), got {list(x.shape)}")
    shape = x.shape
    flat = reshape(x, (shape[0], shape[1], x.type.size // max(shape[0] * shape[1], 1)))
    squares = ops.mul(flat, flat)
    last = ops.transpose(squares, perm=(0, 2, 1))
    sums = ops.window_sum(
        last, window=(size,), strides=(1,), padding=((size // 2, (size - 1) // 2),)
    )
    mean = reshape(ops.transpose(sums, perm=(0, 2, 1)), shape) * (1.0 / size)
    base = mean * alpha + k
    return ops.div(x, ops.pow_(base, ops.splat(beta, base.type)))


PLAIN = (layer_norm, rms_norm, group_norm)
