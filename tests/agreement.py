"""How close two backends must be on the samples of an op."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from tests.sampling import Sample
from tracegrad.ir.graph import Graph

Array = np.ndarray[Any, np.dtype[Any]]
TOLERANCE = {
    "float16": 2e-3, "bfloat16": 2e-2, "float32": 2e-5, "float64": 1e-10,
    "complex64": 2e-5, "complex128": 1e-10,
}  # fmt: skip


def _of_eigh(w: Array, v: Array) -> list[Array]:
    return [w, (v * w[..., None, :]) @ v.conj().swapaxes(-1, -2)]


def _of_svd(u: Array, s: Array, vh: Array) -> list[Array]:
    return [s, (u * s[..., None, :]) @ vh]


def _of_qr(q: Array, r: Array) -> list[Array]:
    return [q @ r, np.abs(r)]


# Factorisations are unique up to signs only: what they must agree on.
INVARIANTS: dict[str, Callable[..., list[Array]]] = {
    "eigh": _of_eigh,
    "svd": _of_svd,
    "qr": _of_qr,
}


def assert_agree(
    op: str, results: list[Array], expected: list[Array], scale: float = 1.0, label: str = ""
) -> None:
    """Same types; floats within `scale` times their dtype's tolerance, all else equal."""
    for result, wanted in zip(results, expected, strict=True):
        assert (result.dtype, result.shape) == (wanted.dtype, wanted.shape), label or op
    if op in INVARIANTS:
        results, expected = INVARIANTS[op](*results), INVARIANTS[op](*expected)
    for result, wanted in zip(results, expected, strict=True):
        if wanted.dtype.name not in TOLERANCE:
            np.testing.assert_array_equal(result, wanted, err_msg=label or op)
            continue
        tolerance = scale * TOLERANCE[wanted.dtype.name]
        wide = np.complex128 if wanted.dtype.kind == "c" else np.float64
        np.testing.assert_allclose(
            result.astype(wide), wanted.astype(wide), tolerance, tolerance, err_msg=label or op
        )


def narrowed(sample: Sample, dtype: Any) -> Sample | None:
    """The sample with its float64 inputs in `dtype`; None if none or if sub-graphs fix types."""
    arrays = sample.arrays()
    if all(array.dtype != np.float64 for array in arrays):
        return None
    if any(isinstance(value, Graph) for value in sample.attrs.values()):
        return None
    with np.errstate(over="ignore"):
        cast = tuple(a.astype(dtype) if a.dtype == np.float64 else a for a in arrays)
    return replace(sample, build=lambda rng: cast)
