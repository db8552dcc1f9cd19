"""Samples of select and source ops."""

from __future__ import annotations

import numpy as np

from tests.op_samples.builders import Table, flags, plain, unit_disc, whole
from tests.sampling import Sample, bools, integers, nonzero, normal
from tracegrad.ir.const import Const
from tracegrad.ir.types import bool_, c64, c128, f32, f64, i32, i64, u8, u32


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
