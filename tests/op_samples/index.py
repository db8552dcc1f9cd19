"""Samples of index ops."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.op_samples.builders import Table, plain
from tests.sampling import Array, Rng, Sample, bools, distinct, integers, nonzero, normal


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
