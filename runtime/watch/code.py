"""Which functions run while recording: a profile hook notes what their code reads beside attributes.

Of every Python function entered: the globals that its code names, its closure cells and defaults.
Of C functions: `print`, which runs only while recording; clocks, files and the operating system's
random bytes, which cannot be recorded.
"""

from __future__ import annotations

import builtins
import datetime
import dis
import functools
import gc
import importlib.util
import os
import sys
import time
import types
from collections.abc import Iterator
from typing import Any

from tracegrad.ir.loc import Loc
from tracegrad.runtime.watch.caches import Filling
from tracegrad.runtime.watch.effects import holds_traced
from tracegrad.runtime.watch.facts import Place
from tracegrad.runtime.watch.names import ASKS, globals_in, names_in, names_tried
from tracegrad.runtime.watch.pictures import ABSENT
from tracegrad.runtime.watch.sightings import (
    Sightings,
    is_library,
    is_user_class,
    top_module,
)
from tracegrad.tracer.errors import LeakedTensorError
from tracegrad.tracer.locate import here, is_own_code, start_of
from tracegrad.tracer.state import get_mode

_CLOCKS = frozenset({
    time.time, time.time_ns, time.perf_counter, time.perf_counter_ns, time.monotonic, time.monotonic_ns,
    time.process_time, time.process_time_ns, datetime.datetime.now, datetime.datetime.utcnow,
    datetime.datetime.today, datetime.date.today,
})  # fmt: skip
_FILES = frozenset({open, os.open, os.stat, os.listdir, os.scandir})
_WATCHED_IN_C = _CLOCKS | _FILES | {print, os.urandom}
# These open files for themselves: to import a module, to show a line in a warning, to log.
_READERS = frozenset({
    "importlib", "_frozen_importlib", "_frozen_importlib_external", "zipimport", "linecache", "warnings",
    "logging", "encodings", "locale", "inspect",
})  # fmt: skip
_FINALIZERS = frozenset({"weakref", "multiprocessing.util"})  # run when an object happens to die
_STAGES = tuple(
    f"tracegrad.{stage}." for stage in ("ir", "passes", "backends", "tracer", "runtime")
)
_ARRAY_LIBRARIES = frozenset({"numpy", "ml_dtypes", "optree", "jax"})
_COMPREHENSIONS = frozenset({"<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>", "<module>"})
_READ_ENVIRONMENT = frozenset(
    function.__code__ for name in ("getenv", "getenvb") if (function := getattr(os, name, None))
)
_OF_FUNC = (functools.partialmethod, functools.cached_property)  # with the function as `func`
_WRAPPERS = (staticmethod, classmethod, types.MethodType, *_OF_FUNC)
_IMPORT_MODULE = importlib.import_module.__code__
_IMPORT_NAME = dis.opmap["IMPORT_NAME"]


