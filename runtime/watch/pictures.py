"""Pictures of content: what a value leads to, as nested tuples that a later value is compared with.

Immutable values and objects with identity are compared directly; containers, namespaces and arrays
by content.
"""

from __future__ import annotations

import argparse
import array
import ctypes
import enum
import functools
import io
import math
import operator
import os
import threading
import types
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, ItemsView, KeysView, ValuesView
from contextvars import ContextVar
from typing import Any

import numpy as np

from tracegrad.runtime.calls.keys import typed_key, value_key
from tracegrad.tracer.observed import Observed, ReportingDict
from tracegrad.tracer.tensor import Tensor
from tracegrad.tracer.trace.numbers import same_bits

HEAP_TYPE = 1 << 9  # of `type.__flags__`: a class made by a class statement
MAX_ITEMS = 20_000  # values inside one container that are compared at every call

PLAIN = (int, str, bool, bytes, type(None), complex, float)
_IDENTITY = (
    Tensor, Observed, ReportingDict, type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, np.ufunc,
    np.dtype, enum.Enum,
)  # fmt: skip
# What is compared by what it leads to, and by its fields.
_WITH_PARTS = (
    types.MethodType, functools.partial, weakref.ref, ContextVar, KeysView, ValuesView, ItemsView, io.StringIO,
    io.BytesIO,
)  # fmt: skip
_C_DATA = ctypes.c_int.__mro__[-2]  # the base of all types of ctypes
_WITH_FIELDS = (dict, os._Environ, types.MappingProxyType, threading.local)
LEAVES = ("value", "same", "any")  # forms of snapshots with nothing inside
_DICTS = (dict, OrderedDict, defaultdict)
_ITEM_METHODS = ("__setitem__", "__getitem__", "__delitem__", "__iter__", "get", "pop")
_NAMESPACES = (types.SimpleNamespace, argparse.Namespace)


class _Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT: Any = _Absent()


class TooLargeError(Exception):
    """A container has more values than can be compared at every call."""


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
        if kind in PLAIN:
            return ("value", value)
        if isinstance(value, _IDENTITY) or value is ABSENT or value is Ellipsis:
            return self.same(value)
        if id(value) in self.met:
            return ("same", value)  # inside itself, or shared: its content is compared once
        if self.visit is not None and kind.__flags__ & HEAP_TYPE:
            if kind.__dictoffset__ or not issubclass(kind, tuple):  # it has attributes, too
                self.visit(value)
        if isinstance(value, np.ma.MaskedArray):
            self.met[id(value)] = value
            return ("parts", kind, tuple(map(self.take, parts_of(value))), value)
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            return ("array", kind, (value.shape, value.dtype, value.tobytes()), value)
        if isinstance(value, np.generic):
            return ("scalar", kind, value.tobytes(), value)
        if isinstance(value, (bytearray, array.array, memoryview, _C_DATA)):
            return ("bytes", kind, bytes(value), value)  # type: ignore[call-overload]
        if isinstance(value, _WITH_PARTS) or isinstance(value, np.ndarray):
            self.met[id(value)] = value
            return ("parts", kind, tuple(map(self.take, parts_of(value))), value)
        if isinstance(value, (list, tuple, deque)):
            self.met[id(value)] = value
            items = tuple(map(self.take, value))
            if all(item[0] == "same" for item in items):  # of tensors, say: compared in C
                return ("identities", kind, tuple(item[1] for item in items), value)
            return ("sequence", kind, items, value)
        if isinstance(value, (set, frozenset)):
            return ("set", kind, (frozenset(map(typed_key, value)), tuple(value)), value)
        if isinstance(value, _WITH_FIELDS) or kind in _NAMESPACES:
            self.met[id(value)] = value
            if self.visit is not None:
                self.visit(kind)
            fields = fields_of(value)
            taken = tuple(map(self.take, fields.values()))
            return ("mapping", kind, (tuple(fields), taken), value)
        return self.same(value)

    def same(self, value: Any) -> tuple:
        if self.visit is not None:
            self.visit(value)
        return ("same", value)


def fields_of(value: Any) -> dict:
    if isinstance(value, os._Environ):
        return value._data  # type: ignore[attr-defined]
    if isinstance(value, types.MappingProxyType):
        return value.copy()
    return value if isinstance(value, dict) else vars(value)


def parts_of(value: Any) -> tuple:
    if isinstance(value, types.MethodType):
        return (value.__self__, value.__func__)
    if isinstance(value, weakref.ref):
        return (value(),)
    if isinstance(value, ContextVar):
        return (value.get(ABSENT),)
    if isinstance(value, (KeysView, ValuesView, ItemsView)):
        view: Any = value  # a dict's, or one of collections.abc
        return (view.mapping if hasattr(view, "mapping") else view._mapping,)
    if isinstance(value, (io.StringIO, io.BytesIO)):
        return (value.getvalue(), value.tell())
    if isinstance(value, np.ma.MaskedArray):
        return (value.data, np.ma.getmask(value))
    if isinstance(value, np.ndarray):  # of objects
        return (value.shape, value.ravel().tolist())
    return (value.func, value.args, value.keywords)


