"""The stale-state firewall: Python values that a recording read, checked before every replay.

While a trace records, reads of module attributes are observed through a `__getattribute__` installed on `Observed`
for that time (other threads pass through it untouched), and the globals and closure cells of every Python function
entered are collected by a profile hook. Each becomes a fact: where the value is, and what it was at first read.
Immutable values and objects with identity are compared directly; lists, dicts, plain objects and small arrays by
content. All facts of a recording are checked by one generated function.
"""

from __future__ import annotations

import builtins
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from tracegrad.ir.loc import Loc
from tracegrad.tracer.locate import here, is_own_code
from tracegrad.tracer.numbers import same_bits
from tracegrad.tracer.observed import Observed, ParamGroup
from tracegrad.tracer.recording import Trace
from tracegrad.tracer.state import get_mode
from tracegrad.tracer.tensor import Tensor

MAX_DEPTH = 4  # nesting of containers and plain objects compared by content
MAX_ITEMS = 1000  # elements of a container compared by content
MAX_ARRAY_BYTES = 64 * 1024  # larger arrays are graph inputs when used as operands

_PLAIN = (int, str, bool, bytes, type(None), complex)
_IDENTITY = (
    Tensor, Observed, ParamGroup, type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType,
    np.ufunc, np.dtype,
)  # fmt: skip


class Fact:
    """`holder.name` (or a dict item, or a cell) had `value`; `expression` reads it again in generated code."""

    __slots__ = ("kind", "holder", "name", "value", "snapshot", "loc")

    def __init__(self, kind: str, holder: Any, name: str, value: Any, loc: Loc):
        self.kind = kind  # "item": holder[name]; "attribute": getattr(holder, name); "cell"; "absent"
        self.holder = holder
        self.name = name
        self.value = value
        self.snapshot = None if by_identity(value) else snapshot(value)
        self.loc = loc

    def read(self) -> Any:
        if self.kind == "item":
            return self.holder.get(self.name, _ABSENT)
        if self.kind == "cell":
            try:
                return self.holder.cell_contents
            except ValueError:
                return _ABSENT
        return getattr(self.holder, self.name, _ABSENT)

    def holds(self) -> bool:
        now = self.read()
        if self.snapshot is None:
            return now is self.value
        return unchanged(self.snapshot, now)

    def describe(self) -> str:
        now = self.read()
        was = shown(self.value) if self.snapshot is None else shown_snapshot(self.snapshot)
        return f"{self.name}: {was} -> {'deleted' if now is _ABSENT else shown(now)} (read at {self.loc.file}:{self.loc.line})"


class CallFact:
    """A fact that is asked of a function."""

    __slots__ = ("test", "text")

    def __init__(self, test: Callable[[], bool], text: Callable[[], str]):
        self.test, self.text = test, text

    def holds(self) -> bool:
        return self.test()

    def describe(self) -> str:
        return self.text()


class ItemFact:
    """`holder[key]` is this very object (an optimiser's slot)."""

    __slots__ = ("holder", "key", "value")

    def __init__(self, holder: dict, key: Any, value: Any):
        self.holder, self.key, self.value = holder, key, value

    def holds(self) -> bool:
        return dict.get(self.holder, self.key) is self.value

    def describe(self) -> str:
        return f"{self.key if isinstance(self.key, str) else 'an entry'} of captured state was replaced"


_ABSENT: Any = type("Absent", (), {"__repr__": lambda self: "absent"})()


def shown(value: Any) -> str:
    text = repr(value) if isinstance(value, (*_PLAIN, float)) else f"<{type(value).__name__} at {id(value):#x}>"
    return text if len(text) <= 60 else text[:57] + "..."


def shown_snapshot(taken: tuple) -> str:
    return shown(taken[1]) if taken[0] == "value" else f"the {taken[1].__name__} as it was"


def by_identity(value: Any) -> bool:
    return isinstance(value, _IDENTITY) or value is _ABSENT or value is Ellipsis


