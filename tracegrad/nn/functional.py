"""Functions with PyTorch's names, argument order and defaults.

Most are the tracer's own (`tracegrad.tracer.functions`), re-exported; here stand those that need
random keys or running statistics, those with an `inplace` flag, and resizing. The losses live in
`losses.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracegrad.names import public
from tracegrad.nn.bags import embedding_bag
from tracegrad.nn.losses import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cosine_embedding_loss,
    cross_entropy,
    gaussian_nll_loss,
    hinge_embedding_loss,
    huber_loss,
    kl_div,
    l1_loss,
    legacy_reduction,
    margin_ranking_loss,
    mse_loss,
    nll_loss,
    poisson_nll_loss,
    smooth_l1_loss,
    soft_margin_loss,
    triplet_margin_loss,
)
from tracegrad.nn.losses_rare import (
    multilabel_soft_margin_loss,
    triplet_margin_with_distance_loss,
)
from tracegrad.tracer import Tensor, functions, no_grad
from tracegrad.tracer.creation.random import next_key
from tracegrad.tracer.creation.tensors import zeros
from tracegrad.tracer.eager import quick
from tracegrad.tracer.errors import InvalidValueError, ShapeError
from tracegrad.tracer.functions import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    adaptive_max_pool3d,
    affine_grid,
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    bilinear,
    channel_shuffle,
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    cosine_similarity,
    embedding,
    gelu,
    glu,
    grid_sample,
    group_norm,
    gru_layer,
    hardshrink,
    interpolate,
    layer_norm,
    linear,
    local_response_norm,
    log_softmax,
    logsigmoid,
    lp_pool2d,
    lstm_layer,
    max_pool1d,
    max_pool1d_with_indices,
    max_pool2d,
    max_pool2d_with_indices,
    max_pool3d,
    max_pool3d_with_indices,
    normalize,
    one_hot,
    pad,
    pairwise_distance,
    pixel_shuffle,
    pixel_unshuffle,
    prelu,
    rms_norm,
    rnn_layer,
    scaled_dot_product_attention,
    softmax,
    softmin,
    softplus,
    softshrink,
    softsign,
    tanhshrink,
)


def _finish(input: Tensor, value: Tensor, inplace: bool) -> Tensor:
    return input.copy_(value) if inplace else value


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(input, 0); the gradient at 0 is 0."""
    return _finish(input, quick.UNARY["relu"](input), inplace)


def relu_(input: Tensor) -> Tensor:
    """In-place relu."""
    return relu(input, inplace=True)


