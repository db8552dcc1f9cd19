"""Linear algebra under `torch.linalg`'s names."""

from __future__ import annotations

from typing import Any, NamedTuple

from tracegrad.backends.base import LinAlgError
from tracegrad.names import public
from tracegrad.tracer.errors import ShapeError
from tracegrad.tracer.functions import FUNCTIONS

_NAMES = """
cholesky det eigh eigvalsh inv matmul matrix_norm matrix_power matrix_rank
multi_dot pinv qr slogdet solve solve_triangular svdvals vector_norm
""".split()
globals().update({name: FUNCTIONS[name] for name in _NAMES})

__all__ = [*_NAMES, "LinAlgError", "cross", "lstsq", "norm", "svd", "vander", "vecdot"]


def cross(input: Any, other: Any, *, dim: int = -1) -> Any:
    """The cross product of 3-vectors along dim (`tg.cross` looks for the dimension)."""
    return FUNCTIONS["cross"](input, other, dim)


class LeastSquares(NamedTuple):
    """What `lstsq` returns: the solution only."""

    solution: Any


def lstsq(A: Any, B: Any) -> LeastSquares:
    """X that minimises |A X - B|, for A[.., m, n] of full column rank n <= m."""
    return LeastSquares(FUNCTIONS["lstsq_solution"](A, B))


def norm(
    A: Any, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Any:
    """A vector norm, or a matrix norm where two dims (or a matrix and an order) are given."""
    matrix = isinstance(dim, (tuple, list)) and len(dim) == 2 or (dim is None and A.ndim == 2)
    if ord is not None and dim is None and A.ndim > 2:
        raise ShapeError(
            f"linalg.norm(ord={ord!r}) of a tensor of shape {list(A.shape)}",
            why="an order of vectors and one of matrices differ",
            fix="give dim: one dimension for vectors, two for matrices",
        )
    if ord is not None and matrix:
        dims = (-2, -1) if dim is None else tuple(dim)
        return FUNCTIONS["matrix_norm"](A, ord, dims, keepdim, dtype=dtype)
    order = 2 if ord is None else ord
    return FUNCTIONS["vector_norm"](A, order, dim, keepdim, dtype=dtype)


def svd(A: Any, full_matrices: bool = True) -> Any:
    """A = U diag(S) Vh, singular values descending; U and Vh square (full_matrices) or reduced."""
    return FUNCTIONS["svd_parts"](A, full_matrices=full_matrices)


def vander(x: Any, *, N: int | None = None) -> Any:
    """Powers 0 .. N - 1 of the elements as a last dimension (`tg.vander` has them descending)."""
    return FUNCTIONS["vander_increasing"](x, N=N)


def vecdot(x: Any, y: Any, *, dim: int = -1) -> Any:
    """Sums of products along dim, of broadcast tensors, the first conjugated."""
    return (x.conj() * y).sum(dim)


public(__name__)
