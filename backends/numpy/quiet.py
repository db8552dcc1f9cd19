"""NumPy without floating-point warnings, cheaply, and without touching the user's error state.

PyTorch computes inf and nan silently. `np.errstate` costs 0.7 us a use; setting the context
variable it is made of costs 0.1. Where a NumPy release hides that variable, `np.errstate` is used.
It reaches the current thread only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np


def _make() -> tuple[Callable[[], Any], Callable[[Any], None]]:
    try:
        from numpy._core.umath import _extobj_contextvar, _make_extobj
    except ImportError:  # another NumPy: the public, slower way

        def enter_public() -> Any:
            manager = np.errstate(all="ignore")
            manager.__enter__()
            return manager

        return enter_public, lambda manager: manager.__exit__(None, None, None)

    silent = _make_extobj(all="ignore")
    return partial(_extobj_contextvar.set, silent), _extobj_contextvar.reset


enter, leave = _make()
