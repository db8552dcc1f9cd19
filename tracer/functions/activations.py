"""Activation functions, softmax and dropout."""

from __future__ import annotations

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node, Op
from tracegrad.ir.ops.build import full, full_like
from tracegrad.ir.ops.shape import take_range
from tracegrad.ir.types import DType, i64
from tracegrad.tracer.dispatch import user_op
from tracegrad.tracer.functions.axes import axis_of, dimension_of, reshape
from tracegrad.tracer.functions.promotion import (
    Operand,
    as_node,
    cast,
    expand,
    require_dtype,
    to_float,
)
from tracegrad.tracer.functions.random import uniform_of


def floating(name: str, input: Operand) -> Node:
    """The operand, which must be floating. Raises IRTypeError."""
    x = as_node(input)
    require_dtype(name, (x,), "f")
    return x


def clipped(x: Node, low: float, high: float) -> Node:
    """x clamped to numbers; the gradient passes at the bounds."""
    floor, ceiling = full_like(x, low), full_like(x, high)
    return ops.where(ops.lt(x, floor), floor, ops.where(ops.lt(ceiling, x), ceiling, x))


def above(x: Node, bound: float) -> Node:
    """x > bound."""
    return ops.lt(full_like(x, bound), x)


@user_op
def relu(input: Operand, /) -> Node:
    """max(input, 0); its gradient at 0 is 0."""
    x = as_node(input)
    require_dtype("relu", (x,), "if")
    if x.dtype.is_float:
        return ops.relu(x)
    return ops.maximum(x, ops.zeros_like(x))


@user_op
def relu6(input: Operand, /) -> Node:
    """min(max(input, 0), 6)."""
    return hardtanh.emit(input, 0.0, 6.0)


@user_op
def hardtanh(input: Operand, /, min_val: float = -1.0, max_val: float = 1.0) -> Node:
    """input clamped to [min_val, max_val]; its gradient at the bounds is 0."""
    x = floating("hardtanh", input)
    if min_val > max_val:
        raise IRTypeError(f"hardtanh(): min_val {min_val} is above max_val {max_val}")
    low, high = full_like(x, min_val), full_like(x, max_val)
    return ops.where(ops.le(x, low), low, ops.where(ops.le(high, x), high, x))


@user_op(rounds_once=True)
def leaky_relu(input: Operand, /, negative_slope: float = 0.01) -> Node:
    """input where positive, else negative_slope * input."""
    x = floating("leaky_relu", input)
    return ops.where(above(x, 0.0), x, x * negative_slope)


@user_op
def prelu(input: Operand, weight: Operand, /) -> Node:
    """input where positive, else weight * input; weight has one element, or one per channel (axis
    1).
    """
    x, w = floating("prelu", input), as_node(weight)
    if w.type.size == 1:
        slope = expand(ops.reshape(w, shape=()), x.shape)
    elif x.ndim > 1 and w.shape == (x.shape[1],):
        slope = ops.broadcast_to(w, shape=x.shape, dims=(1,))
    else:
        raise IRTypeError(
            f"prelu(): weight {list(w.shape)} does not fit the channels of {list(x.shape)}"
        )
    return ops.where(above(x, 0.0), x, ops.mul(slope, x))


@user_op(rounds_once=True)
def elu(input: Operand, /, alpha: float = 1.0) -> Node:
    """input where positive, else alpha * (exp(input) - 1)."""
    return _exponential(floating("elu", input), 1.0, alpha, 1.0)


def _exponential(x: Node, scale: float, alpha: float, slope: float) -> Node:
    """scale * (x where positive, else alpha * expm1(slope * x)); the exponent never overflows."""
    positive = above(x, 0.0)
    safe = ops.where(positive, ops.zeros_like(x), x)
    inner = safe if slope == 1.0 else safe * slope
    curve = ops.expm1(inner) * (scale * alpha)
    return ops.where(positive, x if scale == 1.0 else x * scale, curve)


@user_op(rounds_once=True)
def selu(input: Operand, /) -> Node:
    """Self-normalising ELU (Klambauer et al. 2017)."""
    return _exponential(floating("selu", input), 1.0507009873554805, 1.6732632423543772, 1.0)


@user_op(rounds_once=True)
def celu(input: Operand, /, alpha: float = 1.0) -> Node:
    """input where positive, else alpha * (exp(input / alpha) - 1)."""
    if not alpha:
        raise IRTypeError("celu(): alpha must not be 0")
    return _exponential(floating("celu", input), 1.0, alpha, 1.0 / alpha)


