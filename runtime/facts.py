"""Facts: where a Python value was found while recording, and what it was; a picture of content that
can be compared.

Immutable values and objects with identity are compared directly; containers, namespaces and arrays
by content. All facts of a recording are checked by one generated function.
"""

from __future__ import annotations

import argparse
import array
import enum
import functools
import operator
import os
import threading
import types
import weakref
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import numpy as np

from tracegrad.ir.loc import Loc
from tracegrad.tracer.numbers import same_bits
from tracegrad.tracer.observed import Observed, ParamGroup
from tracegrad.tracer.tensor import Tensor, metadata_changes

MAX_ITEMS = 20_000  # values inside one container that are compared at every call

_PLAIN = (int, str, bool, bytes, type(None), complex, float)
_IDENTITY = (
    Tensor, Observed, ParamGroup, type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, np.ufunc,
    np.dtype, enum.Enum,
)  # fmt: skip
# What is compared by what it leads to, and by its fields.
_WITH_PARTS = (types.MethodType, functools.partial, weakref.ref, ContextVar)
_WITH_FIELDS = (dict, os._Environ, types.MappingProxyType, threading.local)
_IN_C = ("__class__", "__code__")  # attributes that are read without running Python code
_NAMESPACES = (types.SimpleNamespace, argparse.Namespace)


class _Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT: Any = _Absent()


class TooLargeError(Exception):
    """A container has more values than can be compared at every call."""


class Place:
    """A name that can be read and bound: a dict's item, a closure cell, or an attribute (slots,
    classes).
    """

    __slots__ = ("kind", "holder", "name")

    def __init__(self, kind: str, holder: Any, name: str):
        self.kind = kind  # "item": holder[name]; "cell": holder's content; "attribute": getattr(holder, name)
        self.holder = holder
        self.name = name

    @property
    def key(self) -> tuple:
        return (self.kind, id(self.holder), self.name)

    def read(self) -> Any:
        if self.kind == "item":
            return self.holder.get(self.name, ABSENT)
        if self.kind == "cell":
            try:
                return self.holder.cell_contents
            except ValueError:
                return ABSENT
        if self.kind == "class":
            return self.holder.__dict__.get(self.name, ABSENT)
        return getattr(self.holder, self.name, ABSENT)

    def bind(self, value: Any) -> None:
        if self.kind == "cell":
            if value is ABSENT:
                del self.holder.cell_contents
            else:
                self.holder.cell_contents = value
        elif self.kind == "item":
            if value is ABSENT:
                self.holder.pop(self.name, None)
            else:
                self.holder[self.name] = value
        elif value is ABSENT:
            if hasattr(self.holder, self.name):
                delattr(self.holder, self.name)
        else:
            setattr(self.holder, self.name, value)


class Fact:
    """`place` held `value`, with this content.

    of_metadata  whether it can only change together with `metadata_changes` (see tracer/tensor.py)
    """

    __slots__ = ("place", "value", "snapshot", "loc", "of_metadata")

    def __init__(
        self, place: Place, value: Any, snapshot: tuple, loc: Loc, of_metadata: bool = False
    ):
        self.place = place
        self.value = value
        self.snapshot = snapshot
        self.loc = loc
        self.of_metadata = of_metadata

    @property
    def key(self) -> tuple:
        return self.place.key

    def holds(self) -> bool:
        return unchanged(self.snapshot, self.place.read())

    def describe(self) -> str:
        now = self.place.read()
        was = shown_snapshot(self.snapshot)
        became = "deleted" if now is ABSENT else shown(now)
        if was == became or self.snapshot[0] not in ("value", "same"):
            became = "changed" if now is not ABSENT else became
        return f"{self.place.name}: {was} -> {became} (read at {self.loc.file}:{self.loc.line})"


class CallFact:
    """A fact that is asked of a function."""

    __slots__ = ("test", "text", "key")

    def __init__(self, test: Callable[[], bool], text: Callable[[], str], key: Any = None):
        self.test, self.text = test, text
        self.key = key

    @property
    def of_metadata(self) -> bool:
        """Whether it can only change together with `metadata_changes` (see tracer/tensor.py)."""
        return type(self.key) is tuple and self.key[0] == "captured"

    def holds(self) -> bool:
        return self.test()

    def describe(self) -> str:
        return self.text()


