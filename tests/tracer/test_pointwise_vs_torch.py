"""Elementwise functions against PyTorch: values, dtypes, gradients, special values."""

import decimal
import math

import numpy as np
import pytest
import torch
from torch_oracle import agree, bools, convert, floats, integers

import tracegrad as tg
from tracegrad.tracer import functions as F

UNARY = """abs neg exp expm1 sin cos tan atan sinh cosh tanh asinh erf sigmoid square exp2 sinc
deg2rad rad2deg relu floor ceil trunc round frac sign isnan isinf isfinite isposinf isneginf signbit
logical_not positive nan_to_num reciprocal erfc""".split()
POSITIVE = "log log1p log2 log10 sqrt rsqrt lgamma digamma".split()
UNIT = "asin acos atanh erfinv logit".split()
BINARY = """add sub mul div maximum minimum fmax fmin atan2 copysign hypot logaddexp logaddexp2
remainder fmod floor_divide eq ne lt le gt ge isclose logical_and logical_or logical_xor
heaviside nextafter rsub""".split()
NO_GRADIENT = ("floor_divide", "heaviside")
SPECIAL = torch.tensor(
    [0.0, -0.0, 1.0, -1.5, float("nan"), float("inf"), -float("inf"), 2.5, 3.5, -2.5]
)


@pytest.mark.parametrize("name", UNARY)
def test_unary(name):
    for dtype in (torch.float64, torch.float32):
        given = floats(3, 4, dtype=dtype)
        if name == "sinc":  # PyTorch's slope loses its digits near 0; ours has a test below
            given = given + given.sign()
        agree(getattr(F, name), getattr(torch, name), given)
    agree(getattr(F, name), getattr(torch, name), floats())


@pytest.mark.parametrize("dtype", [tg.float32, tg.float64], ids=str)
def test_sinc_near_zero(dtype):
    """Against numbers worked out in 50 digits."""
    points = [0.0, 1e-30, 1.6e-4, -0.01, 0.0159, 0.016, 0.15, 0.16, -0.7]
    x = tg.tensor(points, dtype=dtype, requires_grad=True)
    y = F.sinc(x)
    y.sum().backward()
    with decimal.localcontext(prec=50):
        exact = [sinc_and_slope(decimal.Decimal(float(value))) for value in x.detach().numpy()]
    rtol = 1e-5 if dtype is tg.float32 else 1e-12
    np.testing.assert_allclose(y.detach(), [float(v) for v, _ in exact], rtol=rtol)
    np.testing.assert_allclose(x.grad, [float(s) for _, s in exact], rtol=rtol)


def sinc_and_slope(x):
    """sum of (-1)^k t^2k / (2k+1)! for t = pi x, and its derivative."""
    pi = decimal.Decimal("3.14159265358979323846264338327950288419716939937511")
    t, value, slope = pi * x, decimal.Decimal(0), decimal.Decimal(0)
    for k in range(25):
        factor = decimal.Decimal((-1) ** k) / math.factorial(2 * k + 1)
        value += factor * (t ** (2 * k) if k else 1)
        slope += factor * 2 * k * t ** (2 * k - 1) * pi if k else 0
    return value, slope


@pytest.mark.parametrize("name", POSITIVE)
def test_positive(name):
    agree(getattr(F, name), getattr(torch, name), floats(3, 4, low=0.1, high=4), rtol=1e-7)


@pytest.mark.parametrize("name", UNIT)
def test_unit_interval(name):
    low = 0.1 if name == "logit" else -0.9
    agree(getattr(F, name), getattr(torch, name), floats(3, 4, low=low, high=0.9), rtol=1e-7)


def test_acosh():
    agree(F.acosh, torch.acosh, floats(3, 4, low=1.1, high=4))


@pytest.mark.parametrize(
    "name",
    [n for n in UNARY + POSITIVE + UNIT if n not in ("floor", "ceil", "frac", "trunc", "round")],
)
def test_unary_of_integers(name):
    if name == "neg" or name == "positive":
        agree(getattr(F, name), getattr(torch, name), integers(5, low=-3, high=3))
        return
    agree(getattr(F, name), getattr(torch, name), integers(5, low=1, high=3), grad=False)


@pytest.mark.parametrize(
    "name", [n for n in UNARY if n not in ("sinc",)] + ["sqrt", "log", "rsqrt"]
)
def test_special_values(name):
    agree(getattr(F, name), getattr(torch, name), SPECIAL, grad=False)


@pytest.mark.parametrize("name", [n for n in BINARY if n not in ("nextafter",)])
def test_binary(name):
    ours, theirs = getattr(F, name), getattr(torch, name)
    grad = name not in NO_GRADIENT
    agree(ours, theirs, floats(3, 4), floats(3, 4), grad=grad)
    agree(ours, theirs, floats(3, 1, 4), floats(2, 1), grad=grad)
    agree(ours, theirs, floats(3, 4, dtype=torch.float32), floats(dtype=torch.float32), grad=grad)


@pytest.mark.parametrize(
    "name", [n for n in BINARY if n not in ("isclose", "heaviside", "nextafter")]
)
def test_binary_special_values(name):
    a, b = torch.meshgrid(SPECIAL, SPECIAL, indexing="ij")
    agree(getattr(F, name), getattr(torch, name), a, b, grad=False)


@pytest.mark.parametrize(
    "name", ["add", "sub", "mul", "div", "remainder", "floor_divide", "pow", "lt", "eq", "rsub"]
)
@pytest.mark.parametrize("number", [2, 0.5, -1.5])
def test_numbers(name, number):
    ours, theirs = getattr(F, name), getattr(torch, name)
    agree(ours, theirs, floats(3, 4, low=0.5, high=3), number, grad=name not in NO_GRADIENT)
    agree(ours, theirs, integers(3, 4, low=1, high=9), number, grad=False)


