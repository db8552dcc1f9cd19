"""Samples of linear algebra."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.op_samples.builders import Table
from tests.sampling import Array, Rng, Sample, normal


def positive_definite(rng: Rng, *shape: int) -> Array:
    root = normal(rng, *shape)
    return root @ np.swapaxes(root, -1, -2) + 2.0 * np.eye(shape[-1])


def well_conditioned(rng: Rng, *shape: int) -> Array:
    """Singular values 1, 2, 3, ...: no two close, none small."""
    *batch, m, n = shape
    k = min(m, n)
    u = np.linalg.qr(normal(rng, *batch, m, k))[0]
    v = np.linalg.qr(normal(rng, *batch, n, k))[0]
    return np.asarray((u * np.arange(1.0, k + 1)) @ np.swapaxes(v, -1, -2))


def diagonal_heavy(rng: Rng, *shape: int) -> Array:
    return normal(rng, *shape) + 4.0 * np.eye(shape[-1])


def linalg_samples() -> Table:
    def matrix(
        draw: Callable[..., Array], *shape: int, grad: bool = True, label: str = ""
    ) -> Sample:
        text = label or "x".join(map(str, shape))
        return Sample(lambda rng: (draw(rng, *shape),), {}, (0,), grad, text)

    def solve(lower: bool, transpose: bool, unit: bool) -> Sample:
        attrs = {"lower": lower, "transpose": transpose, "unit_diagonal": unit}
        label = "-".join(name for name, on in attrs.items() if on) or "upper"
        return Sample(
            lambda rng: (diagonal_heavy(rng, 2, 3, 3), normal(rng, 2, 3, 2)),
            attrs,
            (0, 1),
            label=label,
        )

    def pseudo_inverse(*shape: int) -> Sample:
        label = "x".join(map(str, shape))
        return Sample(
            lambda rng: (well_conditioned(rng, *shape),), {"rtol": 1e-6}, (0,), label=label
        )

    symmetric = [
        matrix(positive_definite, 3, 3, grad=False),
        matrix(positive_definite, 2, 3, 3, grad=False),
    ]
    # eigh and cholesky are defined on symmetric matrices only; a finite difference in one element
    # leaves them: tests/ir/test_composites.py compares these gradients with PyTorch instead.
    return {
        "cholesky": symmetric,
        "triangular_solve": [
            solve(lower, transpose, unit)
            for lower in (False, True) for transpose in (False, True) for unit in (False, True)
        ],
        "qr": [matrix(well_conditioned, *shape) for shape in ((3, 3), (2, 4, 3), (3, 5))],
        "eigh": symmetric,
        "svd": [matrix(well_conditioned, *shape) for shape in ((3, 3), (2, 4, 3), (3, 5))],
        "pinv": [pseudo_inverse(3, 3), pseudo_inverse(2, 4, 3), pseudo_inverse(3, 5)],
        "lu": [matrix(diagonal_heavy, 3, 3), matrix(diagonal_heavy, 2, 4, 4),
               Sample(lambda rng: (normal(rng, 4, 3),), label="tall")],
    }  # fmt: skip
