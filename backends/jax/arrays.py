"""Arrays between NumPy and JAX. Importing this module imports no jax.

No NumPy memory that can still be written reaches XLA: it reads arguments asynchronously and without
a copy, so an array overwritten right after a call would give wrong results. What goes in is a
private copy; what comes out is a read-only view.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
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


def may_donate(arrays: Sequence[Any], expected_refs: int) -> bool:
    """Whether the buffers may be given away: no array has more than `expected_refs` references.

    `expected_refs` counts the sequence's own reference and whatever else the caller holds. A donated
    buffer is deleted for every holder, so one reference more means someone else would lose it. Fast:
    one call for the states of a step (100 arrays: 3 us).
    """
    return max(map(sys.getrefcount, arrays), default=0) <= expected_refs + _MAP_ADDS


# References that the map itself adds.
_MAP_ADDS = max(map(sys.getrefcount, [object()])) - 1


def raise_pending() -> None:
    """Raise what compiled calls of this thread found wrong and nobody has read yet."""
    flags = sys.modules.get("tracegrad.backends.jax.flags")
    if flags is not None:
        flags.raise_pending()
