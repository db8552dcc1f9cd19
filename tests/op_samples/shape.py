"""Samples of shape ops."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.op_samples.builders import Table, one
from tests.sampling import Array, Rng, Sample, normal


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
