"""Samples of every op: `SAMPLES[op name]`. Feeds the kernel, JAX, gradient and completeness tests.

This file holds the elementwise, select, source, shape, index and reduction families; the others are
in `tests/op_samples_2.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.op_samples_2 import SAMPLES_2
from tests.sampling import (
    Array,
    Rng,
    Sample,
    between,
    bools,
    complex_normal,
    distinct,
    integers,
    nonzero,
    normal,
)
from tracegrad.ir.const import Const
from tracegrad.ir.types import bool_, c64, c128, f32, f64, i32, i64, u8, u32

Table = dict[str, list[Sample]]
Draw = Callable[..., Array]


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


def whole(low: int, high: int) -> Draw:
    return lambda rng, *shape, dtype: integers(rng, low, high, *shape, dtype=dtype)


def flags(rng: Rng, *shape: int, dtype: Any) -> Array:
    return bools(rng, *shape)


def unit_disc(rng: Rng, *shape: int, dtype: Any) -> Array:
    """Complex numbers off both axes, where the branch cuts lie."""
    radius, angle = rng.uniform(0.3, 0.8, shape), rng.uniform(0.3, 1.2, shape)
    quarter = rng.integers(0, 4, shape) * (np.pi / 2)
    return np.asarray(radius * np.exp(1j * (angle + quarter))).astype(dtype)


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


def pair(first: list[Any], second: list[Any], differentiable: tuple[int, ...] = ()) -> Sample:
    """Two given vectors; finite differences cannot judge kinks, so their gradients go unchecked."""
    return Sample(
        lambda rng: (np.array(first), np.array(second)),
        differentiable=differentiable,
        grad_check=bool(differentiable),
        label="edges",
    )


def apart(rng: Rng) -> tuple[Array, Array]:
    x = normal(rng, 2, 3)
    return x, x + nonzero(rng, 2, 3)


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


def one(draw: Draw, shape: tuple[int, ...], label: str = "", /, **attrs: Any) -> Sample:
    """A differentiable sample of one input."""
    return Sample(lambda rng: (draw(rng, *shape),), attrs, (0,), label=label or str(shape))


def plain(build: Callable[[Rng], tuple[Any, ...]], label: str = "", /, **attrs: Any) -> Sample:
    """A sample without gradients."""
    return Sample(build, attrs, label=label)


def select_and_source_samples() -> Table:
    casts: list[Sample] = []
    for source in (np.float64, np.float32, np.complex128, np.int32, np.bool_):
        for target in (f64, f32, c128, i64, bool_):
            draw = {"b": flags, "i": whole(-5, 6), "f": nonzero, "c": unit_disc}[
                np.dtype(source).kind
            ]
            exact = source in (np.float64, np.complex128) and target in (f64, c128)
            casts.append(
                Sample(
                    lambda rng, draw=draw, source=source: (draw(rng, 2, 3, dtype=source),),
                    {"dtype": target},
                    (0,) if np.issubdtype(source, np.inexact) and target.is_inexact else (),
                    grad_check=exact,
                    label=f"{np.dtype(source).name}-{target.name}",
                )
            )
    return {
        "where": [
            Sample(
                lambda rng: (bools(rng, 2, 3), normal(rng, 2, 3), normal(rng, 2, 3)),
                differentiable=(1, 2),
            ),
            plain(lambda rng: (bools(rng, 4), integers(rng, 0, 9, 4), integers(rng, 0, 9, 4))),
        ],
        "cast": casts,
        "bitcast": [
            plain(lambda rng: (normal(rng, 3, dtype=np.float32),), dtype=u32),
            plain(lambda rng: (integers(rng, -5, 5, 3),), dtype=f64),
        ],
        "constant": [
            plain(lambda rng: (), "dense", value=Const(np.arange(6.0).reshape(2, 3))),
            plain(lambda rng: (), "splat", value=Const.full((2, 3), f32, 1.5)),
            plain(lambda rng: (), "scalar", value=Const.full((), c64, 1 - 2j)),
            plain(lambda rng: (), "empty", value=Const.full((0, 2), i32, 0)),
        ],
        "iota": [
            plain(lambda rng: (), shape=(2, 3), axis=0, dtype=i64),
            plain(lambda rng: (), shape=(2, 3), axis=1, dtype=f32),
            plain(lambda rng: (), shape=(5,), axis=0, dtype=u8),
        ],
    }


def shape_samples() -> Table:
    def dynamic(rng: Rng, *inputs: Array) -> tuple[Any, ...]:
        return (*inputs, np.array(1), np.array(7))  # the second start is clamped

    def sliced(start: Any, stop: Any, step: Any, shape: Any, label: str) -> dict[str, Any]:
        return {"start": start, "stop": stop, "step": step, "label": label, "shape": shape}

    slices = [
        sliced((0, 1), (3, 5), (1, 1), (3, 6), "plain"),
        sliced((0, 1), (3, 6), (2, 3), (3, 6), "strided"),
        sliced((2, 5), (-1, 0), (-1, -2), (3, 6), "backwards"),
        sliced((1, 2), (1, 2), (1, 1), (3, 6), "empty"),
        sliced((), (), (), (), "scalar"),
    ]

    def update(case: dict[str, Any]) -> Sample:
        attrs = {key: case[key] for key in ("start", "stop", "step")}
        region = tuple(len(range(*bounds)) for bounds in zip(*attrs.values()))
        return Sample(
            lambda rng: (normal(rng, *case["shape"]), normal(rng, *region)), attrs, (0, 1),
            label=case["label"],
        )  # fmt: skip

    def padded(shape: tuple[int, ...], low: Any, high: Any, interior: Any) -> Sample:
        return Sample(
            lambda rng: (normal(rng, *shape), normal(rng)),
            {"low": low, "high": high, "interior": interior},
            (0, 1),
            label=f"{shape}",
        )

    return {
        "reshape": [
            one(normal, (2, 6), shape=(3, 4)),
            one(normal, (1,), shape=()),
            one(normal, (0, 3), shape=(3, 0, 2)),
        ],
        "transpose": [one(normal, (2, 3, 4), perm=(2, 0, 1)), one(normal, (), perm=())],
        "broadcast_to": [
            one(normal, (1, 3), "row", shape=(4, 3), dims=(0, 1)),
            one(normal, (3,), "column", shape=(3, 4), dims=(0,)),
            one(normal, (), "scalar", shape=(2, 2), dims=()),
            one(normal, (1, 1), "ones", shape=(1, 5, 1), dims=(0, 2)),
        ],
        "slice": [
            one(normal, case["shape"], case["label"],
                **{key: case[key] for key in ("start", "stop", "step")})
            for case in slices
        ],
        "update_slice": [update(case) for case in slices],
        "pad": [
            padded((2, 3), (1, 0), (0, 2), (0, 1)),
            padded((0, 2), (1, 1), (1, 0), (2, 0)),
            padded((), (), (), ()),
        ],
        "concatenate": [
            Sample(
                lambda rng: (normal(rng, 2, 1), normal(rng, 2, 3), normal(rng, 2, 0)),
                {"axis": 1},
                (0, 1, 2),
            ),
            Sample(lambda rng: (normal(rng, 3),), {"axis": 0}, (0,), label="single"),
        ],
        "dynamic_slice": [
            Sample(lambda rng: dynamic(rng, normal(rng, 4, 5)), {"sizes": (2, 3)}, (0,))
        ],
        "dynamic_update_slice": [
            Sample(lambda rng: dynamic(rng, normal(rng, 4, 5), normal(rng, 2, 3)), {}, (0, 1))
        ],
    }  # fmt: skip


def _written(mode: str, rng: Rng, x: Array, u: Array) -> tuple[Array, Array]:
    """Base and updates fit for a mode: no ties for max and min, no zeros for mul."""
    if mode in ("max", "min"):
        both = distinct(rng, x.size + u.size)
        return both[: x.size].reshape(x.shape), both[x.size :].reshape(u.shape)
    return x, u


def index_samples() -> Table:
    def two_axes() -> tuple[Array, Array]:
        return np.array([[0, 2, 0], [1, 1, 2]]), np.array([[3, 0, 3], [2, 2, 1]])

    def gathering(label: str, shape: tuple[int, ...], axes: tuple[int, ...], *at: Any) -> Sample:
        return Sample(lambda rng: (normal(rng, *shape), *at), {"axes": axes}, (0,), label=label)

    gathers = [
        gathering("rows", (4, 3), (0,), np.array([3, 0, 3])),
        gathering("two axes", (3, 5, 4), (0, 2), *two_axes()),
        gathering("0-d index", (4,), (0,), np.array(2)),
        gathering("no index", (4, 2), (0,), np.zeros((0,), np.int64)),
    ]
    scatters, alongs = [], []
    for mode in ("add", "set", "mul", "max", "min"):
        rows = np.array([3, 0, 1]) if mode == "set" else np.array([3, 0, 3])
        scatters += [
            Sample(
                lambda rng, mode=mode, rows=rows: (lambda x, u: (x, rows, u))(
                    *_written(mode, rng, nonzero(rng, 4, 2), nonzero(rng, 3, 2))
                ),
                {"axes": (0,), "mode": mode},
                (0, 2),
                label=mode,
            ),
        ]
        columns = np.array([[1, 2], [0, 3]]) if mode == "set" else np.array([[1, 1], [0, 3]])
        alongs.append(
            Sample(
                lambda rng, mode=mode, columns=columns: (lambda x, u: (x, columns, u))(
                    *_written(mode, rng, nonzero(rng, 2, 4), nonzero(rng, 2, 2))
                ),
                {"axis": 1, "mode": mode},
                (0, 2),
                label=mode,
            )
        )
    scatters += [
        Sample(
            lambda rng: (normal(rng, 3, 5, 4), *two_axes(), normal(rng, 2, 3, 5)),
            {"axes": (0, 2), "mode": "add"},
            (0, 3),
            label="two axes",
        ),
        Sample(
            lambda rng: (normal(rng, 2), np.array([0, 0, 1]), np.array([0.0, 2.0, 0.0])),
            {"axes": (0,), "mode": "mul"},
            (0, 2),
            label="mul with a zero",
        ),
    ]
    nan = np.array([[1.0, np.nan, 0.0, 1.0], [2.0, 2.0, -np.inf, np.inf]])
    searches = [
        plain(lambda rng: (distinct(rng, 2, 4),), "distinct", axis=1),
        plain(lambda rng: (nan,), "nan and ties", axis=1),
        plain(lambda rng: (integers(rng, 0, 3, 5, 2),), "integers", axis=0),
        plain(lambda rng: (bools(rng, 5),), "bools", axis=0),
    ]
    return {
        "gather": gathers,
        "scatter": scatters,
        "take_along": [
            Sample(lambda rng: (normal(rng, 2, 4), np.array([[1, 1], [0, 3]])), {"axis": 1}, (0,)),
            Sample(lambda rng: (normal(rng, 3), np.array([2, 2, 0, 1])), {"axis": 0}, (0,)),
        ],
        "scatter_along": alongs,
        "argsort": [
            Sample(s.build, {**s.attrs, "descending": down}, label=f"{s.label} {down}")
            for s in searches
            for down in (False, True)
        ],
        "argmax": searches,
        "argmin": searches,
    }  # fmt: skip


def reduction_samples() -> Table:
    def given(*rows: Any) -> Draw:
        return lambda rng, *shape: np.array(rows)

    sums = [
        one(normal, (2, 3, 4), "middle", axes=(1,)),
        one(normal, (2, 3, 4), "outer", axes=(0, 2)),
        one(normal, (5,), "all", axes=(0,)),
        one(normal, (2, 2), "none", axes=()),
        one(normal, (2, 0), "empty", axes=(1,)),
        one(complex_normal, (2, 3), "complex", axes=(0,)),
        plain(lambda rng: (integers(rng, -4, 5, 2, 3),), "integers", axes=(1,)),
    ]
    extremes = [
        one(distinct, (2, 3, 4), "outer", axes=(0, 2)),
        one(distinct, (5,), "all", axes=(0,)),
        plain(lambda rng: (np.array([[1.0, np.nan], [2.0, 3.0]]),), "nan", axes=(1,)),
        plain(lambda rng: (bools(rng, 2, 3),), "bools", axes=(1,)),
        plain(lambda rng: (integers(rng, -4, 5, 2, 3),), "integers", axes=(0, 1)),
    ]
    running = [
        one(normal, (2, 5), "last", axis=1),
        one(normal, (3, 2), "first", axis=0),
        one(normal, (2, 0), "empty", axis=1),
        one(complex_normal, (2, 3), "complex", axis=1),
        plain(lambda rng: (integers(rng, -4, 5, 2, 3),), "integers", axis=1),
    ]
    records = [
        one(distinct, (2, 6), "last", axis=1),
        one(distinct, (6, 2), "first", axis=0),
        plain(lambda rng: (np.array([1.0, np.nan, 2.0, 1.0]),), "nan", axis=0),
        plain(lambda rng: (bools(rng, 2, 3),), "bools", axis=1),
    ]
    return {
        "sum": sums,
        "prod": [*sums, one(given([0.0, 2.0, 3.0], [0.0, 0.0, 3.0]), (2, 3), "zeros", axes=(1,))],
        "max": extremes,
        "min": extremes,
        "cumsum": running,
        "cumprod": [
            *running,
            one(given([2.0, 0.0, 3.0, 0.0, 4.0]), (1, 5), "zeros", axis=1),
        ],
        "cummax": records,
        "cummin": records,
        "cumlogsumexp": [
            one(normal, (2, 5), "last", axis=1),
            one(normal, (3, 2), "first", axis=0),
            one(given(-800.0, 3.0, 900.0, 899.0), (4,), "large", axis=0),
        ],
    }


def _merged(*tables: Table) -> Table:
    merged: Table = {}
    for table in tables:
        overlap = merged.keys() & table.keys()
        assert not overlap, f"sampled in two places: {sorted(overlap)}"
        merged.update(table)
    return merged


SAMPLES: Table = _merged(
    unary_samples(),
    binary_samples(),
    select_and_source_samples(),
    shape_samples(),
    index_samples(),
    reduction_samples(),
    SAMPLES_2,
)
