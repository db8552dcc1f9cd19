"""NumPy's own OpenBLAS: how many threads its GEMMs use, set in under a microsecond.

The setting is process-wide, so one lock guards every region that lowers it. Where the library
cannot be found (MKL, Accelerate, a system BLAS) everything here quietly does nothing.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np

_region = threading.RLock()


@cache
def _functions() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """(get, set) of the number of threads, or None."""
    from pathlib import Path

    package = Path(np.__file__).parent
    folders = (package.parent / "numpy.libs", package / ".dylibs", package / ".libs")
    for folder in folders:
        for path in sorted(folder.glob("*openblas*")):
            try:
                library = ctypes.CDLL(str(path))  # already loaded by NumPy: the same copy
            except OSError:
                continue
            for prefix in ("scipy_openblas", "openblas"):
                for suffix in ("64_", ""):
                    getter = getattr(library, f"{prefix}_get_num_threads{suffix}", None)
                    setter = getattr(library, f"{prefix}_set_num_threads{suffix}", None)
                    if getter is not None and setter is not None:
                        getter.restype, getter.argtypes = ctypes.c_int, []
                        setter.restype, setter.argtypes = None, [ctypes.c_int]
                        return getter, setter
    return None


def available() -> bool:
    """Whether the number of BLAS threads can be read and set."""
    return _functions() is not None


def get_num_threads() -> int | None:
    """Threads of a GEMM now; None where unknown."""
    functions = _functions()
    return functions[0]() if functions else None


def set_num_threads(count: int) -> None:
    """Let every later GEMM of the process use `count` threads; nothing where unknown."""
    functions = _functions()
    if functions:
        with _region:
            functions[1](count)


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """GEMMs inside use one thread, so that our own threads may each run one; then restored.

    Regions of other threads wait: two regions that interleaved would restore each other's 1.
    """
    functions = _functions()
    if functions is None:
        yield
        return
    getter, setter = functions
    with _region:
        before = getter()
        setter(1)
        try:
            yield
        finally:
            setter(before)
