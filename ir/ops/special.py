"""Special functions written in primitives, for derivatives that have no op of their own."""

from __future__ import annotations

import math

from tracegrad.ir import ops
from tracegrad.ir.graph import Node

# trigamma(z) ~ 1/z + 1/(2 z^2) + sum B_2k / z^(2k+1)      (Abramowitz & Stegun 6.4.12)
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6)
_SHIFT = 9  # from 9.5 on the series is exact to 1e-16


def trigamma(x: Node) -> Node:
    """The derivative of digamma, for floats; being an expression, differentiable at every order."""
    half, one = ops.splat(0.5, x.type), ops.ones_like(x)
    low = ops.lt(x, half)
    z = ops.where(low, 1 - x, x)
    total = ops.zeros_like(x)
    for _ in range(_SHIFT):  # trigamma(z) = 1/z^2 + trigamma(z + 1)
        total = total + one / (z * z)
        z = z + 1
    inverse = one / z
    square = inverse * inverse
    series = ops.zeros_like(x)
    for coefficient in reversed(_BERNOULLI):
        series = (series + coefficient) * square
    positive = total + inverse + square * 0.5 + series * inverse
    # Reflection: trigamma(x) + trigamma(1 - x) = (pi / sin(pi x))^2. The unselected branch must
    # stay finite, or its zero gradient turns into nan: hence the harmless x = 1/2 there.
    sine = ops.sin(ops.where(low, x, half) * math.pi)
    reflected = math.pi**2 / (sine * sine) - positive
    return ops.where(low, reflected, positive)