class CodeWatch:
    """The profile hook of one recording."""

    def __init__(self, sightings: Sightings):
        self.sightings = sightings
        self.noticed: list[str] = []  # effects outside the graph, for `why()`
        self._before: Any = None  # the profile hook that was there
        self._codes: set[types.CodeType] = set()
        # Which may find a name absent, with what they try to read (sightings.names_tried).
        self._asking: dict[types.CodeType, frozenset[tuple[str, str]]] = {}
        self._of_no_interest: set[types.CodeType] = set()  # functions of ours, met before
        self._entered: set[tuple] = set()  # (code, identities of its closure's values)
        self._inner: set[types.CodeType] = set()  # of functions that such code makes
        self._unresolved: set[types.CodeType] = set()
        self._imports: list[tuple[types.CodeType, list[str]]] = []  # by functions, of modules
        # What runs because the garbage collector happened to is no part of the function.
        self._collector_codes = {
            getattr(getattr(c, "__func__", c), "__code__", None) for c in gc.callbacks
        }
        self._skipped: types.FrameType | None = None  # runs now, with all it calls; not the user's
        self._filling: Filling | None = None  # what runs now fills a cache

    def start(self) -> None:
        self._before = sys.getprofile()
        sys.setprofile(self._hook())

    def stop(self) -> None:
        if self._before is None or callable(self._before):
            sys.setprofile(self._before)
        else:  # cProfile's, which only it can put back
            sys.setprofile(None)
            self._before.enable()

    def _hook(self) -> Any:
        """Runs at every call and return, hundreds of thousands of times: it asks as little as it can."""
        of_no_interest, watched = self._of_no_interest, _WATCHED_IN_C

        def hook(frame: types.FrameType, event: str, argument: Any) -> None:
            if event == "call":
                if frame.f_code not in of_no_interest and self._skipped is None:
                    self._called(frame)
            elif event == "c_call":
                if argument in watched and self._skipped is None:
                    self._called_c(frame, argument)
            elif frame is self._skipped and event == "return":
                self._skipped = None
                if self._filling is not None:
                    self._filled()

        return hook

    def _called_c(self, frame: types.FrameType, function: Any) -> None:
        if function is builtins.print:
            self.noticed.append(f"print() at {here()} runs only while recording")
        elif function is os.urandom:  # what a generator without a seed starts from
            self.sightings.complain(
                "random bytes of the operating system are used",
                "draw with tg.rand and the like, or pass the numbers in",
                "its numbers would be the same at every call",
            )
        elif function in _FILES:
            if _READERS.isdisjoint(modules_running(frame)):
                self.sightings.complain(
                    f"the file system is asked: {function.__name__}() is called",
                    "read and write files outside the compiled function",
                    "every call would go on with what the recording found",
                )
        elif not is_own_code(frame.f_code):
            self.sightings.complain(
                f"{function.__name__}() is called",
                "measure outside the compiled function",
                "the time of the recording would be used at every call",
            )

    def _called(self, frame: types.FrameType) -> None:
        code = frame.f_code
        module = frame.f_globals.get("__name__") or ""
        if code in self._collector_codes or (code.co_name == "__call__" and module in _FINALIZERS):
            self._skipped = frame
            return
        if module.startswith(_STAGES):
            self._of_no_interest.add(code)  # nor are the objects it makes: they are of the trace
            return
        if code.co_name == "__init__" and code.co_argcount:
            made = frame.f_locals.get(code.co_varnames[0])
            self.sightings.born[id(made)] = made
        if is_own_code(code):
            if code in _READ_ENVIRONMENT:  # os is frozen, so its code looks like ours
                self._add_globals(code, frame.f_globals)
            elif code.co_name != "__init__":
                self._of_no_interest.add(code)
            return
        if called_by_us(frame) or (code in self.sightings.cached and self._fills(frame)):
            self._skipped = frame
            return
        if code is _IMPORT_MODULE and frame.f_back is not None:
            name, package = frame.f_locals["name"], frame.f_locals["package"]
            parts = importlib.util.resolve_name(name, package).split(".")
            imported = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
            self._imports.append((frame.f_back.f_code, imported))
            self._add_imported(frame.f_back.f_code, imported)
        if code not in self._codes:
            self._codes.add(code)
            self._inner.update(c for c in code.co_consts if isinstance(c, types.CodeType))
            self._add_globals(code, frame.f_globals)
            tried = names_tried(code)
            if tried or not ASKS.isdisjoint(code.co_names):
                self._asking[code] = tried
        if code in self._asking:
            values = dict(frame.f_locals)
            if code.co_argcount:  # `getattr(type(self), ...)`
                values["__class__"] = type(values.get(code.co_varnames[0]))
            self.sightings.add_absent(code, frame.f_globals, values, self._asking[code])
        if code.co_name not in _COMPREHENSIONS:
            self._find_function(frame, code)

    def _fills(self, frame: types.FrameType) -> bool:
        """Run a cached function eagerly, unless it is given values of the graph."""
        trace = get_mode().trace
        if trace is None or holds_traced(frame.f_locals):
            return False
        self._filling = Filling(trace)
        return True

    def _filled(self) -> None:
        filling, self._filling = self._filling, None
        if filling is not None and not filling.end():
            self.sightings.complain(
                "a function under functools.lru_cache draws random numbers",
                "call it once before, or draw outside of it",
                "they would be drawn while recording only",
            )

    def explain(self, error: LeakedTensorError) -> None:
        """What a cached function was refused: a value that only the graph knows."""
        step = error.__traceback__
        while step is not None:
            if step.tb_frame.f_code in self.sightings.cached:
                self.sightings.complain(
                    f"{step.tb_frame.f_code.co_name}(), under functools.lru_cache, uses a value of this call",
                    "give it plain values only, or drop the cache",
                    "the cache would keep it for other calls",
                )
            step = step.tb_next

    def _add_globals(self, code: types.CodeType, namespace: dict[str, Any]) -> None:
        """Facts on the globals that a function's code names, also those of modules that it reads."""
        sightings = self.sightings
        values = [namespace.get(name) for name in names_in(code)]
        names = names_in(code, values)
        sightings.names |= names
        sightings.note_namespace("item", namespace)
        loc = start_of(code)
        for name in sorted(globals_in(code, values)):
            if name in namespace and not name.startswith("__"):
                value = namespace[name]
                sightings.add(Place("item", namespace, name), value, loc)
                if isinstance(value, types.ModuleType):
                    sightings.add_module(value, names, loc)
        imported = imported_modules(code, namespace)
        if imported:
            self._imports.append((code, imported))
            self._add_imported(code, imported)

    def _add_imported(self, code: types.CodeType, imported: list[str]) -> None:
        """Facts on what a function may read of the modules that it imports itself."""
        for name in imported:
            module = sys.modules.get(name)
            if isinstance(module, types.ModuleType):
                loc = start_of(code)
                self.sightings.add_module(module, names_in(code), loc)

    def _find_function(self, frame: types.FrameType, code: types.CodeType) -> None:
        """Find the function object that runs: its cells and defaults are not in the frame. Nor is what
        else a method reads, or one bound to arguments.
        """
        self._note_bound(frame, code)
        free = [name for name in code.co_freevars if name != "__class__"]
        if not free and not code.co_argcount and not code.co_kwonlyargcount:
            return
        values = frame.f_locals
        key = (code, *(id(values.get(name)) for name in free))
        if key in self._entered:
            return
        self._entered.add(key)
        candidates: list[Any] = [frame.f_globals.get(code.co_name)]
        if not has_code(candidates[0], code) and code.co_argcount:  # a method, then
            owner = values.get(code.co_varnames[0])
            kind = owner if isinstance(owner, type) else type(owner)
            methods = [cls.__dict__.get(code.co_name) for cls in kind.__mro__]
            candidates = [function for method in methods for function in functions_in(method)]
        for function in candidates:
            if has_code(function, code):
                self.sightings.add_function(function)
        for function in self.sightings.functions.get(code, ()):
            cells = dict(zip(code.co_freevars, function.__closure__ or ()))
            if all(
                Place("cell", cells[name], name).read() is values.get(name, ABSENT) for name in free
            ):
                return
        if code in self._inner or is_library(frame.f_globals.get("__name__")):
            self._unresolved.add(code)
        else:
            self._add_functions_of({code})

    def _note_bound(self, frame: types.FrameType, code: types.CodeType) -> None:
        """What the library calls, a hook say, may be a method of an object that nothing has led to, or a
        functools.partial: then what that holds was there before.
        """
        caller = frame.f_back
        if not code.co_argcount or caller is None or not is_own_code(caller.f_code):
            return
        if code.co_name == "__del__":  # that may happen anywhere
            return
        sightings = self.sightings
        owner = frame.f_locals.get(code.co_varnames[0])
        is_method = any(
            has_code(function, code)
            for cls in type(owner).__mro__ if is_user_class(cls)
            for method in (cls.__dict__.get(code.co_name),)
            for function in functions_in(method)
        )  # fmt: skip
        if is_method and id(owner) not in sightings.born and id(owner) not in sightings.opened:
            sightings.visit(owner)
        if "partial" in sightings.names:  # which the recording may have made itself
            return
        for value in caller.f_locals.values():
            while isinstance(value, functools.partial):
                for name in ("func", "args", "keywords"):
                    place = Place("attribute", value, name)
                    sightings.add(place, place.read(), start_of(code))
                value = value.func

    def _add_functions_of(self, codes: set[types.CodeType]) -> None:
        """For code whose function no name led to (a hook, one of a factory): all its functions. One
        look through the objects of the process for all of them.
        """
        for found in gc.get_referrers(*codes) if codes else ():
            if isinstance(found, types.FunctionType) and found.__code__ in codes:
                if found.__closure__ or found.__defaults__ or found.__kwdefaults__:
                    self.sightings.add_function(found)

    def resolve(self) -> None:
        """For functions that the recording may have made itself: what they hold. It is late for what
        was there before, but the function around them has that, too.

        And for modules that were imported while recording, or met as objects: what was read of them.
        """
        for code, imported in self._imports:
            self._add_imported(code, imported)
        self._add_functions_of(self._unresolved)
        for module in list(self.sightings.modules.values()):  # handed on, so any code may read them
            self.sightings.add_module(module, self.sightings.names, Loc(module.__name__, 0))


