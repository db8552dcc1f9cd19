"""Functions whose result size depends on the values: eager only."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.backends.numpy.kernels.registry import is_bfloat16
from tracegrad.tracer.dispatch import user_op
from tracegrad.tracer.errors import ArgumentError
from tracegrad.tracer.locate import here


@user_op(eager_only="how many elements are nonzero decides the shape")
def nonzero_(input: Any, /) -> np.ndarray:
    """Indices of the nonzero elements, int64 [count, ndim]."""
    return np.stack(np.nonzero(np.atleast_1d(input)), axis=1).astype(np.int64)[:, : input.ndim]


def nonzero(input: Any, *, as_tuple: bool = False) -> Any:
    """Indices of the nonzero elements: int64 [count, ndim], or one vector per dimension."""
    if not as_tuple:
        return nonzero_(input)
    found = nonzero_(input if input.ndim else input.reshape(1))
    return tuple(found[:, k] for k in range(found.shape[1]))


def argwhere(input: Any) -> Any:
    """Indices of the nonzero elements, int64 [count, ndim]."""
    return nonzero_(input)


@user_op(eager_only="how many mask elements are true decides the shape", shown="masked_select")
def mask_positions(mask: Any, /) -> np.ndarray:
    """Flat indices of the true elements."""
    return np.flatnonzero(mask).astype(np.int64)


def masked_select(input: Any, mask: Any) -> Any:
    """The elements where mask is true, as a vector; differentiable."""
    if not mask.dtype.is_bool:
        raise ArgumentError(
            f"masked_select() needs a bool mask, not {mask.dtype}",
            where=here(),
            fix="compare: mask != 0",
        )
    shape = np.broadcast_shapes(tuple(input.shape), tuple(mask.shape))
    flat = mask_positions(mask.expand(*shape) if shape else mask)
    return input.expand(*shape).reshape(-1)[flat] if shape else input.reshape(-1)[flat]


@user_op(eager_only="how many values differ decides the shape")
def unique_(
    input: Any, /, *, dim: int | None, inverse: bool, counts: bool
) -> tuple[np.ndarray, ...]:
    """Distinct values in order, and on request where each element is among them and how often each
    occurs.
    """
    # NumPy sorts nan to the end for its own floats only.
    known = input.astype(np.float32) if is_bfloat16(input.dtype) else input
    result = np.unique(known, return_inverse=True, return_counts=True, axis=dim, equal_nan=False)
    places = result[1].reshape(input.shape if dim is None else -1)
    chosen = [result[0].astype(input.dtype, copy=False)]
    if inverse:
        chosen.append(places.astype(np.int64))
    if counts:
        chosen.append(result[2].astype(np.int64))
    return tuple(chosen)


def unique(
    input: Any,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """Distinct values in order (and inverse, counts on request)."""
    return unique_(input, dim=dim, inverse=return_inverse, counts=return_counts)


@user_op(eager_only="how many runs there are decides the shape")
def unique_consecutive_(input: Any, /, *, inverse: bool, counts: bool) -> tuple[np.ndarray, ...]:
    """The first of every run of equal elements of the flat tensor."""
    flat = input.reshape(-1)
    first = np.concatenate(([True], flat[1:] != flat[:-1])) if flat.size else np.zeros(0, bool)
    starts = np.flatnonzero(first)
    chosen = [flat[first]]
    if inverse:
        chosen.append((np.cumsum(first) - 1).astype(np.int64).reshape(input.shape))
    if counts:
        chosen.append(np.diff(np.append(starts, flat.size)).astype(np.int64))
    return tuple(chosen)


def unique_consecutive(
    input: Any, return_inverse: bool = False, return_counts: bool = False
) -> Any:
    """The first of every run of equal elements of the flat tensor (and inverse, counts on
    request).
    """
    return unique_consecutive_(input, inverse=return_inverse, counts=return_counts)


PLAIN = (nonzero, argwhere, masked_select, unique, unique_consecutive)