def snapshot(value: Any, depth: int = 0) -> tuple:
    """A frozen picture of a value's content, comparable with `unchanged`."""
    kind = type(value)
    if kind in _PLAIN or kind is float:
        return ("value", value)
    if by_identity(value):
        return ("same", value)
    if isinstance(value, np.ndarray):
        if value.nbytes <= MAX_ARRAY_BYTES and value.dtype != object:
            return ("array", kind, value.shape, value.dtype, value.tobytes())
        return ("same", value)
    if depth < MAX_DEPTH:
        if isinstance(value, (list, tuple, set, frozenset)) and len(value) <= MAX_ITEMS:
            items = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
            return ("sequence", kind, tuple(snapshot(item, depth + 1) for item in items))
        if isinstance(value, dict) and len(value) <= MAX_ITEMS:
            items = tuple((key, snapshot(item, depth + 1)) for key, item in dict.items(value))
            return ("mapping", kind, items)
        fields = getattr(value, "__dict__", None)
        if type(fields) is dict and len(fields) <= MAX_ITEMS:
            items = tuple((key, snapshot(item, depth + 1)) for key, item in fields.items())
            return ("object", kind, items, value)
    return ("same", value)


def unchanged(taken: tuple, value: Any) -> bool:
    """Whether `value` still has the content of a snapshot."""
    form = taken[0]
    if form == "value":
        return same_bits(value, taken[1])
    if form == "same":
        return value is taken[1]
    if type(value) is not taken[1]:
        return False
    if form == "array":
        return value.shape == taken[2] and value.dtype == taken[3] and value.tobytes() == taken[4]
    if form == "sequence":
        items = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        return len(items) == len(taken[2]) and all(map(unchanged, taken[2], items))
    fields = value if form == "mapping" else value.__dict__
    if len(fields) != len(taken[2]):
        return False
    for key, item in taken[2]:
        now = dict.get(fields, key, _ABSENT)
        if now is _ABSENT or not unchanged(item, now):
            return False
    return True


class Observer:
    """Context manager around one recording: collects facts in `facts`."""

    def __init__(self, trace: Trace, function: Callable[..., Any]):
        self.trace = trace
        self.function = function
        self.facts: list[Any] = []
        self._seen: set[tuple] = set()
        self._codes: set[Any] = set()
        self._functions: set[int] = set()

    def __enter__(self) -> Observer:
        self._profile_before = sys.getprofile()
        install(self)
        self.add_function(self.function)
        sys.setprofile(self._profile)
        return self

    def __exit__(self, kind: Any, *rest: object) -> None:
        sys.setprofile(self._profile_before)
        uninstall(self)
        if kind is None:
            self._add_tensor_facts()

    # -- collecting ---------------------------------------------------------------------------------------------

    def _profile(self, frame: Any, event: str, argument: Any) -> None:
        if event != "call":
            return
        code = frame.f_code
        if code in self._codes or is_own_code(code):
            return
        self._codes.add(code)
        self.add_globals(code, frame.f_globals)

    def add_globals(self, code: Any, namespace: dict[str, Any]) -> None:
        """Facts on the globals that a function's code names (modules' attributes are theirs, not ours)."""
        names = set(code.co_names)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):  # nested functions, comprehensions
                names.update(constant.co_names)
        for name in sorted(names):
            if name in namespace and not name.startswith("__"):
                self.add("item", namespace, name, namespace[name], Loc(code.co_filename, code.co_firstlineno))
            elif hasattr(builtins, name):
                continue

    def add_function(self, function: Any) -> None:
        """Facts on a function's closure cells and defaults, and on the functions these hold."""
        function = getattr(function, "__func__", function)
        if not isinstance(function, types.FunctionType) or id(function) in self._functions:
            return
        self._functions.add(id(function))
        code = function.__code__
        if is_own_code(code):
            return
        loc = Loc(code.co_filename, code.co_firstlineno)
        for name, cell in zip(code.co_freevars, function.__closure__ or ()):
            try:
                value = cell.cell_contents
            except ValueError:
                continue
            self.add("cell", cell, name, value, loc)
        for name, value in (("__defaults__", function.__defaults__), ("__kwdefaults__", function.__kwdefaults__)):
            if value:
                self.add("attribute", function, name, value, loc)

    def add(self, kind: str, holder: Any, name: str, value: Any, loc: Loc) -> None:
        key = (kind, id(holder), name)
        if key in self._seen:
            return
        self._seen.add(key)
        if isinstance(value, types.ModuleType):
            return
        if isinstance(value, (types.FunctionType, types.MethodType)):
            self.add_function(value)
        if type(value).__name__ == "CompiledFunction":
            self.add_function(value.function)
        self.facts.append(Fact(kind, holder, name, value, loc))

    def saw_attribute(self, owner: Any, name: str, value: Any) -> None:
        """A read of `owner.name` by user or library code while recording."""
        key = ("item", id(owner.__dict__), name)
        if key in self._seen:
            return
        if name in type(owner)._noted_elsewhere:
            return
        fields = object.__getattribute__(owner, "__dict__")
        if name in fields:
            self.add("item", fields, name, value, here())
        elif not callable(value) and not isinstance(getattr(type(owner), name, None), property):
            self.add("attribute", owner, name, value, here())

    def _add_tensor_facts(self) -> None:
        """What must hold of captured tensors: gradient status, shape and dtype, and `.grad` where it was read."""
        for item in self.trace.inputs:
            tensor = item.tensor
            if item.kind == "state" and isinstance(tensor, Tensor):
                self.facts.append(captured_fact(tensor, item))
        for slot in self.trace.grads.values():
            if slot.found and slot.tensor._traced is None:
                self.facts.append(grad_fact(slot.tensor))
        for holder, key, value in self.trace.noted:
            self.facts.append(ItemFact(holder, key, value))
        for guard in self.trace.host_guards:
            self.facts.append(host_fact(guard))


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
        return (tensor._entry is not None) is tracked and array.shape == shape and array.dtype == dtype

    if not tracked and tensor._entry is not None:  # a captured non-leaf: its history may be any
        return CallFact(lambda: tensor._entry is not None, lambda: f"{item.name}: no longer requires grad")
    return CallFact(test, lambda: f"{item.name}: captured as {item.node.type}, requires_grad={tracked}; now it is not")


