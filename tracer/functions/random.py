"""Random numbers from a key (uint32[2]): the same key gives the same bits on every backend."""

from __future__ import annotations

import math

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node
from tracegrad.ir.ops.build import full, full_like
from tracegrad.ir.ops.shape import take_range
from tracegrad.ir.types import DType, bf16, f16, f32, f64, i64, u64
from tracegrad.tracer.dispatch import user_op
from tracegrad.tracer.errors import InvalidValueError
from tracegrad.tracer.functions.axes import reshape
from tracegrad.tracer.functions.checking import required
from tracegrad.tracer.functions.promotion import (
    Operand,
    as_node,
    cast,
    common_float,
    expand,
    require_dtype,
)

Shape = tuple[int, ...]
PRECISION = {f16: 11, bf16: 8, f32: 24}  # bits of a float's fraction


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise InvalidValueError(what)


def uniform_of(key: Node, shape: Shape, dtype: DType) -> Node:
    """Uniform in [0, 1): as many bits as the dtype's fraction holds, so every step is exact."""
    if dtype is f64:
        pair = ops.random_bits(key, shape=(2, *shape))
        high, low = (reshape(take_range(pair, 0, k, k + 1), shape) for k in (0, 1))
        high = ops.cast(ops.shr(high, full_like(high, 5)), dtype=f64)  # 27 bits
        low = ops.cast(ops.shr(low, full_like(low, 6)), dtype=f64)  # 26 bits
        return (high * 2.0**26 + low) * 2.0**-53
    if dtype not in PRECISION:
        raise IRTypeError(f"random floats have a floating dtype, not {dtype.public_name}")
    bits = ops.random_bits(key, shape=shape)
    kept = PRECISION[dtype]
    top = ops.shr(bits, full_like(bits, 32 - kept))
    return cast(ops.cast(top, dtype=f32) * 2.0**-kept, dtype)


# erfinv in single precision, w = -log((1 - x)(1 + x)) below and above 5 (Giles 2012, table 5).
_CENTRAL = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503,
    -0.00417768164, 0.246640727, 1.50140941,
)  # fmt: skip
_TAIL = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613,
    0.00943887047, 1.00167406, 2.83297682,
)  # fmt: skip


def normal_of(key: Node, shape: Shape, dtype: DType) -> Node:
    """Standard normal: sqrt(2) erfinv(u), u uniform in the open interval (-1, 1)."""
    if dtype is f64:
        # 2u - 1 + 2^-53 lies inside (-1, 1) and is never 0.
        return ops.erfinv(uniform_of(key, shape, f64) * 2.0 + (2.0**-53 - 1.0)) * math.sqrt(2.0)
    if dtype not in PRECISION:
        raise IRTypeError(f"random floats have a floating dtype, not {dtype.public_name}")
    x = uniform_of(key, shape, f32) * 2.0 + (2.0**-24 - 1.0)
    w = ops.neg(ops.log(ops.mul(1 - x, x + 1)))
    near = ops.lt(w, full_like(w, 5.0))
    central, tail = w - 2.5, ops.sqrt(w) - 3.0
    value = full_like(w, _CENTRAL[0])
    other = full_like(w, _TAIL[0])
    for a, b in zip(_CENTRAL[1:], _TAIL[1:]):
        value = ops.mul(value, central) + a
        other = ops.mul(other, tail) + b
    result = ops.mul(ops.where(near, value, other), x) * math.sqrt(2.0)
    return cast(result, dtype)


@user_op
def uniform(
    key: Operand, /, *, shape: Shape, dtype: DType = f32, low: float = 0.0, high: float = 1.0
) -> Node:
    """Uniform in [low, high)."""
    _require(low <= high, f"uniform_ needs low <= high, got low={low}, high={high}")
    u = uniform_of(as_node(key), tuple(shape), dtype)
    if (low, high) == (0.0, 1.0):
        return u
    return u * (high - low) + low if low else u * high


@user_op
def normal(
    key: Operand, /, *, shape: Shape, dtype: DType = f32, mean: float = 0.0, std: float = 1.0
) -> Node:
    """Normal with this mean and standard deviation."""
    _require(std >= 0, f"a standard deviation is 0 or more, got std={std}")
    z = normal_of(as_node(key), tuple(shape), dtype)
    if std != 1.0:
        z = z * std
    return z + mean if mean else z


@user_op(shown="normal")
def normal_like(mean: Operand, std: Operand, key: Operand, /) -> Node:
    """Normal, one mean and standard deviation per element."""
    m, s = common_float(mean, std)
    s = required(s, ops.le(ops.zeros_like(s), s), "normal() needs standard deviations of 0 or more")
    return ops.add(m, ops.mul(s, normal_of(as_node(key), m.shape, m.dtype)))


