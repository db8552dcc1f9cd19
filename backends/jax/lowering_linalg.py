"""Factorisations in jax.lax.linalg; leading axes are batch axes.

Where a factorisation does not exist XLA answers nan: a program on an accelerator cannot stop. What
the NumPy kernels raise for is raised at the next synchronisation (`flags.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jax import lax

from tracegrad.backends.jax.lowering_elementwise import Lowering


def cholesky(x: Any) -> Any:
    return lax.linalg.cholesky(x, symmetrize_input=False)


def triangular_solve(a: Any, b: Any, *, lower: bool, transpose: bool, unit_diagonal: bool) -> Any:
    """x with a x = b (or a^T x = b)."""
    return lax.linalg.triangular_solve(
        a, b, left_side=True, lower=lower, transpose_a=transpose, unit_diagonal=unit_diagonal
    )


def qr(x: Any) -> tuple[Any, Any]:
    q, r = lax.linalg.qr(x, full_matrices=False)
    return q, r


def eigh(x: Any) -> tuple[Any, Any]:
    vectors, values = lax.linalg.eigh(x, lower=True, symmetrize_input=False)
    return values, vectors


def svd(x: Any) -> tuple[Any, Any, Any]:
    finite = lax.select(lax.is_finite(x), x, lax.full_like(x, np.nan))  # of an inf LAPACK may spin
    u, s, vh = lax.linalg.svd(finite, full_matrices=False)
    return u, s, vh


def lu(x: Any) -> tuple[Any, Any]:
    packed, _, permutation = lax.linalg.lu(x)
    return packed, lax.convert_element_type(permutation, np.int64)


LOWERINGS: dict[str, Lowering] = {
    "cholesky": cholesky, "triangular_solve": triangular_solve, "qr": qr, "eigh": eigh,
    "svd": svd, "lu": lu,
}  # fmt: skip
