"""From a running Python frame to a `Loc`: the innermost line that is not the library's own."""

from __future__ import annotations

import ctypes
import os
import sys
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from types import CodeType, FrameType
from typing import Any

import numpy

from tracegrad.ir.loc import Loc
from tracegrad.tracer.bytecode import asks_for_variables, may_catch

# A checkout and an installed package both keep the stages beside or inside one folder; tests and
# examples that happen to stand in the same checkout are user code.
_ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
_STAGES = ("tracer", "ir", "passes", "backends", "runtime", "tracegrad")
_PACKAGE = os.path.dirname(os.path.realpath(sys.modules["tracegrad"].__file__ or ""))
_OWN = tuple(
    f"{folder}{os.sep}" for folder in (*(f"{_ROOT}{os.sep}{s}" for s in _STAGES), _PACKAGE)
)

_NUMPY = os.path.dirname(numpy.__file__) + os.sep
# The standard library, and the folder of packages, which is elsewhere in a virtual environment.
_INSTALLED = tuple(
    os.path.dirname(file) + os.sep for file in (os.__file__, os.path.dirname(numpy.__file__))
)

_scope: ContextVar[tuple[str, ...]] = ContextVar("tracegrad_scope", default=())
# By names of files and functions: a code object as a key would live as long as the cache.
_locs: dict[tuple[str, int, str, tuple[str, ...]], Loc] = {}
_own_files: dict[str, bool] = {}
_OPTIMIZED = 0x1  # inspect.CO_OPTIMIZED: a function, whose variables stand in no dict
_DECORATORS = os.sep + "contextlib.py"  # what it decorates runs inside a `with`
_HELD_BY_FRAME_ALONE = 3  # references: the frame's, a variable's, the question's
_CACHE_SIZE = 50_000  # of each; a notebook has a file name of its own for every cell


def is_own_code(code: CodeType) -> bool:
    """Whether `code` is the library's (its frames are skipped in locations and errors)."""
    name = code.co_filename
    own = _own_files.get(name)
    if own is None:
        own = name.startswith(_OWN) and not name.endswith("demo.py")
        own = own or name.startswith(("<frozen", "<__array_function__", "<tracegrad"))
        own = own or os.sep + "contextlib.py" in name or os.sep + "functools.py" in name
        if len(_own_files) >= _CACHE_SIZE:
            _own_files.clear()
        _own_files[name] = own
    return own


def is_installed(code: CodeType) -> bool:
    """Whether `code` is of the standard library or of an installed package."""
    return code.co_filename.startswith(_INSTALLED)


def is_between(code: CodeType) -> bool:
    """Whether a line of it is none of the user's: the library's, and NumPy's, which asks a tensor for its
    values.
    """
    return is_own_code(code) or code.co_filename.startswith(_NUMPY)


def user_frame() -> FrameType | None:
    """The innermost frame of user code."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and is_between(frame.f_code):
        frame = frame.f_back
    return frame


def user_frames(outermost: int) -> Iterator[FrameType]:
    """The frames of user code inside that of this id, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and id(frame) != outermost:
        if not is_between(frame.f_code):
            yield frame
        frame = frame.f_back


def is_tried(outermost: int) -> bool:
    """Whether an error that is raised now may end in an `except` of the user's, in a frame inside that of
    this id.
    """
    frame = catching_frame(sys._getframe(1))
    while frame is not None and id(frame) != outermost:
        # An IndexError of `__getitem__` ends a loop over its object.
        if frame.f_code.co_name == "__getitem__" or may_catch(frame.f_code, frame.f_lasti):
            return True
        frame = catching_frame(frame.f_back)
    return False


def catching_frame(frame: FrameType | None) -> FrameType | None:
    """The innermost frame, from this one on, of user code or of a decorator of contextlib's."""
    while frame is not None:
        code = frame.f_code
        if not is_between(code) or code.co_filename.endswith(_DECORATORS):
            return frame
        frame = frame.f_back
    return None


def variables(frame: FrameType) -> dict[str, Any]:
    """The variables of a running function, by name; none of a module or class, and none where the
    function might notice that it is looked at.
    """
    code = frame.f_code
    if not code.co_flags & _OPTIMIZED or asks_for_variables(code):
        return {}
    found = frame.f_locals
    copied = dict(found)
    if sys.version_info < (3, 13) and sys.getrefcount(found) == _HELD_BY_FRAME_ALONE:
        # A snapshot that the frame keeps, renews when a profile hook runs, and writes back: it would
        # keep alive what the function lets go. So the frame forgets it, unless the user has it.
        ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))
        found.clear()
    return copied


def warn(message: str) -> None:
    """A UserWarning at the user's line."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and is_between(frame.f_code):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def here() -> Loc:
    """Where the user's program is now, with the module path being called."""
    frame = user_frame()
    if frame is None:
        return Loc("<library>", 0)
    return _line(frame.f_code, frame.f_lineno)


def raised_at(error: BaseException) -> Loc:
    """The innermost line that an error came through of neither ours nor what is installed."""
    found, step = Loc("<library>", 0), error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        if not is_own_code(code) and not is_installed(code):
            found = _line(code, step.tb_lineno)
        step = step.tb_next
    return found


def _line(code: CodeType, line: int) -> Loc:
    key = (code.co_filename, line, code.co_qualname, _scope.get())
    loc = _locs.get(key)
    if loc is None:
        if len(_locs) >= _CACHE_SIZE:
            _locs.clear()
        loc = _locs[key] = Loc(_shown(code), line, code.co_qualname, ".".join(key[3]))
    return loc


def start_of(code: CodeType) -> Loc:
    """Where a function begins."""
    return Loc(_shown(code), code.co_firstlineno, code.co_qualname)


def _shown(code: CodeType) -> str:
    """The path of its file, from the current folder if that is above."""
    try:
        relative = os.path.relpath(code.co_filename)
    except (ValueError, OSError):  # another drive; a current folder that is removed
        return code.co_filename
    return code.co_filename if relative.startswith("..") else relative


class scope:
    """Names the module being called: one push, one pop. Locations inside carry the dotted path."""

    __slots__ = ("name", "token")

    def __init__(self, name: str):
        self.name = name

    def __enter__(self) -> None:
        self.token = _scope.set((*_scope.get(), self.name) if self.name else _scope.get())

    def __exit__(self, *exception: object) -> None:
        _scope.reset(self.token)