@user_op
def randint(key: Operand, /, *, low: int, high: int, shape: Shape, dtype: DType = i64) -> Node:
    """Integers in [low, high), by multiplying 32 random bits with the range."""
    span = high - low
    if span <= 0:
        raise IRTypeError(f"randint() needs low < high, got [{low}, {high})")
    shape = tuple(shape)
    if span <= 2**32:
        bits = ops.cast(ops.random_bits(as_node(key), shape=shape), dtype=u64)
        scaled = ops.mul(bits, full(shape, u64, span))
        drawn = ops.shr(scaled, full(shape, u64, 32))
    else:
        pair = ops.cast(ops.random_bits(as_node(key), shape=(2, *shape)), dtype=u64)
        upper, lower = (reshape(take_range(pair, 0, k, k + 1), shape) for k in (0, 1))
        whole = ops.or_(ops.shl(upper, full(shape, u64, 32)), lower)
        drawn = ops.rem(whole, full(shape, u64, span))
    result = ops.cast(drawn, dtype=i64)
    return cast(result + low if low else result, dtype)


@user_op
def randperm(key: Operand, /, *, n: int, dtype: DType = i64) -> Node:
    """0 .. n - 1 in random order."""
    bits = ops.random_bits(as_node(key), shape=(n,))
    return cast(ops.argsort(bits, axis=0, descending=False), dtype)


@user_op
def bernoulli(input: Operand, key: Operand, /, *, dtype: DType | None = None) -> Node:
    """1 with the probability that input gives, else 0."""
    p = as_node(input)
    require_dtype("bernoulli", (p,), "f")
    legal = ops.and_(ops.le(ops.zeros_like(p), p), ops.le(p, ops.ones_like(p)))
    p = required(p, legal, "bernoulli() needs probabilities between 0 and 1")
    return cast(ops.lt(uniform_of(as_node(key), p.shape, p.dtype), p), dtype or p.dtype)


@user_op(shown="bernoulli_")
def bernoulli_p(key: Operand, /, *, p: float, shape: Shape, dtype: DType = f32) -> Node:
    """1 with probability p, else 0."""
    _require(0 <= p <= 1, f"a probability lies between 0 and 1, got p={p}")
    shape = tuple(shape)
    u = uniform_of(as_node(key), shape, f32)
    return cast(ops.lt(u, full(shape, f32, p)), dtype)


@user_op
def exponential(key: Operand, /, *, shape: Shape, dtype: DType = f32, lambd: float = 1.0) -> Node:
    """Exponential with rate lambd."""
    _require(lambd > 0, f"a rate is above 0, got lambd={lambd}")
    u = uniform_of(as_node(key), tuple(shape), dtype)
    return ops.log1p(ops.neg(u)) * (-1.0 / lambd)


@user_op
def multinomial(
    input: Operand, key: Operand, /, num_samples: int, replacement: bool = False
) -> Node:
    """Indices drawn with probabilities proportional to the rows of input, int64 [..,
    num_samples].
    """
    weights = as_node(input)
    require_dtype("multinomial", (weights,), "f")
    if weights.ndim not in (1, 2):
        raise IRTypeError(f"multinomial() needs 1 or 2 dimensions, got {list(weights.shape)}")
    axis, count = weights.ndim - 1, weights.shape[-1]
    _require(num_samples > 0, f"multinomial() draws 1 or more, got num_samples={num_samples}")
    if num_samples > count and not replacement:
        raise IRTypeError(f"multinomial() cannot draw {num_samples} of {count} without replacement")
    weights = cast(weights, f32) if weights.dtype in (f16, bf16) else weights
    legal = ops.and_(ops.le(ops.zeros_like(weights), weights), ops.isfinite(weights))
    weights = required(
        weights, legal, "multinomial() needs weights that are finite and not below 0"
    )
    some = ops.lt(ops.zeros_like(weights), weights)
    enough = ops.max_(some, axes=(axis,))
    weights = required(weights, enough, "multinomial() needs a weight above 0 in every row")
    if replacement:
        # How many cumulated probabilities lie at or below u: inverse of the distribution function.
        total = ops.cumsum(weights, axis=axis)
        whole = take_range(total, axis, count - 1, count)
        u = uniform_of(as_node(key), (*weights.shape[:-1], num_samples), weights.dtype)
        level = ops.mul(u, expand(whole, u.shape))
        shape = (*weights.shape[:-1], num_samples, count)
        dims = tuple(range(axis))
        steps = ops.broadcast_to(total, shape=shape, dims=(*dims, axis + 1))
        levels = ops.broadcast_to(level, shape=shape, dims=(*dims, axis))
        passed = ops.sum_(ops.cast(ops.le(steps, levels), dtype=i64), axes=(axis + 1,))
        return ops.minimum(passed, full_like(passed, count - 1))
    # Exponential races: the k smallest e_i / w_i are a draw without replacement (Efraimidis &
    # Spirakis 2006).
    u = uniform_of(as_node(key), weights.shape, weights.dtype)
    times = ops.div(ops.neg(ops.log1p(ops.neg(u))), weights)
    never = ops.eq(weights, ops.zeros_like(weights))
    times = ops.where(never, full_like(times, math.inf), times)
    return take_range(ops.argsort(times, axis=axis, descending=False), axis, 0, num_samples)