def unchanged(taken: tuple, value: Any) -> bool:
    """Whether `value` still has the content of a snapshot."""
    form = taken[0]
    if form == "value":
        return same_bits(value, taken[1])
    if form == "same":
        return value is taken[1]
    if form == "any":
        return True
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
        return value.tobytes() == content
    if form == "bytes":
        return bytes(value) == content
    if form == "set":
        keys, items = content
        return len(value) == len(items) and all(typed_key(item) in keys for item in value)
    return all(map(unchanged, content, parts_of(value)))


def bound_items(taken: tuple, value: Any) -> list[tuple[dict, Any, Any]] | None:
    """(dict, key, what was there) of items of dicts that are new since a snapshot, or bound to
    another object; None if other content has changed.
    """
    if unchanged(taken, value):
        return []
    form = taken[0]
    if form in LEAVES or type(value) is not taken[1]:
        return None
    found: list[tuple[dict, Any, Any]] = []
    if form == "mapping" and has_plain_items(taken[1]):
        keys, items = taken[2]
        now = list(value)
        if len(now) < len(keys) or not all(map(same_key, keys, now)):
            return None
        found += [(value, key, ABSENT) for key in now[len(keys) :]]
        inner = []
        for key, before, after in zip(keys, items, value.values()):
            if before[0] in LEAVES or after is not before[-1]:
                if not unchanged(before, after):
                    found.append((value, key, before[-1]))
            else:
                inner.append((before, after))
    elif form == "sequence" and len(value) == len(taken[2]):
        inner = list(zip(taken[2], value))
    else:
        return None
    for before, after in inner:
        further = bound_items(before, after)
        if further is None:
            return None
        found += further
    return found


def has_plain_items(kind: type) -> bool:
    """Whether it is a dict with item assignment of Python's own."""
    return kind in _DICTS or (
        issubclass(kind, dict)
        and all(
            getattr(kind, name) in {getattr(own, name) for own in _DICTS} for name in _ITEM_METHODS
        )
    )


def without_item(taken: tuple, holder: Any, key: Any) -> tuple:
    """The snapshot, but with any object under `key` of the dict `holder`."""
    form = taken[0]
    if form == "sequence":
        items = tuple(without_item(item, holder, key) for item in taken[2])
        return (form, taken[1], items, taken[3])
    if form != "mapping":
        return taken
    _, kind, (keys, items), value = taken
    items = tuple(
        ("any", item[-1])
        if value is holder and same_key(name, key)
        else without_item(item, holder, key)
        for name, item in zip(keys, items)
    )
    return (form, kind, (keys, items), value)


def sightings_of(value: Any, taken: tuple) -> int:
    """How often a value that is compared by identity is met in a snapshot."""
    form = taken[0]
    if form == "same":
        return int(taken[1] is value)
    if form == "identities":
        return sum(item is value for item in taken[2])
    if form == "mapping":
        return sum(sightings_of(value, item) for item in taken[2][1])
    if form in ("sequence", "parts"):
        return sum(sightings_of(value, item) for item in taken[2])
    return 0


def same_key(key: Any, other: Any) -> bool:
    return key is other or (type(key) is type(other) and value_key(key) == value_key(other))


def restored(taken: tuple) -> Any:
    """The object a snapshot was taken of, its content put back."""
    form = taken[0]
    if form in LEAVES:
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
        # An OrderedDict keeps an order of its own, which only its methods know.
        base = OrderedDict if isinstance(fields, OrderedDict) else dict
        if not (len(fields) == len(keys) and all(map(same_key, keys, fields))):
            base.clear(fields)
        for key, item in zip(keys, values):
            base.__setitem__(fields, key, item)
    elif form == "set" and isinstance(value, set):
        value.clear()
        value.update(content[1])
    elif form == "array" and value.flags.writeable:
        if value.size != math.prod(content[0]):
            value.resize(content[0], refcheck=False)
        elif value.shape != content[0]:
            value.shape = content[0]  # resize refuses views with gaps
        value[...] = np.frombuffer(content[2], content[1]).reshape(content[0])
    elif form == "bytes" and bytes(value) != content:
        put_back_bytes(value, content)
    elif form == "parts":
        parts = list(map(restored, content))
        if isinstance(value, (io.StringIO, io.BytesIO)):
            value.seek(0)
            value.truncate()
            value.write(parts[0])
            value.seek(parts[1])
        elif isinstance(value, np.ma.MaskedArray):
            if np.ma.getmask(value) is not parts[1]:
                value.mask = parts[1]
        elif isinstance(value, np.ndarray):
            for k, item in enumerate(parts[1]):
                value.flat[k] = item
        elif isinstance(value, ContextVar):
            # To take a first value away needs the token of who set it.
            if parts[0] is not ABSENT and parts[0] is not value.get(ABSENT):
                value.set(parts[0])
    return value


def put_back_bytes(value: Any, content: bytes) -> None:
    """Give memory, that of a `_C_DATA` too, the bytes that it had."""
    if isinstance(value, bytearray):
        value[:] = content
    elif isinstance(value, array.array):
        del value[:]
        value.frombytes(content)
    elif not (memory := memoryview(value)).readonly:
        if memory.c_contiguous:
            memory.cast("B")[:] = content
        else:
            view = np.asarray(memory)
            view[...] = np.frombuffer(content, view.dtype).reshape(view.shape)
