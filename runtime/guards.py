"""The stale-state firewall: Python values that a recording read, checked before every replay.

While a trace records, reads and writes of attributes are observed through `__getattribute__` and
`__setattr__` installed on `Observed` and on the user's own classes for that time (other threads
pass through them untouched); the globals, closure cells and defaults of every Python function
entered are collected by a profile hook. Each becomes a fact: where the value is, and what it was at
first read (facts.py). Names that the recording bound anew are effects, repeated after every run;
content that it changed in place cannot be repeated, and is put back.
"""

from __future__ import annotations

import builtins
import dis
import enum
import functools
import gc
import io
import random
import sys
import time
import types
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np

from tracegrad.ir.loc import Loc
from tracegrad.runtime.facts import (
    ABSENT,
    CallFact,
    Fact,
    ItemFact,
    Picture,
    Place,
    TooLargeError,
    checker,
    restored,
    unchanged,
)  # fmt: skip
from tracegrad.tracer.errors import UnsupportedError
from tracegrad.tracer.locate import here, is_own_code
from tracegrad.tracer.observed import Observed
from tracegrad.tracer.recording import Trace
from tracegrad.tracer.state import get_mode
from tracegrad.tracer.tensor import Tensor
from tracegrad.tracer.trees import flatten_in_order

__all__ = ["Observer", "checker"]

_LIBRARIES = frozenset(
    {"tracegrad", "numpy", "jax", "jaxlib", "optree", "ml_dtypes", "builtins", "torch"}
)
_HEAP_TYPE = 1 << 9
_CLOCKS = frozenset({
    time.time, time.time_ns, time.perf_counter, time.perf_counter_ns, time.monotonic, time.monotonic_ns,
    time.process_time, time.process_time_ns,
})  # fmt: skip
_RANDOM = (random.Random, np.random.Generator, np.random.RandomState)


def is_library(name: str | None) -> bool:
    """Whether a module's classes and globals are not the user's."""
    top = (name or "builtins").partition(".")[0]
    return top in _LIBRARIES or top in sys.stdlib_module_names


def is_user_class(kind: type) -> bool:
    return (
        bool(kind.__flags__ & _HEAP_TYPE)
        and not is_library(kind.__module__)
        and not issubclass(kind, enum.Enum)
    )


