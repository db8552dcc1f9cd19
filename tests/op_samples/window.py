"""Samples of window ops."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.op_samples.builders import Shape, Table, normals
from tests.sampling import Array, Rng, Sample, distinct, normal
from tracegrad.ir import ops
from tracegrad.ir.types import TensorType, f64


def window_attrs(window: Shape, **changes: Any) -> dict[str, Any]:
    ones = (1,) * len(window)
    return {"window": window, "strides": ones, "padding": ((0, 0),) * len(window), **changes}


TALL = window_attrs((3, 2), strides=(2, 1), padding=((1, 1), (0, 1)), dilation=(1, 1))
MAX_CASES: list[tuple[str, Shape, dict[str, Any]]] = [
    ("2x2", (2, 1, 4, 6), window_attrs((2, 2), strides=(2, 2), dilation=(1, 1))),
    ("overlap", (1, 2, 6, 5), TALL),
    ("dilated", (2, 7), window_attrs((3,), strides=(2,), padding=((1, 1),), dilation=(2,))),
]  # fmt: skip


def window_samples() -> Table:
    def apart(rng: Rng, shape: Shape) -> Array:
        return distinct(rng, *shape)

    def results(shape: Shape, attrs: dict[str, Any]) -> Shape:
        result = ops.window_max.infer(TensorType(shape, f64), **attrs)
        assert isinstance(result, TensorType)
        return result.shape

    wide = window_attrs((2, 3), strides=(2, 2), padding=((1, 0), (1, 2)))

    table: Table = {
        "window_sum": [
            normals((2, 3, 5), label="1d", **window_attrs((3,), strides=(2,))),
            normals((1, 2, 5, 6), label="2d", **wide),
            normals((4, 3), label="padded-beyond", **window_attrs((2,), padding=((2, 3),))),
            normals((6,), label="stride-gap", **window_attrs((2,), strides=(3,))),
        ],
        "window_max": [], "select_scatter": [], "select_gather": [],
    }  # fmt: skip
    for label, shape, attrs in MAX_CASES:
        out = results(shape, attrs)
        table["window_max"].append(
            Sample(lambda rng, s=shape: (apart(rng, s),), attrs, (0,), label=label)
        )
        table["select_scatter"].append(
            Sample(
                lambda rng, s=shape, o=out: (normal(rng, *o), apart(rng, s)),
                attrs,
                (0,),
                label=label,
            )
        )
        table["select_gather"].append(
            Sample(lambda rng, s=shape: (normal(rng, *s), apart(rng, s)), attrs, (0,), label=label)
        )
    ties = window_attrs((2,), strides=(2,), dilation=(1,))
    table["window_max"].append(
        Sample(
            lambda rng: (np.array([[1.0, 1.0, np.nan, 2.0, 2.0, np.nan]]),),
            ties,
            (0,),
            False,
            "ties",
        )
    )
    return table
