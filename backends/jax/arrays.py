"""Arrays between NumPy and JAX. Importing this module imports no jax.

No NumPy memory that can still be written reaches XLA: it reads arguments asynchronously and without
a copy, so an array overwritten right after a call would give wrong results. What goes in is a
private copy; what comes out is a read-only view.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from tracegrad.backends.jax.errors import require_jax


def is_jax_array(value: Any) -> bool:
    """Whether `value` is a concrete or traced jax array; never imports jax."""
    jax = sys.modules.get("jax")
    return jax is not None and hasattr(jax, "Array") and isinstance(value, jax.Array)


def to_numpy(array: Any) -> np.ndarray[Any, np.dtype[Any]]:
    """A read-only NumPy view (on CPU without a copy). Waits, and raises pending hazards.

    Raises BackendError subclasses for what calls before this one found (an index out of range,
    say).
    """
    result = np.asarray(array)
    raise_pending()
    if result.flags.writeable:  # a host copy that jax made for us
        result.flags.writeable = False
    return result


def from_numpy(array: np.ndarray[Any, np.dtype[Any]], device: Any = None) -> Any:
    """A jax array of the same dtype (64-bit ones included) holding a private copy of `array`."""
    require_jax()
    import jax

    with jax.enable_x64(True):
        return jax.device_put(np.array(array, copy=True, order="C"), device)


def may_donate(array: Any, expected_refs: int) -> bool:
    """Whether the buffer may be given away: alive, with at most `expected_refs` references.

    `expected_refs` counts the caller's own references, the argument of this call not included. A
    donated buffer is deleted for every holder, so one reference more means someone else would lose
    it.
    """
    return _count(array) <= expected_refs + _COUNT_ADDS and is_live_jax_array(array)


def _count(array: Any) -> int:
    return sys.getrefcount(array)


def is_live_jax_array(value: Any) -> bool:
    """Whether `value` is a jax array that no call has been given."""
    return is_jax_array(value) and not value.is_deleted()


def may_donate_all(arrays: list[Any], expected_refs: int) -> bool:
    """Whether all of `arrays` are jax arrays with at most `expected_refs` references.

    `expected_refs` counts the list's own reference and whatever else the caller holds. Fast: one
    call for the states of a step (100 arrays: 6 us).
    """
    return max(map(sys.getrefcount, arrays), default=0) <= expected_refs + _MAP_ADDS and all(
        map(is_jax_array, {type(array): array for array in arrays}.values())
    )


def _calibrated() -> tuple[int, int]:
    """References that counting adds: in `_count` called from a frame, and in the map over a list.

    From Python 3.14 on a local variable lends its reference to a call; the smaller number, measured
    with one, errs on the side of not donating.
    """
    probe = object()
    outer = (lambda array: _count(array))(probe) - 1
    del probe
    return outer, max(map(sys.getrefcount, [object()])) - 1


_COUNT_ADDS, _MAP_ADDS = _calibrated()


def raise_pending() -> None:
    """Raise what compiled calls of this thread found wrong and nobody has read yet."""
    flags = sys.modules.get("tracegrad.backends.jax.flags")
    if flags is not None:
        flags.raise_pending()