class Observer:
    """Context manager around one recording: collects facts in `facts` and effects in `effects`."""

    def __init__(self, trace: Trace, function: Callable[..., Any], call: Any):
        self.trace = trace
        self.function = function
        self.call = call
        self._arguments: tuple | None = (
            None  # a picture of them, to notice a container that the function changes
        )
        self.facts: list[Any] = []
        self.effects: list[tuple[Place, Any]] = []
        self.noticed: list[str] = []  # effects outside the graph, for `why()`
        self._seen: set[tuple] = set()
        self._codes: set[Any] = set()
        self._entered: set[tuple] = set()
        self._unresolved: set[Any] = set()
        self._functions: dict[Any, list[types.FunctionType]] = {}  # by code
        self._classes: set[type] = set()
        self._outside: dict[int, Any] = {}  # objects that were there before, kept alive
        self._born: dict[int, Any] = {}  # objects made while recording, kept alive
        self._stored: dict[tuple, tuple[Place, Any]] = {}
        self._complaint: UnsupportedError | None = None
        self._collector_codes = {
            getattr(getattr(c, "__func__", c), "__code__", None) for c in gc.callbacks
        }
        self._interruption: Any = None

    def __enter__(self) -> Observer:
        self._profile_before = sys.getprofile()
        self._random_before = random_state()
        install(self)
        try:
            self.visit(self.function)
            self._arguments = self.content("an argument", (self.call.args, self.call.kwargs))
        except BaseException:
            uninstall(self)
            raise
        sys.setprofile(self._profile)
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        sys.setprofile(self._profile_before)
        try:
            if kind is None:
                self._resolve()
                self._add_tensor_facts()
        finally:
            uninstall(self)
        if kind is None:
            if self._complaint is not None:
                raise self._complaint
            self._find_effects()

    # -- looking into values ---------------------------------------------------------------------

    def visit(self, value: Any) -> None:
        """A value that a fact compares by identity: what it holds is watched too."""
        if isinstance(value, (Tensor, types.ModuleType)) or value is None:
            return
        if id(value) in self._outside:
            return
        if isinstance(value, types.FunctionType):
            self._outside[id(value)] = value
            self.add_function(value)
        elif isinstance(value, types.MethodType):
            self.visit(value.__self__)
            self.visit(value.__func__)
        elif isinstance(value, type):
            self._outside[id(value)] = value
            self.add_class(value)
        elif isinstance(value, functools._lru_cache_wrapper):
            self._outside[id(value)] = value
            self.visit(value.__wrapped__)
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
                "an iterator from outside is used", "take the batch outside and pass it in",
                "a compiled function cannot advance it",
            )  # fmt: skip
        elif type(value).__name__ == "CompiledFunction":
            self.visit(value.function)
        else:
            self._outside[id(value)] = value
            self.add_class(type(value))

    def content(self, name: str, value: Any) -> tuple:
        try:
            return Picture(self.visit).take(value)
        except TooLargeError:
            self.complain(
                f"{name} is too large to be compared at every call",
                "pass what is needed of it as a tensor or a number",
                "a change in it would go unnoticed",
            )
            raise

    def complain(self, what: str, fix: str, why: str) -> NoReturn:
        """Raise UnsupportedError; again at the end, should the function swallow it."""
        if self._complaint is None:
            self._complaint = UnsupportedError(what, where=here(), why=why, fix=fix)
        raise self._complaint

    def add_class(self, kind: type) -> None:
        """Facts on the contents of the user's classes, and hooks on their instances' attributes."""
        if kind in self._classes:
            return
        self._classes.add(kind)
        for cls in kind.__mro__:
            if is_user_class(cls) and (cls is kind or cls not in self._classes):
                self._classes.add(cls)
                for name, value in list(cls.__dict__.items()):
                    if not (name.startswith("__") and name.endswith("__")) or (
                        callable(value) and name not in _HOOKS
                    ):
                        self.add(
                            Place("class", cls, name),
                            value,
                            Loc(getattr(cls, "__module__", "?"), 0),
                        )
        if is_user_class(kind) and not issubclass(kind, Observed):
            hook_class(self, kind)

    def add_function(self, function: types.FunctionType) -> None:
        """Facts on a function's closure cells and defaults."""
        code = function.__code__
        known = self._functions.setdefault(code, [])
        if any(function is other for other in known):
            return
        known.append(function)
        if is_own_code(code):
            return
        loc = Loc(code.co_filename, code.co_firstlineno)
        for name, cell in zip(code.co_freevars, function.__closure__ or ()):
            try:
                value = cell.cell_contents
            except ValueError:
                value = ABSENT
            self.add(Place("cell", cell, name), value, loc)
            if isinstance(value, types.ModuleType):
                self.add_module(value, names_in(code), loc)
        for name, value in (
            ("__defaults__", function.__defaults__),
            ("__kwdefaults__", function.__kwdefaults__),
        ):
            if value:
                self.add(Place("attribute", function, name), value, loc)

    # -- the profile hook ------------------------------------------------------------------------

    def _profile(self, frame: Any, event: str, argument: Any) -> None:
        if (
            self._interruption is not None
        ):  # inside a callback of the garbage collector: no part of the function
            if event == "return" and frame is self._interruption:
                self._interruption = None
            return
        if event == "call" and frame.f_code in self._collector_codes:
            self._interruption = frame
            return
        if event == "c_call":
            if argument is builtins.print:
                self.noticed.append(f"print() at {here()} runs only while recording")
            elif (
                argument in _CLOCKS and not is_own_code(frame.f_code) and not in_gc_callback(frame)
            ):
                self.complain(
                    f"{argument.__name__}() is called", "measure outside the compiled function",
                    "the time of the recording would be used at every call",
                )  # fmt: skip
            return
        if event != "call":
            return
        code = frame.f_code
        if code.co_name == "__init__" and code.co_argcount:
            made = frame.f_locals.get(code.co_varnames[0])
            self._born[id(made)] = made
        if is_own_code(code):
            return
        if code not in self._codes:
            self._codes.add(code)
            self.add_globals(code, frame.f_globals)
        if code.co_name not in _COMPREHENSIONS:
            self._enter_function(frame, code)

    def _enter_function(self, frame: Any, code: Any) -> None:
        """Find the function object that runs: its cells and defaults are not in the frame."""
        free = [name for name in code.co_freevars if name != "__class__"]
        if not free and not code.co_argcount and not code.co_kwonlyargcount:
            return
        values = frame.f_locals
        key = (code, *(id(values.get(name)) for name in free))
        if key in self._entered:
            return
        self._entered.add(key)
        found = frame.f_globals.get(code.co_name)
        if isinstance(found, types.FunctionType) and found.__code__ is code:
            self.add_function(found)
        elif code.co_argcount:
            owner = values.get(code.co_varnames[0])
            for cls in (owner if isinstance(owner, type) else type(owner)).__mro__:
                found = cls.__dict__.get(code.co_name)
                found = getattr(found, "__func__", found)
                if isinstance(found, types.FunctionType) and found.__code__ is code:
                    self.add_function(found)
        for function in self._functions.get(code, ()):
            cells = dict(zip(code.co_freevars, function.__closure__ or ()))
            if all(
                Place("cell", cells[name], name).read() is values.get(name, ABSENT) for name in free
            ):
                return
        self._unresolved.add(code)

    def _resolve(self) -> None:
        """Functions found nowhere by name (in a container, made by a factory): all that run this
        code.
        """
        if not self._unresolved:
            return
        for found in gc.get_referrers(*self._unresolved):
            if isinstance(found, types.FunctionType) and found.__code__ in self._unresolved:
                if found.__closure__ or found.__defaults__ or found.__kwdefaults__:
                    self.add_function(found)

    def add_globals(self, code: Any, namespace: dict[str, Any]) -> None:
        """Facts on the globals that a function's code names, and on the globals of modules that it
        reads.
        """
        names = names_in(code)
        loc = Loc(code.co_filename, code.co_firstlineno)
        for name in bound_globals(code):
            if name not in namespace:
                self.add(Place("item", namespace, name), ABSENT, loc)
        for name in sorted(names):
            if name in namespace and not name.startswith("__"):
                self.add(Place("item", namespace, name), namespace[name], loc)
                if isinstance(namespace[name], types.ModuleType):
                    self.add_module(namespace[name], names, loc)

    def add_module(self, module: types.ModuleType, names: set[str], loc: Loc) -> None:
        fields = module.__dict__
        if is_library(module.__name__):
            if module.__name__ == "os" and "environ" in names:
                self.add(Place("item", fields, "environ"), fields["environ"], loc)
            return
        for name in sorted(names & fields.keys()):
            self.add(Place("item", fields, name), fields[name], loc)
            if isinstance(fields[name], types.ModuleType) and fields[name] is not module:
                self.add_module(fields[name], names, loc)

    # -- the attribute hooks ---------------------------------------------------------------------

    def add(self, place: Place, value: Any, loc: Loc, of_metadata: bool = False) -> None:
        if place.key in self._seen:
            return
        self._seen.add(place.key)
        self._outside.setdefault(id(place.holder), place.holder)
        self.facts.append(Fact(place, value, self.content(place.name, value), loc, of_metadata))

    def saw_attribute(self, owner: Any, name: str, value: Any) -> Any:
        """A read of `owner.name` by user or library code while recording; value is ABSENT if there
        is none.

        Returns what the reader gets: the value, or numbers that are read again at every call.
        """
        if isinstance(value, Tensor):
            self.trace.attribute_names.setdefault(id(value), name)
        kind = type(owner)
        if id(owner) in self._born or name in getattr(kind, "_noted_elsewhere", ()):
            return value
        fields = fields_of(owner)
        if isinstance(owner, Observed) and fields is not None and name in fields:
            if name in kind._host_numbers or self.trace.changed_by_host_action(fields, name):
                return self.host_value(fields, name, value)
        if fields is None:
            if isinstance(static_attribute(kind, name)[0], types.MemberDescriptorType):
                self.add(Place("attribute", owner, name), value, here())
        elif ("item", id(fields), name) not in self._seen:
            found, cls = static_attribute(kind, name)
            if name in fields:
                of_metadata = getattr(kind, "_changes_count_as_metadata", False)
                self.add(Place("item", fields, name), fields[name], here(), of_metadata)
            elif cls is None or not (
                isinstance(found, property) or (name[:1] == "_" and is_library(cls.__module__))
            ):
                # What a class holds are facts of the class; this one: the instance has nothing of
                # its own.
                self.add(Place("item", fields, name), ABSENT, here())
                for earlier in kind.__mro__[: kind.__mro__.index(cls)] if cls is not None else ():
                    if is_user_class(earlier):
                        self.add(Place("class", earlier, name), ABSENT, here())
        self.add_class(kind)
        return value

    def host_value(self, fields: dict, name: str, value: Any) -> Any:
        """A number, or a list of them, that changes between or during calls by Python code that is
        run then.
        """
        if type(value) in (int, float):
            return self.trace.host_number((id(fields), name), lambda: fields[name], name)
        if type(value) in (list, tuple) and all(type(item) is float for item in value):
            return type(value)(
                self.trace.host_number(
                    (id(fields), name, k), lambda k=k: fields[name][k], f"{name}[{k}]"
                )
                for k in range(len(value))
            )
        return self.complain(
            f"{name} is read after it was changed in this call", "read it before, or outside the compiled function",
            "its value is known only when the function runs",
        )  # fmt: skip

    def saw_fields(self, owner: Any, fields: dict) -> None:
        """`vars(owner)` in user code: all its attributes count."""
        if fields and id(owner) not in self._born:
            self.add(Place("attribute", owner, "__dict__"), fields, here())

    def will_store(self, owner: Any, name: str) -> None:
        """A write of `owner.name` is about to happen."""
        fields = fields_of(owner)
        place = Place("attribute", owner, name) if fields is None else Place("item", fields, name)
        if id(owner) in self._outside and place.key not in self._stored:
            self._stored[place.key] = (place, place.read())
        self._seen.add(place.key)  # what is read from now on was written here
        self._born.setdefault(id(place.holder), place.holder)

    # -- after the function ----------------------------------------------------------------------

    def _find_effects(self) -> None:
        """Names bound anew: effects. Content changed in place: not repeatable."""
        if random_state() != self._random_before:
            self.complain(
                "the function draws from random or np.random", "draw with tg.rand and the like, or pass the numbers in",
                "its numbers would be the same at every call",
            )  # fmt: skip
        if self._arguments is not None and not unchanged(
            self._arguments, (self.call.args, self.call.kwargs)
        ):
            self.complain(
                "an argument (a list, dict or array) is changed", "return the values instead",
                "only tensors, and names that are bound anew, are updated by a compiled function",
            )  # fmt: skip
        bound = dict(self._stored)
        for fact in self.facts:
            if not isinstance(fact, Fact):
                continue
            now = fact.place.read()
            if now is fact.value:
                if fact.snapshot[0] != "same" and not unchanged(fact.snapshot, now):
                    self.complain(
                        f"{fact.place.name}, {shown_type(now)} from outside, is changed",
                        "return the values instead, and change it outside the compiled function",
                        "only tensors, and names that are bound anew, are updated by a compiled function",
                    )  # fmt: skip
            elif not unchanged(fact.snapshot, now):
                bound.setdefault(fact.place.key, (fact.place, fact.value))
        self._stored = bound
        self.effects = [
            (place, place.read()) for place, before in bound.values() if place.read() is not before
        ]
        for place, value in self.effects:
            self._make_slot(place, value)

    def _make_slot(self, place: Place, value: Any) -> None:
        """State kept under a name that is bound anew at every call (`self.h = f(self.h, x)`): read by name.

        Guarding the tensor's identity instead would record at every call.
        """
        fact = next((f for f in self.facts if isinstance(f, Fact) and f.key == place.key), None)
        tensor = None if fact is None else fact.value
        if not isinstance(tensor, Tensor) or not isinstance(value, Tensor) or value._traced is None:
            return
        item = next(
            (i for i in self.trace.inputs if i.kind == "state" and i.tensor is tensor), None
        )
        holders = [f for f in self.facts if isinstance(f, Fact) and f.value is tensor]
        plain = (
            tensor._entry is None and not tensor._chain and not tensor._family and item is not None
        )
        if not plain or len(holders) > 1 or self.trace.cells[id(item.source)].written:
            return
        same = tuple(value.shape) == tuple(tensor.shape) and value.dtype is tensor.dtype
        if not same or value.requires_grad or type(tensor) is not Tensor:
            return
        slot = self.trace.slots[id(tensor)] = Slot(place, tensor)
        item.kind, item.source, item.key = "slot", slot, ("slot", *place.key)
        self.facts = [f for f in self.facts if f is not fact and f.key != ("captured", id(tensor))]
        self.facts.append(
            CallFact(
                slot.fits,
                lambda: f"{place.name}: no longer a tensor like the one recorded",
                ("slot", *place.key),
            )
        )

    def put_back(self, traced_only: bool = False) -> None:
        """Undo what the function did to Python state; with `traced_only`, where it left values of
        the trace.
        """
        for fact in self.facts:
            if isinstance(fact, Fact) and fact.snapshot[0] != "same":
                now = fact.place.read()
                if (
                    now is fact.value
                    and not unchanged(fact.snapshot, now)
                    and (not traced_only or holds_traced(now))
                ):
                    restored(fact.snapshot)
        if self._arguments is not None and (
            not traced_only or holds_traced((self.call.args, self.call.kwargs))
        ):
            restored(self._arguments)
        for fact in self.facts:
            if isinstance(fact, Fact):
                self._stored.setdefault(fact.place.key, (fact.place, fact.value))
        for place, before in self._stored.values():
            now = place.read()
            if now is not before and (not traced_only or holds_traced(now)):
                place.bind(before)
        if not traced_only:
            restore_random_state(self._random_before)

    def _add_tensor_facts(self) -> None:
        """What must hold of captured tensors: gradient status, shape and dtype, and `.grad` where
        it was read.
        """
        for fact in self.facts:
            if id(fact.value) in self.trace.array_inputs:
                fact.snapshot = ("same", fact.value)  # its content is read at every call
        for item in self.trace.inputs:
            tensor = item.tensor
            if item.kind == "state" and isinstance(tensor, Tensor):
                for name, value in list(tensor.__dict__.items()):
                    if name[:1] != "_":  # the user's own attributes
                        self.add(Place("item", tensor.__dict__, name), value, here())
            if item.kind == "state" and isinstance(tensor, Tensor):
                self.facts.append(captured_fact(tensor, item))
        given = set(map(id, self.call.tensors))  # their `.grad` is part of the signature
        for slot in self.trace.grads.values():
            if slot.found and slot.tensor._traced is None and id(slot.tensor) not in given:
                self.facts.append(grad_fact(slot.tensor))
        for holder, key, value in self.trace.noted:
            self.facts.append(ItemFact(holder, key, value))
        for guard in self.trace.host_guards:
            self.facts.append(host_fact(guard))


