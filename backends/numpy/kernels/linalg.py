"""Factorisations and triangular solves. Batch dimensions lead; 16-bit floats work in float32."""

from __future__ import annotations

import numpy as np

from tracegrad.backends.base import LinAlgError
from tracegrad.backends.numpy.kernels.registry import Array, kernel, narrow, widen

NOT_DEFINITE = "the matrix is not positive definite"
NOT_FINITE = "the matrix holds an inf or nan, so the factorisation does not converge"


@kernel("cholesky")
def cholesky(x: Array) -> Array:
    """Lower L with L L^H = x, reading the lower triangle; LinAlgError if not positive definite."""
    try:
        lower = np.linalg.cholesky(widen(x))
    except np.linalg.LinAlgError:
        raise LinAlgError(NOT_DEFINITE) from None
    if not np.isfinite(np.diagonal(lower, axis1=-2, axis2=-1)).all():  # LAPACK lets nan pass
        raise LinAlgError(NOT_DEFINITE)
    return narrow(lower, x.dtype)


@kernel("triangular_solve")
def triangular_solve(
    a: Array, b: Array, lower: bool, transpose: bool, unit_diagonal: bool
) -> Array:
    """Solve a x = b (or a^T x = b) by substitution, reading one triangle of a; b is [.., n, k].

    A zero on the diagonal divides by zero: inf or nan, as LAPACK's trtrs in PyTorch and JAX.
    """
    matrix, out = widen(a), np.array(widen(b))
    if transpose:
        matrix, lower = np.swapaxes(matrix, -1, -2), not lower
    n = matrix.shape[-1]
    for step in range(n):
        row = step if lower else n - 1 - step
        known = slice(0, row) if lower else slice(row + 1, n)
        out[..., row, :] -= (matrix[..., row : row + 1, known] @ out[..., known, :])[..., 0, :]
        if not unit_diagonal:
            out[..., row, :] /= matrix[..., row, row, None]
    return narrow(out, b.dtype)


@kernel("lu")
def lu(x: Array) -> tuple[Array, Array]:
    """(packed, permutation): x[permutation] = L U with partial pivoting, for x [.., m, n].

    `packed` holds U on and above the diagonal and the unit lower L below it. A singular x gives a
    zero pivot, not an error.
    """
    m, n = x.shape[-2:]
    packed = np.array(widen(x)).reshape(-1, m, n)
    permutation = np.broadcast_to(np.arange(m, dtype=np.int64), (len(packed), m)).copy()
    batch = np.arange(len(packed))
    for step in range(min(m, n)):
        pivot = step + np.abs(packed[:, step:, step]).argmax(axis=1)
        for target in (packed, permutation):
            moved = target[batch, pivot].copy()
            target[batch, pivot] = target[:, step]
            target[:, step] = moved
        divisor = packed[:, step, step, None]
        packed[:, step + 1 :, step] /= np.where(divisor == 0, 1, divisor)
        column = packed[:, step + 1 :, step, None]
        packed[:, step + 1 :, step + 1 :] -= column * packed[:, None, step, step + 1 :]
    return narrow(packed.reshape(x.shape), x.dtype), permutation.reshape(x.shape[:-1])


@kernel("qr")
def qr(x: Array) -> tuple[Array, Array]:
    """Reduced: q [.., m, k], r [.., k, n], k = min(m, n)."""
    q, r = np.linalg.qr(widen(x))
    return narrow(q, x.dtype), narrow(r, x.dtype)


@kernel("eigh")
def eigh(x: Array) -> tuple[Array, Array]:
    """Ascending eigenvalues (real) and the columns of eigenvectors; reads the lower triangle."""
    if not np.isfinite(np.tril(x)).all():
        raise LinAlgError(NOT_FINITE)
    w, v = np.linalg.eigh(widen(x))
    return (w if x.dtype.kind == "c" else narrow(w, x.dtype)), narrow(v, x.dtype)


@kernel("svd")
def svd(x: Array) -> tuple[Array, Array, Array]:
    """Reduced: u, descending singular values (real), v^H."""
    if not np.isfinite(x).all():  # of an inf LAPACK may spin for ever
        raise LinAlgError(NOT_FINITE)
    u, s, vh = np.linalg.svd(widen(x), full_matrices=False)
    real = s if x.dtype.kind == "c" else narrow(s, x.dtype)
    return narrow(u, x.dtype), real, narrow(vh, x.dtype)