def grad_fact(tensor: Tensor) -> CallFact:
    grad = tensor._grad
    return CallFact(
        lambda: tensor._grad is grad,
        lambda: f".grad of a captured tensor: {'None' if grad is None else 'a tensor'} when recorded, now "
        f"{'None' if tensor._grad is None else 'another tensor'}",
    )


def host_fact(guard: Any) -> CallFact:
    return CallFact(
        lambda: bool(guard.kind(guard.read(), guard.constant)) is guard.answer,
        lambda: f"a hyper-parameter: now {guard.read()!r} (compared with {guard.constant!r} at {guard.loc.file}:"
        f"{guard.loc.line})",
    )


# -- the attribute hook -----------------------------------------------------------------------------------------

_observers: list[Observer] = []


def _observed_getattribute(self: Any, name: str) -> Any:
    value = object.__getattribute__(self, name)
    if name[:1] != "_":
        trace = get_mode().trace
        if trace is not None:
            for observer in _observers:
                if observer.trace is trace:
                    observer.saw_attribute(self, name, value)
    return value


def install(observer: Observer) -> None:
    _observers.append(observer)
    if len(_observers) == 1:
        Observed.__getattribute__ = _observed_getattribute  # type: ignore[assignment,method-assign]


def uninstall(observer: Observer) -> None:
    _observers.remove(observer)
    if not _observers:
        del Observed.__getattribute__


# -- the check --------------------------------------------------------------------------------------------------


def checker(facts: list[Any]) -> Callable[[], int | None]:
    """One generated function that returns the number of the first fact that no longer holds, or None."""
    lines = ["def check():"]
    names: dict[str, Any] = {}
    for k, fact in enumerate(facts):
        lines.append(f"    if not ({condition(fact, k, names)}): return {k}")
    lines.append("    return None")
    exec(compile("\n".join(lines), "<string>", "exec"), names)  # our own text; no user input in it
    check: Any = names["check"]
    check.facts = facts
    return check  # type: ignore[no-any-return]


def condition(fact: Any, k: int, names: dict[str, Any]) -> str:
    if isinstance(fact, ItemFact):
        names[f"h{k}"], names[f"k{k}"], names[f"v{k}"] = fact.holder.get, fact.key, fact.value
        return f"h{k}(k{k}) is v{k}"
    if isinstance(fact, Fact) and fact.kind == "item" and type(fact.holder) is dict:
        names[f"h{k}"] = fact.holder.get
        read = f"h{k}({fact.name!r})"
        if fact.snapshot is None:
            names[f"v{k}"] = fact.value
            return f"{read} is v{k}"
        if fact.snapshot[0] == "value" and type(fact.value) in (bool, type(None)):
            return f"{read} is {fact.value!r}"
        if fact.snapshot[0] == "value" and type(fact.value) is int:
            names[f"v{k}"] = fact.value
            return f"{read} is v{k} or f{k}()" if names.setdefault(f"f{k}", fact.holds) else ""
    names[f"f{k}"] = fact.holds
    return f"f{k}()"