@user_op
def gelu(input: Operand, /, *, approximate: str = "none") -> Node:
    """input * Phi(input), exactly or by tanh."""
    return ops.gelu(floating("gelu", input), approximate=approximate)


@user_op
def silu(input: Operand, /) -> Node:
    """input * sigmoid(input)."""
    return ops.silu(floating("silu", input))


@user_op(rounds_once=True)
def mish(input: Operand, /) -> Node:
    """input * tanh(softplus(input))."""
    x = floating("mish", input)
    return ops.mul(x, ops.tanh(ops.softplus(x, beta=1.0, threshold=20.0)))


@user_op
def softplus(input: Operand, /, beta: float = 1.0, threshold: float = 20.0) -> Node:
    """log(1 + exp(beta * input)) / beta; the input itself where beta * input exceeds threshold."""
    return ops.softplus(floating("softplus", input), beta=float(beta), threshold=float(threshold))


@user_op
def softsign(input: Operand, /) -> Node:
    """input / (1 + |input|)."""
    x = to_float(input)
    return ops.div(x, ops.abs_(x) + 1)


@user_op
def tanhshrink(input: Operand, /) -> Node:
    """input - tanh(input)."""
    x = to_float(input)
    return ops.sub(x, ops.tanh(x))


@user_op(rounds_once=True)
def softshrink(input: Operand, /, lambd: float = 0.5) -> Node:
    """input moved towards 0 by lambd, 0 within."""
    x = floating("softshrink", input)
    if lambd < 0:
        raise IRTypeError(f"softshrink(): lambd must be 0 or more, not {lambd}")
    # Asked so that a nan, of which nothing is true, ends in the branch that keeps it.
    low = ops.where(ops.le(full_like(x, -lambd), x), ops.zeros_like(x), x + lambd)
    return ops.where(above(x, lambd), x - lambd, low)


@user_op
def hardshrink(input: Operand, /, lambd: float = 0.5) -> Node:
    """0 where |input| <= lambd."""
    x = floating("hardshrink", input)
    return ops.where(ops.le(ops.abs_(x), full_like(x, lambd)), ops.zeros_like(x), x)


@user_op(rounds_once=True)
def hardsigmoid(input: Operand, /) -> Node:
    """clamp(input / 6 + 1/2, 0, 1)."""
    x = floating("hardsigmoid", input)
    inside = (x + 3.0) * (1 / 6)  # exact near -3, where it is small
    zero, one = ops.zeros_like(x), ops.ones_like(x)
    return ops.where(
        ops.le(x, full_like(x, -3.0)), zero, ops.where(ops.le(full_like(x, 3.0), x), one, inside)
    )


@user_op(rounds_once=True)
def hardswish(input: Operand, /) -> Node:
    """input * hardsigmoid(input)."""
    x = floating("hardswish", input)
    low, high = ops.le(x, full_like(x, -3.0)), ops.le(full_like(x, 3.0), x)
    # The gradient of the side not taken is infinite at infinity, and zero times it nan.
    safe = ops.where(ops.or_(low, high), ops.zeros_like(x), x)
    inside = ops.mul(safe, (safe + 3.0) * (1 / 6))
    return ops.where(low, ops.zeros_like(x), ops.where(high, x, inside))


@user_op
def logsigmoid(input: Operand, /) -> Node:
    """log(sigmoid(input)), without overflow."""
    x = floating("logsigmoid", input)
    return ops.neg(ops.softplus(ops.neg(x), beta=1.0, threshold=float("inf")))


@user_op
def threshold(input: Operand, /, threshold: float, value: float) -> Node:
    """input where above threshold, else value; nan stays nan."""
    x = as_node(input)
    return ops.where(ops.le(x, full_like(x, threshold)), full_like(x, value), x)


@user_op(rounds_once=True)
def glu(input: Operand, /, dim: int = -1) -> Node:
    """First half * sigmoid(second half) along dim."""
    x = floating("glu", input)
    axis = dimension_of(dim, x.ndim)
    size = x.shape[axis]
    if size % 2:
        raise IRTypeError(f"glu() halves dimension {axis}, whose size {size} is odd")
    half = size // 2
    return ops.mul(take_range(x, axis, 0, half), ops.sigmoid(take_range(x, axis, half, size)))


def _soft(name: str, input: Operand, dim: int | None, dtype: DType | None) -> tuple[Node, int]:
    x = as_node(input)
    if dtype is not None:
        x = cast(x, dtype)
    require_dtype(name, (x,), "f")
    if dim is None:  # torch.nn.functional's old rule
        dim = 0 if x.ndim in (0, 1, 3) else 1
    return x, axis_of(dim, x.ndim)