def _with_inplace(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`function` with PyTorch's trailing `inplace` flag, by name or by position."""
    own = len(function.static)  # type: ignore[attr-defined]

    def wrapped(input: Tensor, *args: Any, inplace: bool = False, **kwargs: Any) -> Tensor:
        if len(args) > own:
            *args, inplace = args  # type: ignore[assignment]
        return _finish(input, function(input, *args, **kwargs), inplace)

    wrapped.__name__ = wrapped.__qualname__ = function.__name__
    wrapped.__doc__ = function.__doc__
    return wrapped


sigmoid, tanh = quick.UNARY["sigmoid"], quick.UNARY["tanh"]
relu6 = _with_inplace(functions.relu6)
hardtanh = _with_inplace(functions.hardtanh)
leaky_relu = _with_inplace(functions.leaky_relu)
elu = _with_inplace(functions.elu)
selu = _with_inplace(functions.selu)
celu = _with_inplace(functions.celu)
silu = _with_inplace(functions.silu)
mish = _with_inplace(functions.mish)
hardswish = _with_inplace(functions.hardswish)
hardsigmoid = _with_inplace(functions.hardsigmoid)
threshold = _with_inplace(functions.threshold)


def _check_rate(p: float) -> None:
    if not 0.0 <= p <= 1.0:
        raise InvalidValueError(f"dropout probability has to be between 0 and 1, but got {p}")


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zeroes elements with probability p, scales the others by 1 / (1 - p); only when training."""
    _check_rate(p)
    if not training or p == 0:
        return input
    return _finish(input, functions.dropout(input, next_key(), p=p), inplace)


def _channel_dropout(input: Tensor, p: float, training: bool, inplace: bool, rank: int) -> Tensor:
    _check_rate(p)
    if input.dim() < 2:
        raise ShapeError(
            f"dropout of whole channels of a tensor of shape {list(input.shape)}",
            fix="use dropout(), or give [C, ..] or [N, C, ..]",
        )
    if not training or p == 0:
        return input
    batched = input.dim() >= rank + 2
    value = functions.feature_dropout(input, next_key(), p=p, batched=batched)
    return _finish(input, value, inplace)


def dropout1d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Whole channels of [N, C, L] or [C, L] zeroed with probability p."""
    return _channel_dropout(input, p, training, inplace, 1)


def dropout2d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Whole channels of [N, C, H, W] zeroed with probability p; [N, C, L] counts as batched too."""
    return _channel_dropout(input, p, training, inplace, 1)


def dropout3d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Whole channels of [N, C, D, H, W] or [C, D, H, W] zeroed with probability p."""
    return _channel_dropout(input, p, training, inplace, 3)


def alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """Dropout that keeps mean 0 and variance 1 in SELU networks (Klambauer et al. 2017)."""
    _check_rate(p)
    if not training or p == 0:
        return input
    return _finish(input, functions.alpha_dropout(input, next_key(), p=p), inplace)


def batch_norm(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
    weight: Tensor | None = None, bias: Tensor | None = None, training: bool = False,
    momentum: Any = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Normalises each channel (axis 1), by this batch (`training`) or by the running statistics.

    Training moves the running statistics by `momentum` towards the batch's mean and its
    *unbiased* variance; a batch of no elements leaves them.
    """
    if training and not input.numel() and input.ndim > 1:
        mean = zeros(input.shape[1], dtype=input.dtype)
        return functions.batch_norm_eval(input, mean, mean + 1, weight, bias, eps=eps)
    if not training:
        if running_mean is None or running_var is None:
            raise InvalidValueError(
                "Expected running_mean and running_var to be defined when training=False"
            )
        return functions.batch_norm_eval(input, running_mean, running_var, weight, bias, eps=eps)
    y, mean, variance = functions.batch_norm_train(input, weight, bias, eps=eps)
    count = input.numel() // max(input.shape[1], 1)
    _move(running_mean, mean, momentum, 1.0)
    _move(running_var, variance, momentum, count / max(count - 1, 1))
    return y


@no_grad()
def _move(running: Tensor | None, batch: Tensor, momentum: Any, scale: float) -> None:
    """running += momentum (scale batch - running)."""
    if running is not None:
        running.mul_(1 - momentum).add_(batch.detach() * (momentum * scale))


def instance_norm(
    input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None,
    weight: Tensor | None = None, bias: Tensor | None = None, use_input_stats: bool = True,
    momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Normalises each channel of each sample ([N, C, ...]), or all by the running statistics."""
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    y, mean, variance = functions.instance_norm(input, weight, bias, eps=eps)
    count = input.numel() // max(input.shape[0] * input.shape[1], 1)
    if running_mean is not None:
        _move(running_mean, mean.detach().mean(0), momentum, 1.0)
    if running_var is not None:
        _move(running_var, variance.detach().mean(0), momentum, count / max(count - 1, 1))
    return y


def _in_place(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def written(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return function(input, *args, inplace=True, **kwargs)

    written.__name__ = written.__qualname__ = f"{function.__name__}_"
    written.__doc__ = f"In-place `{function.__name__}`."
    return written


celu_, elu_, hardtanh_ = _in_place(celu), _in_place(elu), _in_place(hardtanh)
leaky_relu_, selu_, threshold_ = _in_place(leaky_relu), _in_place(selu), _in_place(threshold)


def rrelu(
    input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False,
    inplace: bool = False,
) -> Tensor:  # fmt: skip
    """leaky_relu; while training with a slope drawn uniformly for every element, else the mean one."""
    if training:
        value = functions.rrelu(input, next_key(), lower=lower, upper=upper)
    else:
        value = functions.leaky_relu(input, (lower + upper) / 2)
    return _finish(input, value, inplace)


upsample = interpolate
unfold = functions.unfold_image
fold = functions.fold_image


def gumbel_softmax(
    logits: Tensor, tau: float = 1.0, hard: bool = False, eps: float = 1e-10, dim: int = -1
) -> Tensor:
    """softmax((logits + Gumbel noise) / tau); `hard`: one-hot with the gradient of the soft one."""
    return functions.gumbel_softmax(logits, next_key(), tau=tau, hard=hard, dim=dim)


def gru_gates(given: Tensor, hidden: Tensor, state: Tensor) -> Tensor:
    """h' of a GRU from the input's and the state's share [N, 3H] of the gates r, z, n."""
    input_r, input_z, input_n = given.chunk(3, -1)
    state_r, state_z, state_n = hidden.chunk(3, -1)
    r = (input_r + state_r).sigmoid()
    z = (input_z + state_z).sigmoid()
    n = (input_n + r * state_n).tanh()
    return n + z * (state - n)


__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d",
    "adaptive_max_pool2d", "adaptive_max_pool3d", "affine_grid", "alpha_dropout", "avg_pool1d",
    "avg_pool2d", "avg_pool3d", "batch_norm", "bilinear", "binary_cross_entropy",
    "binary_cross_entropy_with_logits", "celu", "channel_shuffle", "conv1d", "conv2d", "conv3d",
    "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "cosine_embedding_loss",
    "cosine_similarity", "cross_entropy", "dropout", "dropout1d", "dropout2d", "dropout3d",
    "elu", "embedding", "embedding_bag", "fold", "gaussian_nll_loss", "gelu", "glu", "grid_sample", "group_norm",
    "gru_gates", "gru_layer", "gumbel_softmax", "hardshrink", "hardsigmoid", "hardswish",
    "hardtanh", "hinge_embedding_loss", "huber_loss", "instance_norm", "interpolate", "kl_div",
    "l1_loss", "layer_norm", "leaky_relu", "legacy_reduction", "linear", "local_response_norm",
    "log_softmax", "logsigmoid", "lp_pool2d", "lstm_layer", "margin_ranking_loss", "max_pool1d",
    "max_pool1d_with_indices", "max_pool2d", "max_pool2d_with_indices", "max_pool3d",
    "max_pool3d_with_indices", "mish", "mse_loss", "nll_loss", "normalize", "one_hot", "pad",
    "pairwise_distance", "pixel_shuffle", "pixel_unshuffle", "poisson_nll_loss", "prelu",
    "relu", "relu6", "relu_", "rms_norm", "rnn_layer", "scaled_dot_product_attention", "selu",
    "sigmoid", "silu", "smooth_l1_loss", "soft_margin_loss", "softmax", "softmin", "softplus",
    "softshrink", "softsign", "tanh", "tanhshrink", "threshold", "triplet_margin_loss",
    "unfold", "upsample", "celu_", "elu_", "hardtanh_", "leaky_relu_", "selu_", "threshold_", "rrelu",
    "multilabel_soft_margin_loss", "triplet_margin_with_distance_loss",
]  # fmt: skip

public(__name__)
