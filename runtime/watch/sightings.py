"""What a recording has met: which Python values were there before it, and the facts about them.

A fact says where a value is and what it was at first sight (facts.py). Looking at a value leads to
the values it holds: a function to its closure and defaults, an object to its class.
"""

from __future__ import annotations

import builtins
import enum
import functools
import gc
import inspect
import io
import operator
import random
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np

from tracegrad.ir.loc import Loc
from tracegrad.runtime.reports.inspection import Inspection
from tracegrad.runtime.watch.facts import CallFact, Fact, HostFact, ItemFact, Place
from tracegrad.runtime.watch.names import ASKS, names_in
from tracegrad.runtime.watch.pictures import ABSENT, HEAP_TYPE, Picture, TooLargeError
from tracegrad.tracer.errors import UnsupportedError
from tracegrad.tracer.locate import is_own_code, start_of
from tracegrad.tracer.observed import Observed, Record
from tracegrad.tracer.tensor import Tensor

_LIBRARIES = frozenset(
    {"tracegrad", "numpy", "jax", "jaxlib", "optree", "ml_dtypes", "builtins", "torch"}
)
# Libraries in Python whose objects are containers and flags: their attributes are watched.
_PLAIN_LIBRARIES = frozenset(
    {
        "collections",
        "concurrent",
        "configparser",
        "contextlib",
        "threading",
        "queue",
        "weakref",
        "_weakrefset",
        "multiprocessing",
    }
)
_MAKE_CLASSES = frozenset({"abc", "types", "typing", "unittest"})
# What their objects say depends on others; they are made in C, so no attribute tells.
_CONVERSING = frozenset({"_queue", "_socket", "socket", "sqlite3", "_sqlite3", "subprocess"})
_RANDOM = (random.Random, np.random.Generator, np.random.RandomState)
_FILES = (io.FileIO, io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.TextIOWrapper)
ATTRIBUTE_HOOKS = ("__getattribute__", "__setattr__")  # installed by attributes.py


def top_module(name: object) -> str:
    """The first part of a module's name; "" for a class made in C: Cython's have a descriptor here."""
    return name.partition(".")[0] if isinstance(name, str) else ""


def is_library(name: object) -> bool:
    """Whether the module of this name has classes and globals that are not the user's."""
    top = top_module(name)
    return not top or top in _LIBRARIES or top in sys.stdlib_module_names


def is_user_class(kind: type) -> bool:
    return (
        bool(kind.__flags__ & HEAP_TYPE)
        and (not is_library(kind.__module__) or issubclass(kind, Record) or made_by_a_call(kind))
        and not issubclass(kind, enum.Enum)
    )


def made_by_a_call(kind: type) -> bool:
    """Whether `make_dataclass`, `types.new_class`, an ABCMeta or a Mock has made a class, which then names
    the module of that call.
    """
    module: Any = sys.modules.get(kind.__module__)
    return (
        top_module(kind.__module__) in _MAKE_CLASSES
        and getattr(module, kind.__qualname__, None) is not kind
    )


def has_own_reads(kind: type) -> bool:
    """Whether a class has a `__getattribute__` of the user's: what it reads cannot be watched."""
    code = getattr(kind.__getattribute__, "__code__", None)
    return code is not None and not is_own_code(code)