@user_op
def softmax(input: Operand, /, dim: int | None = None, *, dtype: DType | None = None) -> Node:
    """exp(input) scaled to sum 1 along dim."""
    x, axis = _soft("softmax", input, dim, dtype)
    return _along(ops.softmax, x, axis)


def _along(op: Op, x: Node, axis: int) -> Node:
    """A softmax along an axis, which may be empty, or the axis that a 0-d tensor counts as having."""
    if not x.type.size:
        return ops.exp(x)
    return op(x, axis=axis) if x.ndim else reshape(op(reshape(x, (1,)), axis=0), ())


@user_op
def softmin(input: Operand, /, dim: int | None = None, *, dtype: DType | None = None) -> Node:
    """softmax(-input)."""
    x, axis = _soft("softmin", input, dim, dtype)
    return _along(ops.softmax, ops.neg(x), axis)


@user_op
def log_softmax(input: Operand, /, dim: int | None = None, *, dtype: DType | None = None) -> Node:
    """The logarithm of softmax along dim."""
    x, axis = _soft("log_softmax", input, dim, dtype)
    return _along(ops.log_softmax, x, axis)


# ---------------------------------------------------------------- random: the key is an operand


@user_op
def dropout(input: Operand, key: Operand, /, *, p: float) -> Node:
    """Elements zeroed with probability p, the others scaled by 1 / (1 - p)."""
    return ops.dropout(floating("dropout", input), as_node(key), rate=checked_rate(p))


def checked_rate(p: float) -> float:
    if not 0.0 <= p <= 1.0:
        raise IRTypeError(f"the dropout probability must lie in [0, 1], not {p}")
    return float(p)


@user_op
def feature_dropout(input: Operand, key: Operand, /, *, p: float, batched: bool = True) -> Node:
    """Whole channels zeroed with probability p (axes 0 and 1; axis 0 alone if not batched)."""
    x = floating("dropout", input)
    lead = x.shape[: 2 if batched else 1]
    mask = ops.dropout(full(lead, x.dtype, 1.0), as_node(key), rate=checked_rate(p))
    return ops.mul(x, ops.broadcast_to(mask, shape=x.shape, dims=tuple(range(len(lead)))))


@user_op
def alpha_dropout(input: Operand, key: Operand, /, *, p: float, features: bool = False) -> Node:
    """Dropout for SELU networks: keeps mean 0 and variance 1 (Klambauer et al. 2017)."""
    x = floating("alpha_dropout", input)
    rate = checked_rate(p)
    if rate == 1.0:
        return ops.mul(x, ops.zeros_like(x))
    low = -1.7580993408473766  # -scale * alpha of selu
    a = ((1 - rate) * (1 + rate * low**2)) ** -0.5
    lead = x.shape[:2] if features else x.shape
    drawn = ops.dropout(full(lead, x.dtype, 1.0), as_node(key), rate=rate)
    kept = above(drawn, 0.0)
    if features:
        kept = ops.broadcast_to(kept, shape=x.shape, dims=tuple(range(len(lead))))
    return ops.where(kept, x, full_like(x, low)) * a + (-a * rate * low)


@user_op
def rrelu(input: Operand, key: Operand, /, *, lower: float = 1 / 8, upper: float = 1 / 3) -> Node:
    """leaky_relu with a slope drawn uniformly for every element."""
    x = floating("rrelu", input)
    slope = uniform_of(as_node(key), x.shape, x.dtype) * (upper - lower) + lower
    return ops.where(above(x, 0.0), x, ops.mul(x, slope))


@user_op
def gumbel_softmax(
    logits: Operand, key: Operand, /, *, tau: float = 1.0, hard: bool = False, dim: int = -1
) -> Node:
    """softmax((logits + Gumbel noise) / tau); hard: one-hot forward with the soft gradient."""
    x = floating("gumbel_softmax", logits)
    axis = axis_of(dim, x.ndim)
    u = uniform_of(as_node(key), x.shape, x.dtype)
    noise = ops.neg(ops.log(ops.neg(ops.log(clipped(u, 1e-10, 1.0))) + 1e-10))
    soft = ops.softmax(ops.add(x, noise) * (1.0 / tau), axis=axis)
    if not hard:
        return soft
    best = ops.argmax(soft, axis=axis)
    dims = tuple(k for k in range(x.ndim) if k != axis)
    best = ops.broadcast_to(best, shape=x.shape, dims=dims)
    one_hot = cast(ops.eq(ops.iota(shape=x.shape, axis=axis, dtype=i64), best), x.dtype)
    return ops.rebind(soft, one_hot)
