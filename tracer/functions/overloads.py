"""PyTorch's functions of several meanings: max(x), max(x, dim), max(x, y)."""

from __future__ import annotations

from typing import Any

from tracegrad.tracer.functions import bounds, comparison, reductions, selecting, sorting


def _extreme(
    whole: Any, along: Any, pairwise: Any, input: Any, dim: Any, keepdim: bool, other: Any
) -> Any:
    if other is not None:
        return pairwise(input, other)
    if dim is None:
        return whole(input)
    return along(input, dim, keepdim) if isinstance(dim, int) else pairwise(input, dim)


def max(input: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """The largest element; along dim (values, indices); or the elementwise maximum with another
    tensor.
    """
    return _extreme(reductions.amax, reductions.max_dim, bounds.maximum, input, dim, keepdim, other)


def min(input: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """The smallest element; along dim (values, indices); or the elementwise minimum with another
    tensor.
    """
    return _extreme(reductions.amin, reductions.min_dim, bounds.minimum, input, dim, keepdim, other)


def median(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower median of all elements, or (values, indices) along dim."""
    return sorting.median_all(input) if dim is None else sorting.median_dim(input, dim, keepdim)


def nanmedian(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower median of what is not nan, or (values, indices) along dim."""
    return (
        sorting.nanmedian_all(input) if dim is None else sorting.nanmedian_dim(input, dim, keepdim)
    )


def where(condition: Any, input: Any = None, other: Any = None) -> Any:
    """input where condition, else other; with the condition alone, the indices of its true
    elements.
    """
    if input is None and other is None:
        return selecting.nonzero(condition, as_tuple=True)
    return comparison.where(condition, input, other)


def allclose(
    input: Any, other: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> bool:
    """Whether all elements are close."""
    return bool(reductions.all_(comparison.isclose(input, other, rtol, atol, equal_nan)))


def equal(input: Any, other: Any) -> bool:
    """Whether shapes and all elements are equal."""
    return bool(reductions.equal(input, other))


def max_pool(name: str) -> Any:
    """F.max_poolNd: with return_indices, (values, flat spatial indices)."""
    from tracegrad.tracer.functions import pooling

    plain, indexed = getattr(pooling, name), getattr(pooling, f"{name}_with_indices")

    def function(
        input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:  # fmt: skip
        chosen = indexed if return_indices else plain
        return chosen(input, kernel_size, stride, padding, dilation, ceil_mode)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = plain.__doc__
    return function


max_pool1d, max_pool2d, max_pool3d = (max_pool(f"max_pool{rank}d") for rank in (1, 2, 3))


PLAIN = (max, min, median, nanmedian, where, allclose, equal, max_pool1d, max_pool2d, max_pool3d)