class Slot:
    """A name under which state is kept. `tensor` is what the recording found there."""

    def __init__(self, place: Place, tensor: Tensor):
        self.place, self.tensor = place, tensor
        self.shape, self.dtype = tuple(tensor.shape), tensor.dtype

    def fits(self) -> bool:
        """Whether what is there now can take the recorded tensor's place."""
        now = self.place.read()
        return (
            type(now) is Tensor and now._entry is None and not now._chain and not now._family and now._traced is None
            and tuple(now.shape) == self.shape and now.dtype is self.dtype
        )  # fmt: skip


_COMPREHENSIONS = frozenset({"<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>", "<module>"})


def in_gc_callback(frame: Any) -> bool:
    """Whether the frame runs because the garbage collector happened to (a tool's timer, not the
    user's function).
    """
    codes = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    while frame is not None:
        if frame.f_code in codes:
            return True
        frame = frame.f_back
    return False


def names_in(code: Any) -> set[str]:
    """Globals and attributes that a function's code names, with those of the functions inside it."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= names_in(constant)
    return names


_STORE_GLOBAL = dis.opmap["STORE_GLOBAL"]


def bound_globals(code: Any) -> list[str]:
    """Globals that a function's own code assigns."""
    if _STORE_GLOBAL not in code.co_code[::2]:
        return []
    return [step.argval for step in dis.get_instructions(code) if step.opcode == _STORE_GLOBAL]


