"""NumPy's own OpenBLAS: how many threads its GEMMs use, set in under a microsecond, and the form of
them that NumPy does not offer: a product added to a matrix.

The number of threads is process-wide, so regions that hold it at one are counted: the first to enter
lowers it, the last to leave puts it back. Where the library cannot be found (MKL, Accelerate, a
system BLAS) the setting quietly does nothing, and there are no such products.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np

_counting = threading.RLock()
_holders = 0  # regions that hold BLAS at one thread
_wanted = 1  # what the last of them puts back


def _libraries() -> Iterator[ctypes.CDLL]:
    from pathlib import Path

    package = Path(np.__file__).parent
    folders = (package.parent / "numpy.libs", package / ".dylibs", package / ".libs")
    for folder in folders:
        for path in sorted(folder.glob("*openblas*")):
            try:
                yield ctypes.CDLL(str(path))  # already loaded by NumPy: the same copy
            except OSError:
                continue


@cache
def _functions() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """(get, set) of the number of threads, or None."""
    for library in _libraries():
        for prefix in ("scipy_openblas", "openblas"):
            for suffix in ("64_", ""):
                getter = getattr(library, f"{prefix}_get_num_threads{suffix}", None)
                setter = getattr(library, f"{prefix}_set_num_threads{suffix}", None)
                if getter is not None and setter is not None:
                    getter.restype, getter.argtypes = ctypes.c_int, []
                    setter.restype, setter.argtypes = None, [ctypes.c_int]
                    return getter, setter
    return None


@cache
def gemms() -> dict[str, Callable[..., None]]:
    """cblas_sgemm and cblas_dgemm by the character of their dtype; none where unknown.

    Only those whose name says that their sizes have 64 bits.
    """
    size, flag, address = ctypes.c_int64, ctypes.c_int, ctypes.c_void_p
    found: dict[str, Callable[..., None]] = {}
    for library in _libraries():
        for char, number in (("f", ctypes.c_float), ("d", ctypes.c_double)):
            letter = {"f": "s", "d": "d"}[char]
            for prefix in ("scipy_", ""):
                function = getattr(library, f"{prefix}cblas_{letter}gemm64_", None)
                if function is not None:
                    function.restype = None
                    function.argtypes = [
                        flag, flag, flag, size, size, size, number, address, size, address, size,
                        number, address, size,
                    ]  # fmt: skip
                    found.setdefault(char, function)
    return found


def available() -> bool:
    """Whether the number of BLAS threads can be read and set."""
    return _functions() is not None


def get_num_threads() -> int | None:
    """Threads of a GEMM now; None where unknown."""
    functions = _functions()
    return functions[0]() if functions else None


def set_num_threads(count: int) -> None:
    """Let every later GEMM of the process use `count` threads; nothing where unknown.

    While BLAS is held at one, from the end of that on.
    """
    global _wanted
    functions = _functions()
    if functions:
        with _counting:
            _wanted = count
            if not _holders:
                functions[1](count)


def hold() -> None:
    """GEMMs use one thread until the matching `release`, so that our own threads may each run one.

    Those of other Python threads too: the setting is the process's.
    """
    global _holders, _wanted
    functions = _functions()
    if functions:
        getter, setter = functions
        with _counting:
            _holders += 1  # first: a finaliser may come here in the middle
            if _holders == 1:
                _wanted = getter()
                setter(1)


def release() -> None:
    """End what `hold` began."""
    global _holders
    functions = _functions()
    if functions:
        with _counting:
            if _holders == 1:
                functions[1](_wanted)
            _holders = max(_holders - 1, 0)  # 0 already: in a forked child, see `_forget`


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """`hold` and `release` around a block."""
    hold()
    try:
        yield
    finally:
        release()


def _forget() -> None:
    """A forked child has one thread, and BLAS is not held there, in whatever region it was made."""
    global _holders, _counting
    _counting = threading.RLock()
    if _holders:
        _holders = 0
        set_num_threads(_wanted)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
