"""Samples of contractions."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.op_samples.builders import Shape, Table, in_dtype, normals
from tests.sampling import Sample, bools, complex_normal, integers


def conv_attrs(rank: int, **changes: Any) -> dict[str, Any]:
    ones = (1,) * rank
    plain = {
        "strides": ones,
        "padding": ((0, 0),) * rank,
        "lhs_dilation": ones,
        "rhs_dilation": ones,
        "groups": 1,
    }
    return {**plain, **changes}


def conv(label: str, x: Shape, w: Shape, **changes: Any) -> Sample:
    return normals(x, w, label=label, **conv_attrs(len(x) - 2, **changes))


def contraction_samples() -> Table:
    square = conv("2d", (2, 3, 5, 6), (4, 3, 3, 2))
    product = normals((2, 3), (3, 4), label="matrix")
    return {
        "matmul": [
            product,
            in_dtype(product, np.float32),
            normals((2, 3, 4), (2, 4, 2), label="batch"),
            normals((0, 3), (3, 4), label="empty"),
            normals((2, 0), (0, 4), label="nothing-to-sum"),
            Sample(
                lambda rng: (complex_normal(rng, 2, 3), complex_normal(rng, 3, 2)),
                differentiable=(0, 1),
                label="complex",
            ),
            Sample(
                lambda rng: (integers(rng, -3, 4, 2, 3), integers(rng, -3, 4, 3, 2)), label="i64"
            ),
            Sample(lambda rng: (bools(rng, 2, 3), bools(rng, 3, 2)), label="bool"),
        ],
        "conv": [
            square,
            in_dtype(square, np.float32),
            conv("1d", (2, 3, 7), (4, 3, 3), padding=((1, 2),)),
            conv("3d", (1, 2, 3, 4, 3), (2, 2, 2, 2, 2)),
            # stride 2 leaves a remainder on the first axis, none on the second
            conv("strided", (2, 2, 6, 7), (3, 2, 3, 3), strides=(2, 2), padding=((0, 0), (1, 1))),
            conv("dilated", (1, 2, 7, 8), (2, 2, 3, 2), rhs_dilation=(2, 3), strides=(1, 2)),
            conv(
                "transposed",
                (1, 2, 3, 4),
                (2, 2, 3, 3),
                lhs_dilation=(2, 3),
                padding=((2, 1), (0, 2)),
            ),
            conv("cropped", (1, 2, 7, 7), (2, 2, 2, 2), padding=((-1, -2), (-2, 1))),
            conv(
                "padded-beyond",
                (1, 1, 3, 3),
                (1, 1, 2, 2),
                padding=((3, 4), (2, 3)),
                strides=(2, 3),
            ),
            conv("grouped", (2, 4, 5, 5), (6, 2, 3, 3), groups=2, strides=(2, 1)),
            conv("depthwise", (2, 3, 5), (6, 1, 3), groups=3, padding=((1, 1),)),
            conv("nothing-fits", (1, 1, 2, 2), (1, 1, 3, 3)),
        ],
    }