class Sightings:
    """What one recording has met.

    hook     told of every user class met: its instances' attributes are to be watched
    facts    in the order of sight
    outside  objects that were there before, by id; kept alive, so that ids stay theirs
    born     objects made while recording, by id, kept alive
    tensors  those met in places, whether or not the graph uses them
    met      ids of all values met so, arguments that lie in such a place too among them
    opened   ids of containers among the arguments that are known by their content
    names    all that the code run so far mentions
    modules  of the user's, met as objects, by id
    cached   functions under functools.lru_cache, by the code that fills their caches
    """

    def __init__(self, hook: Callable[[type], None]):
        self.hook = hook
        self.facts: list[Fact | CallFact | ItemFact | HostFact] = []
        self.outside: dict[int, Any] = {}
        self.born: dict[int, Any] = {}
        self.tensors: list[Tensor] = []
        self.met: set[int] = set()
        self.opened: set[int] = set()
        self.names: set[str] = set()
        self.modules: dict[int, types.ModuleType] = {}
        self.functions: dict[types.CodeType, list[types.FunctionType]] = {}
        self.cached: dict[types.CodeType, functools._lru_cache_wrapper] = {}
        self.complaint: UnsupportedError | None = None
        self._seen: set[tuple] = set()  # keys of places, and modules with the names read of them
        self._classes: set[type] = set()
        # What the namespaces of objects, functions, classes and modules held at first sight, by the
        # id of their holder: (kind of place, holder, names with values).
        self._namespaces: dict[int, tuple[str, Any, dict[str, Any]]] = {}

    def add(
        self, place: Place, value: Any, loc: Loc, of_metadata: bool = False, of_attribute: bool = False
    ) -> None:  # fmt: skip
        """A fact: `place` holds `value`. Only the first sight of a place counts."""
        if place.key in self._seen:
            return
        self._seen.add(place.key)
        value = self.held(place, value)
        self.outside.setdefault(id(place.holder), place.holder)
        snapshot = self.picture(place.name, value)
        self.facts.append(Fact(place, value, snapshot, loc, of_metadata, of_attribute))

    def has_seen(self, key: tuple) -> bool:
        return key in self._seen

    def held(self, place: Place, now: Any) -> Any:
        """What a place held before the recording. A write that no hook saw may have come between,
        such as `functools.cached_property` does: then it is what its namespace held at first sight.
        """
        known = self._namespaces.get(id(place.holder))
        # A dict may be an object and hold its own fields: its attributes are no items of it.
        if known is None or known[0] != place.kind:
            return now
        return known[2].get(place.name, ABSENT)

    def note_namespace(self, kind: str, holder: Any) -> None:
        """Remember what the places of this kind in `holder` hold now, to notice every write."""
        if id(holder) not in self._namespaces:
            self._namespaces[id(holder)] = (kind, holder, dict(names_of(kind, holder)))

    def changed_unseen(self) -> Iterator[tuple[Place, Any]]:
        """Places that were written, or deleted, past all hooks, with what they held."""
        for kind, holder, before in self._namespaces.values():
            now = names_of(kind, holder)
            if not same_content(before, now):
                names = self.names & (before.keys() | now.keys())
                for name in names.difference(ATTRIBUTE_HOOKS):
                    place, held = Place(kind, holder, name), before.get(name, ABSENT)
                    if place.key not in self._seen and place.read() is not held:
                        yield place, held

    def written(self, place: Place) -> None:
        """What is read from `place` from now on was written by the recording itself."""
        self._seen.add(place.key)
        self.born.setdefault(id(place.holder), place.holder)

    def picture(self, name: str, value: Any) -> tuple:
        """A snapshot of the value's content, to compare with later; values met in it are visited."""
        try:
            return Picture(self.visit).take(value)
        except TooLargeError:
            self.complain(
                f"{name} is too large to be compared at every call",
                "pass what is needed of it as a tensor or a number",
                "a change in it would go unnoticed",
            )
            raise

    def complain(self, what: str, fix: str, why: str, where: Loc | None = None) -> NoReturn:
        """Raise UnsupportedError; again at the end, should the function swallow it."""
        if self.complaint is None:
            self.complaint = UnsupportedError(what, where=where, why=why, fix=fix)
        raise self.complaint

    def visit(self, value: Any) -> None:
        """A value that a fact compares by identity: what it holds is watched too."""
        self.met.add(id(value))
        if isinstance(value, types.ModuleType):
            if not is_library(value.__name__):
                self.note_namespace("item", value.__dict__)
                self.modules.setdefault(id(value), value)
            return
        if value is None or id(value) in self.outside:
            return
        if isinstance(value, Tensor):
            self.outside[id(value)] = value
            self.tensors.append(value)
            return
        if isinstance(value, types.FunctionType):
            self.outside[id(value)] = value
            self.add_function(value)
        elif isinstance(value, types.MethodType):
            self.visit(value.__self__)
            self.visit(value.__func__)
        elif isinstance(value, (staticmethod, classmethod)):
            self.visit(value.__func__)
        elif isinstance(value, property):
            self.visit(value.fget)
            self.visit(value.fset)
        elif isinstance(value, type):
            self.outside[id(value)] = value
            self.add_class(value)
        elif isinstance(value, functools._lru_cache_wrapper):
            self.outside[id(value)] = value
            self.visit(value.__wrapped__)
            if code := getattr(inspect.unwrap(value), "__code__", None):
                self.cached[code] = value
            for inner in gc.get_referents(*gc.get_referents(value)):  # what it will return unasked
                if is_user_class(type(inner)):
                    self.visit(inner)
        elif isinstance(value, _RANDOM):
            self.complain(
                "a random generator of Python or NumPy is used",
                "draw with tg.rand and the like, or pass the numbers in",
                "its numbers would be the same at every call",
            )
        elif isinstance(value, Iterator) and not isinstance(value, io.IOBase):
            self.complain(
                "an iterator from outside is used",
                "take the batch outside and pass it in",
                "a compiled function cannot advance it",
            )
        elif isinstance(value, _FILES) and isinstance(getattr(value, "name", 0), str | bytes):
            if value.name not in ("<stdin>", "<stdout>", "<stderr>"):
                self.complain(
                    "an open file is used",
                    "read and write it outside the compiled function",
                    "what is read would be the same at every call, and what is written would be lost",
                )
        elif top_module(type(value).__module__) in _CONVERSING:
            self.complain(
                f"a {type(value).__module__.lstrip('_')}.{type(value).__name__} from outside is used",
                "talk to it outside the compiled function, and pass in what it said",
                "every call would go on with what the recording was told",
            )
        elif isinstance(value, Inspection):  # a compiled function
            self.visit(value.function)
        else:
            self.outside[id(value)] = value
            kind = type(value)
            self.add_class(kind)
            fields = fields_of(value)
            if fields is not None and (is_user_class(kind) or isinstance(value, Observed)):
                self.note_namespace("item", fields)
            if is_user_class(kind):
                loc = _in_class(kind)
                if getattr(value, "__class__", None) is kind:  # it may say that it is another
                    self.add(Place("attribute", value, "__class__"), kind, loc)
                if has_own_reads(kind) and hasattr(value, "__dict__"):
                    self.add(Place("attribute", value, "__dict__"), vars(value), loc)
            elif top_module(kind.__module__) in _PLAIN_LIBRARIES:
                self.hook(kind)

    # -- what classes, functions and modules hold ------------------------------------------------

    def add_class(self, kind: type) -> None:
        """Facts on the contents of the user's classes, and hooks on their instances' attributes."""
        if kind in self._classes:
            return
        self._classes.add(kind)
        metaclass: type = type(kind)
        for cls in (*kind.__mro__, *metaclass.__mro__):
            if is_user_class(cls) and (cls is kind or cls not in self._classes):
                self._classes.add(cls)
                self.note_namespace("class", cls)
                loc = _in_class(cls)
                for name, value in list(cls.__dict__.items()):
                    special = name.startswith("__") and name.endswith("__")
                    if not special or (callable(value) and name not in ATTRIBUTE_HOOKS):
                        self.add(Place("class", cls, name), value, loc)
        if is_user_class(kind):
            self.hook(kind)

    def add_function(self, function: types.FunctionType) -> None:
        """Facts on a function's closure cells and defaults."""
        code = function.__code__
        known = self.functions.setdefault(code, [])
        if any(function is other for other in known):
            return
        known.append(function)
        loc = start_of(code)
        cells = [
            (Place("cell", cell, name), name)
            for name, cell in zip(code.co_freevars, function.__closure__ or ())
        ]
        if is_own_code(code):
            for place, name in cells:
                if name in ("dispatch", "registry"):  # of functools.singledispatch
                    self.add(place, place.read(), loc)
            self.visit(getattr(function, "__wrapped__", None))  # by a decorator
            return
        values = [place.read() for place, _ in cells]
        names = names_in(code, values)
        for (place, _), value in zip(cells, values):
            self.add(place, value, loc)
            if isinstance(value, types.ModuleType):
                self.add_module(value, names, loc)
        self.add(Place("attribute", function, "__code__"), code, loc)
        for name in ("__defaults__", "__kwdefaults__"):
            if value := getattr(function, name):
                self.add(Place("attribute", function, name), value, loc)
        self.note_namespace("item", function.__dict__)
        for name, value in function.__dict__.items():
            self.add(Place("item", function.__dict__, name), value, loc)

    def add_module(self, module: types.ModuleType, names: set[str], loc: Loc) -> None:
        """Facts on those of a module's globals that a function's code names."""
        fields, key = module.__dict__, ("module", id(module), frozenset(names))
        if key in self._seen:  # modules that name each other
            return
        self._seen.add(key)
        if is_library(module.__name__):
            if module.__name__ == "os" and "environ" in names:
                self.add(Place("item", fields, "environ"), fields["environ"], loc)
            if module is sys and "modules" in names:
                for name in sorted(names & sys.modules.keys()):
                    self.add_module(sys.modules[name], names, loc)
            return
        self.note_namespace("item", fields)
        for name in sorted(names & fields.keys()):
            self.add(Place("item", fields, name), fields[name], loc)
            if isinstance(fields[name], types.ModuleType) and fields[name] is not module:
                self.add_module(fields[name], names, loc)

    def add_absent(
        self, code: types.CodeType, namespace: dict[str, Any], values: dict[str, Any],
        tried: frozenset[tuple[str, str]],
    ) -> None:  # fmt: skip
        """Facts that what `code` asks for with a default, or has `tried` to read, is not there: on its
        globals and on the classes, functions and modules among them and `values`, its arguments and
        free variables. Of these no hook tells that they were asked.
        """
        values = {name: namespace[name] for name in code.co_names if name in namespace} | values
        asked: set[str] = set()
        if not ASKS.isdisjoint(code.co_names):
            strings = [t for t in (*code.co_consts, *values.values()) if type(t) is str]
            asked = {text for text in strings if text.isidentifier()}
        names = {name for name, attribute in tried if not attribute} - vars(builtins).keys()
        names |= asked if "globals" in code.co_names else set()
        places: list[tuple[str, Any, set[str]]] = [("item", namespace, names)]
        for variable, value in values.items():
            names = asked | {attribute for name, attribute in tried if name == variable}
            names.discard("")
            if isinstance(value, type):
                metaclass: type = type(value)
                line = (*value.__mro__, *metaclass.__mro__)
                places += [("class", cls, names) for cls in line if is_user_class(cls)]
            elif isinstance(value, types.FunctionType):
                places.append(("item", value.__dict__, names))
            elif isinstance(value, types.ModuleType) and not is_library(value.__name__):
                places.append(("item", value.__dict__, names))
        loc = start_of(code)
        for kind, holder, names in places:
            for name in sorted(names.difference(names_of(kind, holder))):
                self.add(Place(kind, holder, name), ABSENT, loc)

    def of_values(self) -> list[Fact]:
        """The facts that say what a place held."""
        return [fact for fact in self.facts if isinstance(fact, Fact)]


def _in_class(kind: type) -> Loc:
    return Loc(f"class {kind.__module__}.{kind.__qualname__}", 0)


def fields_of(owner: Any) -> dict | None:
    """An instance's own attributes, or None if it has slots only."""
    try:
        return object.__getattribute__(owner, "__dict__")
    except AttributeError:
        return None


def names_of(kind: str, holder: Any) -> Any:
    """The mapping behind the places of this kind in `holder`."""
    return holder.__dict__ if kind == "class" else holder


def same_content(before: dict[str, Any], now: Any) -> bool:
    """Whether the very names and objects are there still, in order."""
    return (
        len(before) == len(now)
        and all(map(operator.is_, before, now))
        and all(map(operator.is_, before.values(), now.values()))
    )
