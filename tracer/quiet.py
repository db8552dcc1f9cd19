"""Run NumPy without floating-point warnings, cheaply, and without touching the user's error state.

PyTorch computes inf and nan silently. `np.errstate` costs 0.7 us an op; setting the context
variable it is made of costs 0.1. Where a NumPy release hides that variable, `np.errstate` is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def _make() -> tuple[Callable[[], Any], Callable[[Any], None]]:
    try:
        from numpy._core.umath import _extobj_contextvar as variable
        from numpy._core.umath import _make_extobj as make

        silent = make(all="ignore")
    except (ImportError, TypeError):  # another NumPy: the public, slower way

        def enter_public() -> Any:
            manager = np.errstate(all="ignore")
            manager.__enter__()
            return manager

        def leave_public(manager: Any) -> None:
            manager.__exit__(None, None, None)

        return enter_public, leave_public

    set_, reset = variable.set, variable.reset
    return lambda: set_(silent), reset


enter, leave = _make()
