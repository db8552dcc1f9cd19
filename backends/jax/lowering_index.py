"""Gathers, scatters, sorting in jax.lax.

Note [Indices out of range] Indices are in [0, n): the tracer wraps negative ones. XLA cannot raise
inside a program, so a gather out of range yields nan (floats) or the nearest element (integers), a
scatter drops the update, and the program returns a code that raises at the next synchronisation
(flags.py).
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.lax import GatherDimensionNumbers, GatherScatterMode, ScatterDimensionNumbers

from tracegrad.backends.jax.lowering_elementwise import Lowering, is_bool, is_complex, is_float

Ints = tuple[int, ...]
DROP = GatherScatterMode.FILL_OR_DROP


def _gather(x: Any, starts: Any, numbers: GatherDimensionNumbers, sizes: Ints) -> Any:
    if is_float(x) or is_complex(x):
        return lax.gather(x, starts, numbers, sizes, mode=DROP, fill_value=np.nan)
    return lax.gather(x, starts, numbers, sizes, mode=GatherScatterMode.CLIP)


_SCATTER = {
    "set": lax.scatter, "add": lax.scatter_add, "mul": lax.scatter_mul,
    "max": lax.scatter_max, "min": lax.scatter_min,
}  # fmt: skip
_BOOL_MODE = {"add": "max", "mul": "min"}  # on bool: add = or, mul = and


def _scatter(x: Any, starts: Any, u: Any, numbers: ScatterDimensionNumbers, mode: str) -> Any:
    if is_bool(x) and mode != "set":
        bytes_ = _scatter(x.astype(np.uint8), starts, u.astype(np.uint8), numbers,
                          _BOOL_MODE.get(mode, mode))  # fmt: skip
        return lax.ne(bytes_, jnp.zeros_like(bytes_))
    return _SCATTER[mode](x, starts, u, numbers, mode=DROP)


def _stacked(indices: tuple[Any, ...]) -> Any:
    """Indices as XLA wants them: one tensor, the coordinates along a new last axis."""
    return lax.concatenate([lax.expand_dims(index, (index.ndim,)) for index in indices],
                           indices[0].ndim)  # fmt: skip


def gather(x: Any, *indices: Any, axes: Ints) -> Any:
    """x[S..., k] -> S + remaining axes."""
    rank = indices[0].ndim
    numbers = GatherDimensionNumbers(
        offset_dims=tuple(range(rank, rank + x.ndim - len(axes))),
        collapsed_slice_dims=axes,
        start_index_map=axes,
    )
    sizes = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    if 0 in indices[0].shape or 0 in x.shape:
        rest = tuple(size for axis, size in enumerate(x.shape) if axis not in axes)
        return jnp.full((*indices[0].shape, *rest), np.nan if is_float(x) else 0, x.dtype)
    return _gather(x, _stacked(indices), numbers, sizes)


def scatter(x: Any, *indices_and_updates: Any, axes: Ints, mode: str) -> Any:
    *indices, u = indices_and_updates
    if 0 in u.shape or 0 in x.shape:
        return x
    rank = indices[0].ndim
    numbers = ScatterDimensionNumbers(
        update_window_dims=tuple(range(rank, u.ndim)),
        inserted_window_dims=axes,
        scatter_dims_to_operand_dims=axes,
    )
    return _scatter(x, _stacked(tuple(indices)), u, numbers, mode)


def _leading(x: Any, index: Any, axis: int) -> Any:
    """x cut to the index's extent on the other axes (torch.gather allows a smaller index)."""
    limits = [n if k == axis else m for k, (n, m) in enumerate(zip(x.shape, index.shape))]
    return x if list(x.shape) == limits else lax.slice(x, [0] * x.ndim, limits)


def take_along(x: Any, index: Any, *, axis: int) -> Any:
    if 0 in index.shape or 0 in x.shape:
        return jnp.full(index.shape, np.nan if is_float(x) else 0, x.dtype)
    others = tuple(k for k in range(x.ndim) if k != axis)
    numbers = GatherDimensionNumbers(
        offset_dims=(),
        collapsed_slice_dims=(axis,),
        start_index_map=(axis,),
        operand_batching_dims=others,
        start_indices_batching_dims=others,
    )
    return _gather(_leading(x, index, axis), _stacked((index,)), numbers, (1,) * x.ndim)


def scatter_along(x: Any, index: Any, u: Any, *, axis: int, mode: str) -> Any:
    if 0 in index.shape or 0 in x.shape:
        return x
    others = tuple(k for k in range(x.ndim) if k != axis)
    numbers = ScatterDimensionNumbers(
        update_window_dims=(),
        inserted_window_dims=(axis,),
        scatter_dims_to_operand_dims=(axis,),
        operand_batching_dims=others,
        scatter_indices_batching_dims=others,
    )
    part = _leading(x, index, axis)
    written = _scatter(part, _stacked((index,)), u, numbers, mode)
    if part.shape == x.shape:
        return written
    return lax.dynamic_update_slice(x, written, [np.int64(0)] * x.ndim)


def argsort(x: Any, *, axis: int, descending: bool) -> Any:
    """Stable, nan last. Descending: sort the reversed axis, reverse that; ties keep order."""
    key = lax.rev(x, (axis,)) if descending else x
    positions = lax.broadcasted_iota(np.int64, x.shape, axis)
    _, order = lax.sort((key, positions), dimension=axis, is_stable=True, num_keys=1)
    if not descending:
        return order
    return lax.sub(jnp.full_like(order, x.shape[axis] - 1), lax.rev(order, (axis,)))


def argmax(x: Any, *, axis: int) -> Any:
    return lax.argmax(x.astype(np.uint8) if is_bool(x) else x, axis, np.int64)


def argmin(x: Any, *, axis: int) -> Any:
    return lax.argmin(x.astype(np.uint8) if is_bool(x) else x, axis, np.int64)


LOWERINGS: dict[str, Lowering] = {
    "gather": gather, "scatter": scatter, "take_along": take_along,
    "scatter_along": scatter_along, "argsort": argsort, "argmax": argmax, "argmin": argmin,
}  # fmt: skip