def modules_running(frame: types.FrameType | None) -> Iterator[str]:
    """The packages of the functions that run, from this one up to us."""
    while frame is not None and not str(frame.f_globals.get("__name__")).startswith(_STAGES):
        yield top_module(frame.f_globals.get("__name__"))
        frame = frame.f_back


def called_by_us(frame: types.FrameType) -> bool:
    """Whether tracegrad calls a library of arrays here, or the import system somebody's module: that
    runs once.
    """
    module = frame.f_globals.get("__name__") or ""
    caller = frame.f_back
    if caller is None:
        return False
    if caller.f_code.co_filename.startswith("<frozen importlib"):
        return True
    return module.partition(".")[0] in _ARRAY_LIBRARIES and is_own_code(caller.f_code)


def functions_in(value: Any) -> Iterator[Any]:
    """What a function, or one wrapped for a class or with arguments, runs."""
    if isinstance(value, property):
        yield from (value.fget, value.fset, value.fdel)
    else:
        while isinstance(value, _WRAPPERS):
            value = value.func if isinstance(value, _OF_FUNC) else value.__func__
        yield value


def has_code(function: Any, code: types.CodeType) -> bool:
    return isinstance(function, types.FunctionType) and function.__code__ is code


def imported_modules(code: types.CodeType, namespace: dict[str, Any]) -> list[str]:
    """Full names of the modules that a function's own code imports."""
    if _IMPORT_NAME not in code.co_code[::2]:
        return []
    found = []
    steps = list(dis.get_instructions(code))
    for level, wanted, step in zip(steps, steps[1:], steps[2:]):
        if step.opcode != _IMPORT_NAME:
            continue
        parts = step.argval.split(".") if step.argval else []
        if level.argval:  # from . import x
            package = (namespace.get("__package__") or "").split(".")
            parts = [*package[: len(package) - level.argval + 1], *parts]
        found += [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
        found += [".".join([*parts, name]) for name in wanted.argval or ()]
    return found