def shown_type(value: Any) -> str:
    return f"a {type(value).__name__}"


def fields_of(owner: Any) -> dict | None:
    try:
        return object.__getattribute__(owner, "__dict__")  # type: ignore[no-any-return]
    except AttributeError:
        return None


def static_attribute(kind: type, name: str) -> tuple[Any, type | None]:
    """What a class holds under `name`, without running descriptors, and which class of its line
    holds it.
    """
    for cls in kind.__mro__:
        if name in cls.__dict__:
            return cls.__dict__[name], cls
    return None, None


def holds_traced(value: Any) -> bool:
    """Whether a value, or a container's content, belongs to a trace."""
    return any(
        (isinstance(leaf, Tensor) and leaf._traced is not None) or hasattr(leaf, "_traced_number")
        for leaf in flatten_in_order(value)[0]
    )


def random_state() -> tuple:
    """The position of Python's and NumPy's own random streams."""
    numpy_state = np.random.get_state(legacy=True)
    return random.getstate(), numpy_state[1].tobytes(), tuple(numpy_state[2:])  # type: ignore[union-attr,index]


def restore_random_state(state: tuple) -> None:
    if random_state() != state:
        random.setstate(state[0])
        np.random.set_state(("MT19937", np.frombuffer(state[1], np.uint32), *state[2]))


