"""Samples of reductions and scans."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.op_samples.builders import Draw, Table, one, plain
from tests.sampling import bools, complex_normal, distinct, integers, normal


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