class ItemFact:
    """`holder[key]` is this very object (an optimiser's slot)."""

    __slots__ = ("holder", "name", "value")

    def __init__(self, holder: dict, name: Any, value: Any):
        self.holder, self.name, self.value = holder, name, value

    @property
    def key(self) -> tuple:
        return ("item", id(self.holder), id(self.name))

    def holds(self) -> bool:
        return dict.get(self.holder, self.name) is self.value

    def describe(self) -> str:
        return f"{self.name if isinstance(self.name, str) else 'an entry'} of captured state was replaced"


def shown(value: Any) -> str:
    text = repr(value) if isinstance(value, _PLAIN) else f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def shown_snapshot(taken: tuple) -> str:
    if taken[0] in ("value", "same"):
        return "absent" if taken[1] is ABSENT else shown(taken[1])
    return f"the {taken[1].__name__} as it was"


# -- pictures of content -------------------------------------------------------------------------


class Picture:
    """Takes a snapshot: nested tuples (form, type, content, original).

    visit  called with every value met that is compared by identity (the observer looks into
           functions and objects)
    """

    def __init__(self, visit: Callable[[Any], None] | None = None):
        self.visit = visit
        self.count = 0
        self.met: dict[int, Any] = {}

    def take(self, value: Any) -> tuple:
        self.count += 1
        if self.count > MAX_ITEMS:
            raise TooLargeError
        kind = type(value)
        if kind in _PLAIN:
            return ("value", value)
        if isinstance(value, _IDENTITY) or value is ABSENT or value is Ellipsis:
            return self.same(value)
        if id(value) in self.met:
            return ("same", value)  # inside itself, or shared: its content is compared once
        if isinstance(value, np.ndarray):
            if value.dtype == object:
                return self.same(value)
            return ("array", kind, (value.shape, value.dtype, value.tobytes()), value)
        if isinstance(value, np.generic):
            return ("scalar", kind, value.tobytes(), value)
        if isinstance(value, (bytearray, array.array, memoryview)):
            return ("bytes", kind, bytes(value), value)
        if isinstance(value, _WITH_PARTS):
            self.met[id(value)] = value
            return ("parts", kind, tuple(map(self.take, parts_of(value))), value)
        if isinstance(value, (list, tuple, deque)):
            self.met[id(value)] = value
            items = tuple(map(self.take, value))
            if all(item[0] == "same" for item in items):  # of tensors, say: compared in C
                return ("identities", kind, tuple(item[1] for item in items), value)
            return ("sequence", kind, items, value)
        if isinstance(value, (set, frozenset)):
            return ("set", kind, frozenset((type(item), item) for item in value), value)
        if isinstance(value, _WITH_FIELDS) or kind in _NAMESPACES:
            self.met[id(value)] = value
            if self.visit is not None:
                self.visit(kind)
            items = fields_of(value)
            return ("mapping", kind, (tuple(items), tuple(map(self.take, items.values()))), value)
        return self.same(value)

    def same(self, value: Any) -> tuple:
        if self.visit is not None:
            self.visit(value)
        return ("same", value)


def fields_of(value: Any) -> dict:
    if isinstance(value, os._Environ):
        return value._data  # type: ignore[attr-defined,no-any-return]
    if isinstance(value, types.MappingProxyType):
        return value.copy()  # type: ignore[return-value]
    return value if isinstance(value, dict) else vars(value)


def parts_of(value: Any) -> tuple:
    if isinstance(value, types.MethodType):
        return (value.__self__, value.__func__)
    if isinstance(value, weakref.ref):
        return (value(),)
    if isinstance(value, ContextVar):
        return (value.get(ABSENT),)
    return (value.func, value.args, value.keywords)


def unchanged(taken: tuple, value: Any) -> bool:
    """Whether `value` still has the content of a snapshot."""
    form = taken[0]
    if form == "value":
        return same_bits(value, taken[1])
    if form == "same":
        return value is taken[1]
    if type(value) is not taken[1]:
        return False
    content = taken[2]
    if form == "identities":
        return len(value) == len(content) and all(map(operator.is_, content, value))
    if form == "sequence":
        return len(value) == len(content) and all(map(unchanged, content, value))
    if form == "mapping":
        fields = fields_of(value)
        keys, items = content
        return len(fields) == len(keys) and all(
            same_key(key, now) and unchanged(item, dict.__getitem__(fields, now))
            for key, now, item in zip(keys, fields, items)
        )
    if form == "array":
        return (
            value.shape == content[0]
            and value.dtype == content[1]
            and value.tobytes() == content[2]
        )
    if form == "scalar":
        return value.tobytes() == content  # type: ignore[no-any-return]
    if form == "bytes":
        return bytes(value) == content
    if form == "set":
        return len(value) == len(content) and all((type(item), item) in content for item in value)
    return all(map(unchanged, content, parts_of(value)))