def captured_fact(tensor: Tensor, item: Any) -> CallFact:
    from tracegrad.tracer.tape import Leaf

    tracked = isinstance(tensor._entry, Leaf)
    shape, dtype = item.node.shape, item.node.dtype.np
    owner = item.source

    def test() -> bool:
        if owner is not tensor:
            array = owner.array
        elif tensor._chain:
            return False  # its data was replaced by a view of something else
        else:
            array = tensor._data if tensor._jax is None else tensor._jax
        return (
            (tensor._entry is not None) is tracked and array.shape == shape and array.dtype == dtype
        )

    key = ("captured", id(tensor))
    if not tracked and tensor._entry is not None:  # a captured non-leaf: its history may be any
        return CallFact(
            lambda: tensor._entry is not None, lambda: f"{item.name}: no longer requires grad", key
        )
    return CallFact(
        test,
        lambda: (
            f"{item.name}: captured as {item.node.type}, requires_grad={tracked}; now it is not"
        ),
        key,
    )


def grad_fact(tensor: Tensor) -> CallFact:
    grad = tensor._grad
    return CallFact(
        lambda: tensor._grad is grad,
        lambda: (
            f".grad of a captured tensor: {'None' if grad is None else 'a tensor'} when recorded, now "
            f"{'None' if tensor._grad is None else 'another tensor'}"
        ),
        ("grad", id(tensor)),
    )