INTEGER_BINARY = """add sub mul remainder fmod floor_divide maximum minimum bitwise_and bitwise_or
bitwise_xor gcd pow""".split()


@pytest.mark.parametrize("name", INTEGER_BINARY)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.int8])
def test_integers(name, dtype):
    low = 1 if dtype is torch.uint8 or name in ("pow", "gcd") else -7
    a = integers(4, 5, low=low, high=8, dtype=dtype)
    b = integers(4, 5, low=low, high=8, dtype=dtype)
    b[b == 0] = 3
    agree(getattr(F, name), getattr(torch, name), a, b)


@pytest.mark.parametrize("mode", [None, "floor", "trunc"])
def test_div_rounding(mode):
    agree(F.div, torch.div, floats(20) * 5, floats(20), rounding_mode=mode, grad=mode is None)
    a, b = integers(30, low=-9, high=9), integers(30, low=1, high=5) * -1
    agree(F.div, torch.div, a, b, rounding_mode=mode)
    agree(F.div, torch.div, a, -b, rounding_mode=mode)


@pytest.mark.parametrize("shift", ["bitwise_left_shift", "bitwise_right_shift"])
def test_shifts(shift):
    agree(
        getattr(F, shift), getattr(torch, shift), integers(9, low=-50, high=50), integers(9, high=5)
    )


def test_bitwise_of_bools():
    for name in ("bitwise_and", "bitwise_or", "bitwise_xor", "add", "mul", "logical_xor"):
        agree(getattr(F, name), getattr(torch, name), bools(9), bools(9))
    agree(F.bitwise_not, torch.bitwise_not, bools(9))
    agree(F.bitwise_not, torch.bitwise_not, integers(9))


@pytest.mark.parametrize("exponent", [2, 3, 0.5, -0.5, -1, 1, 0, 2.5])
def test_powers(exponent):
    agree(F.pow, torch.pow, floats(3, 4, low=0.2, high=2), exponent)
    agree(F.pow, torch.pow, 2.0, floats(3, 4))
    agree(F.pow, torch.pow, floats(3, 4, low=0.2, high=2), floats(4))


def test_where():
    agree(F.where, torch.where, bools(3, 4), floats(3, 4), floats(4))
    agree(F.where, torch.where, bools(3, 4), floats(3, 4, dtype=torch.float32), 2.0)
    agree(F.where, torch.where, bools(3, 4), 1, integers(3, 4))
    agree(F.where, torch.where, bools(3, 4), grad=False)


def test_clamp():
    x = torch.tensor([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0, float("nan")])
    for bounds in (
        {"min": -1.0},
        {"max": 1.0},
        {"min": -1.0, "max": 1.0},
        {"min": 2.0, "max": 1.0},
    ):
        agree(F.clamp, torch.clamp, x[:-1], **bounds)
        agree(F.clamp, torch.clamp, x, **bounds, grad=False)
    agree(F.clamp, torch.clamp, floats(5), floats(5), floats(5), grad=False)
    agree(F.clamp, torch.clamp, integers(9), 2, 6)
    agree(F.clamp, torch.clamp, integers(9), 2.5, 6.5)
    agree(F.clamp_min, torch.clamp_min, floats(9), 0.1)
    agree(F.clamp_max, torch.clamp_max, floats(9), 0.1)


def test_combinations():
    agree(F.lerp, torch.lerp, floats(3, 4), floats(3, 4), 0.3)
    agree(F.lerp, torch.lerp, floats(3, 4), floats(3, 4), floats(3, 4, low=0, high=1))
    agree(F.addcmul, torch.addcmul, floats(3, 4), floats(3, 1), floats(4), value=0.5)
    agree(
        F.addcdiv, torch.addcdiv, floats(3, 4), floats(3, 1), floats(4, low=1, high=2), value=-0.5
    )
    agree(F.add, torch.add, floats(3, 4), floats(4), alpha=2.5)
    agree(F.sub, torch.sub, integers(3), integers(3), alpha=2)
    agree(F.xlogy, torch.xlogy, floats(5, low=0.1, high=2), floats(5, low=0.1, high=2))
    agree(
        F.xlogy,
        torch.xlogy,
        torch.tensor([0.0, 0.0, 1.0]),
        torch.tensor([0.0, np.nan, 2.0]),
        grad=False,
    )
    agree(F.float_power, torch.float_power, floats(5, low=0.1, high=2), 2)
    agree(F.dist, torch.dist, floats(3, 4), floats(3, 4))


def test_round_decimals():
    for decimals in (0, 2, -1):
        agree(F.round, torch.round, floats(9) * 40, decimals=decimals, grad=False)


def test_nan_to_num():
    agree(F.nan_to_num, torch.nan_to_num, SPECIAL, nan=1.0, posinf=5.0, neginf=-4.0)


@pytest.mark.parametrize(
    "call", [
        lambda L, x, y: L.neg(x > 0), lambda L, x, y: L.sub(x > 0, y > 0), lambda L, x,
        y: L.bitwise_and(x, y),
        lambda L, x, y: L.add(x, y[:, :2]), lambda L, x, y: L.add(x.long(), 1, alpha=0.5),
        lambda L, x, y: L.pow(x.long(), -1) if L is torch else L.add(x, y[:, :2]),
    ],
)  # fmt: skip
def test_both_refuse(call):
    args = (floats(3, 4), floats(3, 4))
    (own, _) = convert(args, False)
    with pytest.raises((RuntimeError, TypeError)):
        call(torch, *args)
    with pytest.raises((RuntimeError, TypeError)):
        call(F, *own)
