"""Samples of elementwise ops, of one operand and of two."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.op_samples.builders import Draw, Table, apart, flags, pair, plain, unit_disc, whole
from tests.sampling import Sample, between, integers, nonzero, normal


def unary(draw: Draw, *dtypes: Any, label: str = "", **options: Any) -> list[Sample]:
    """A [2, 3] sample per dtype; differences check the gradients of the double ones."""
    return [
        Sample(
            lambda rng, dtype=dtype: (draw(rng, 2, 3, dtype=dtype),),
            differentiable=(0,) if np.issubdtype(dtype, np.inexact) else (),
            grad_check=dtype in (np.float64, np.complex128),
            label=f"{label}{np.dtype(dtype).name}",
            **options,
        )
        for dtype in dtypes
    ]


def within(low: float, high: float) -> Draw:
    return lambda rng, *shape, dtype: between(rng, low, high, *shape, dtype=dtype)


F, C = (np.float64, np.float32), (np.complex128, np.complex64)


def real_and_complex(draw: Draw) -> list[Sample]:
    return [*unary(draw, *F), *unary(unit_disc, *C)]


def unary_samples() -> Table:
    table: Table = {
        "neg": [*unary(normal, *F), *unary(unit_disc, *C), *unary(whole(-5, 6), np.int32)],
        "abs": [*unary(nonzero, *F), *unary(unit_disc, *C), *unary(whole(-5, 6), np.int32)],
        "sign": [*unary(nonzero, *F), *unary(unit_disc, *C), *unary(whole(-5, 6), np.int32)],
        "erfinv": unary(within(-0.9, 0.9), *F),
        "lgamma": [*unary(within(0.2, 6), *F), *unary(within(-2.8, -2.2), *F, label="negative-")],
        "digamma": [*unary(within(0.2, 6), *F), *unary(within(-2.8, -2.2), *F, label="negative-")],
        "erf": unary(normal, *F),
        "erfc": [*unary(normal, *F), *unary(within(3, 9), *F, label="tail-")],
        "bitwise_not": [*unary(whole(-5, 6), np.int32), *unary(flags, np.bool_)],
        "isfinite": [Sample(lambda rng: (np.array([0.0, np.inf, -np.inf, np.nan, 1e300]),))],
        "isnan": [Sample(lambda rng: (np.array([0.0, np.inf, -np.inf, np.nan, 1e300]),))],
        "real": unary(unit_disc, *C),
        "imag": unary(unit_disc, *C),
        "conj": unary(unit_disc, *C),
        "complex": [
            Sample(
                lambda rng, t=t: (normal(rng, 3, dtype=t), normal(rng, 3, dtype=t)),
                differentiable=(0, 1),
                grad_check=t is np.float64,
                label=t.__name__,
            )
            for t in F
        ],
    }
    for name in ("floor", "ceil", "trunc", "round"):
        # halves apart from whole numbers and from ties
        draw = lambda rng, *s, dtype: (integers(rng, -4, 4, *s) + 0.3).astype(dtype)
        table[name] = unary(draw, *F)
    domains: dict[str, tuple[float, float]] = {
        "exp": (-2, 2), "expm1": (-2, 2), "log": (0.2, 3), "log1p": (-0.7, 3), "sqrt": (0.2, 3),
        "rsqrt": (0.2, 3), "sin": (-3, 3), "cos": (-3, 3), "tan": (-1.2, 1.2), "asin": (-0.9, 0.9),
        "acos": (-0.9, 0.9), "atan": (-3, 3), "sinh": (-2, 2), "cosh": (-2, 2), "tanh": (-2, 2),
        "asinh": (-3, 3), "acosh": (1.2, 4), "atanh": (-0.9, 0.9),
    }  # fmt: skip
    for name, (low, high) in domains.items():
        table[name] = real_and_complex(within(low, high))
    return table


def binary(first: Draw, second: Draw, *dtypes: Any, label: str = "") -> list[Sample]:
    return [
        Sample(
            lambda rng, dtype=dtype: (
                first(rng, 2, 3, dtype=dtype),
                second(rng, 2, 3, dtype=dtype),
            ),
            differentiable=(0, 1) if np.issubdtype(dtype, np.inexact) else (),
            grad_check=dtype in (np.float64, np.complex128),
            label=f"{label}{np.dtype(dtype).name}",
        )
        for dtype in dtypes
    ]


def binary_samples() -> Table:
    ints = binary(whole(-9, 9), whole(1, 5), np.int32, np.int64)
    bits = [*binary(flags, flags, np.bool_), *binary(whole(-9, 9), whole(-9, 9), np.int32)]
    both = [*binary(nonzero, nonzero, *F), *binary(unit_disc, unit_disc, *C)]
    # quotients that stay between whole numbers
    quotient = lambda rng: (
        np.array([5.3, -5.3, 5.3, -5.3]), np.array([2.1, 2.1, -2.1, -2.1])
    )  # fmt: skip
    extreme = [
        Sample(apart, differentiable=(0, 1)),
        pair([0.0, np.nan, 1.0, -0.0], [0.0, 1.0, np.nan, 0.0]),
        *ints,
        *bits[:1],
    ]
    compare = [*binary(normal, normal, *F), pair([0.0, np.nan, 1.0], [-0.0, np.nan, 2.0]), *bits]
    return {
        "add": [*both, *ints, *bits[:1]],
        "sub": [*both, *ints],
        "mul": [*both, *ints, *bits[:1]],
        "div": both,
        "floor_div": [
            Sample(quotient, differentiable=(0, 1)),
            *ints,
            *binary(whole(-9, 9), whole(-5, -1), np.int32, label="negative-"),
        ],
        "rem": [
            Sample(quotient, differentiable=(0, 1)),
            *ints,
            *binary(whole(-9, 9), whole(-5, -1), np.int32, label="negative-"),
        ],
        "pow": [
            *binary(within(0.3, 2), nonzero, *F),
            *binary(unit_disc, unit_disc, *C),
            *binary(whole(-5, 5), whole(0, 5), np.int32, np.int64),
            pair([0.0, 0.0, 0.0, -2.0, -1.5], [1.0, 2.0, 3.0, 3.0, 2.0], differentiable=(0,)),
        ],
        "atan2": binary(nonzero, nonzero, *F),
        "nextafter": [plain(lambda rng: (normal(rng, 4), normal(rng, 4)))],
        "maximum": extreme,
        "minimum": extreme,
        "and": bits,
        "or": bits,
        "xor": bits,
        "shl": binary(whole(-9, 9), whole(0, 5), np.int32, np.int64),
        "shr": binary(whole(-99, 99), whole(0, 5), np.int32, np.int64),
        "eq": [*compare, *binary(unit_disc, unit_disc, *C)],
        "lt": compare,
        "le": compare,
    }