def host_fact(guard: Any) -> CallFact:
    return CallFact(
        lambda: bool(guard.kind(guard.read(), guard.constant)) is guard.answer,
        lambda: (
            f"a hyper-parameter: now {guard.read()!r} (compared with {guard.constant!r} at {guard.loc.file}:"
            f"{guard.loc.line})"
        ),
        ("host", str(guard.loc)),
    )


# -- installing the hooks ------------------------------------------------------------------------

_observers: list[Observer] = []
_hooked: dict[type, list[Observer]] = {}
_HOOKS = ("__getattribute__", "__setattr__")


def observer_of_this_thread() -> Observer | None:
    trace = get_mode().trace
    while trace is not None:
        for observer in _observers:
            if observer.trace is trace:
                return observer
        trace = getattr(
            trace, "outer", None
        )  # a nested trace (cond, vmap) belongs to the one around it
    return None


def _observed_getattribute(self: Any, name: str) -> Any:
    try:
        value = object.__getattribute__(self, name)
    except AttributeError:
        if name[:2] != "__" and (observer := observer_of_this_thread()) is not None:
            observer.saw_attribute(self, name, ABSENT)
        raise
    if name[:2] != "__" and (observer := observer_of_this_thread()) is not None:
        return observer.saw_attribute(self, name, value)
    elif name == "__dict__" and not is_own_code(sys._getframe(1).f_code):
        if (observer := observer_of_this_thread()) is not None:
            observer.saw_fields(self, value)
    return value


def _observed_setattr(self: Any, name: str, value: Any) -> None:
    if (observer := observer_of_this_thread()) is not None:
        observer.will_store(self, name)
    object.__setattr__(self, name, value)


def hook_class(observer: Observer, cls: type) -> None:
    """Observe attribute reads and writes of a user class, unless it has its own way with them."""
    if cls.__getattribute__ in (object.__getattribute__, _observed_getattribute):
        _hook(observer, cls, "__getattribute__", _observed_getattribute)
    if cls.__setattr__ in (object.__setattr__, _observed_setattr):
        _hook(observer, cls, "__setattr__", _observed_setattr)


def _hook(observer: Observer, cls: type, name: str, function: Any) -> None:
    users = _hooked.setdefault(cls, [])
    if name not in cls.__dict__:
        try:
            type.__setattr__(cls, name, function)
        except TypeError:
            return
    if observer not in users:
        users.append(observer)


def install(observer: Observer) -> None:
    _observers.append(observer)
    _hook(observer, Observed, "__getattribute__", _observed_getattribute)
    _hook(observer, Observed, "__setattr__", _observed_setattr)


def uninstall(observer: Observer) -> None:
    _observers.remove(observer)
    for cls, users in list(_hooked.items()):
        if observer in users:
            users.remove(observer)
        if not users:
            del _hooked[cls]
            for name, function in (
                ("__getattribute__", _observed_getattribute),
                ("__setattr__", _observed_setattr),
            ):
                if cls.__dict__.get(name) is function:
                    type.__delattr__(cls, name)