def same_key(key: Any, other: Any) -> bool:
    return key is other or (type(key) is type(other) and type(key) in _PLAIN and key == other)


def restored(taken: tuple) -> Any:
    """The object a snapshot was taken of, its content put back."""
    form = taken[0]
    if form in ("value", "same"):
        return taken[1]
    _, _, content, value = taken
    if form == "identities":
        if not isinstance(value, tuple):
            value.clear()
            value.extend(content)
    elif form == "sequence" and not isinstance(value, tuple):
        items = list(map(restored, content))
        value.clear()
        value.extend(items)
    elif form == "sequence":
        for item in content:
            restored(item)
    elif form == "mapping" and not isinstance(value, types.MappingProxyType):
        keys, items = content
        values = list(map(restored, items))
        fields = fields_of(value)
        old = {*map(id, keys), *((type(key), key) for key in keys if type(key) in _PLAIN)}
        for key in [k for k in fields if id(k) not in old and (type(k), k) not in old]:
            dict.__delitem__(fields, key)
        for key, item in zip(keys, values):
            dict.__setitem__(fields, key, item)
    elif form == "set" and isinstance(value, set):
        value.clear()
        value.update(item for _, item in content)
    elif form == "array" and value.flags.writeable:
        value[...] = np.frombuffer(content[2], content[1]).reshape(content[0])
    elif form == "parts":
        for item in content:
            restored(item)
    return value


# -- the check -----------------------------------------------------------------------------------


def checker(facts: list[Any]) -> Callable[[], int | None]:
    """One generated function that returns the number of the first fact that no longer holds, or
    None.
    """
    lines = ["def check():"]
    names: dict[str, Any] = {"changes": metadata_changes, "seen": [-1]}
    captured = {
        k for k, fact in enumerate(facts) if not isinstance(fact, ItemFact) and fact.of_metadata
    }
    if captured:  # captured tensors and hooks are looked at only after one of them has changed
        lines.append("    if changes[0] != seen[0]:")
        lines += [
            f"        if not ({condition(facts[k], k, names)}): return {k}"
            for k in sorted(captured)
        ]
        lines.append("        seen[0] = changes[0]")
    for k, fact in enumerate(facts):
        if k not in captured:
            lines.append(f"    if not ({condition(fact, k, names)}): return {k}")
    lines.append("    return None")
    # Our own text; no user input in it.
    exec(compile("\n".join(lines), "<tracegrad facts>", "exec"), names)
    check: Any = names["check"]
    check.facts = facts
    return check  # type: ignore[no-any-return]


def condition(fact: Any, k: int, names: dict[str, Any]) -> str:
    if isinstance(fact, ItemFact):
        names[f"h{k}"], names[f"k{k}"], names[f"v{k}"] = fact.holder.get, fact.name, fact.value
        return f"h{k}(k{k}) is v{k}"
    if isinstance(fact, Fact) and fact.place.kind == "attribute" and fact.place.name in _IN_C:
        names[f"h{k}"], names[f"v{k}"] = fact.place.holder, fact.value
        return f"h{k}.{fact.place.name} is v{k}"
    if isinstance(fact, Fact) and fact.place.kind in ("item", "class"):
        place = fact.place
        holder = place.holder.__dict__ if place.kind == "class" else place.holder
        if place.kind == "class" or type(holder) is dict:
            names[f"h{k}"] = holder.get
            read = f"h{k}({place.name!r})"
            value = fact.value
            if value is ABSENT:
                return (
                    f"{place.name!r} not in d{k}"
                    if names.setdefault(f"d{k}", holder) is not None
                    else ""
                )
            if fact.snapshot[0] == "same":
                names[f"v{k}"] = value
                return f"{read} is v{k}"
            if (
                fact.snapshot[0] == "mapping"
                and type(value) is dict
                and all(v is None for v in value.values())
            ):
                # A table of names, in order.
                names[f"n{k}"], names[f"v{k}"] = tuple(value), dict(value)
                return f"{read} == v{k} and (*{read},) == n{k}" if value else f"{read} == v{k}"
            if fact.snapshot[0] == "value" and type(value) in (bool, type(None)):
                return f"{read} is {value!r}"
            if fact.snapshot[0] == "value" and type(value) in (int, str, float):
                # The very object first: floats and strings are mostly not rebound.
                names[f"v{k}"], names[f"f{k}"] = value, fact.holds
                return f"{read} is v{k} or f{k}()"
    names[f"f{k}"] = fact.holds
    return f"f{k}()"
