"""Containers of the user's as arguments: a dataclass, a dict subclass or a namespace for each batch.

Such an object is opened: its tensors are arguments, all else in it is part of the call's key. Where
the function does more than to read it (writes, keeps or returns it), it is compared by identity.
"""

from __future__ import annotations

import argparse
import dataclasses
import enum
import types
from collections import OrderedDict, UserDict, UserList, defaultdict
from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from tracegrad.ir.types import DType
from tracegrad.runtime.calls.keys import typed_key
from tracegrad.runtime.watch.sightings import has_own_reads, is_user_class
from tracegrad.tracer.observed import Observed
from tracegrad.tracer.tensor import Tensor
from tracegrad.tracer.trees import accessors, flatten_in_order

PLAIN = frozenset({int, bool, float, complex, str, bytes, type(None), Tensor})
_DATA: tuple[Any, ...] = (Tensor, *PLAIN, np.ndarray, np.generic, DType, enum.Enum)
_LOOKED_AT = 8  # items of a list in which a tensor is looked for


class IdentityMatters(BaseException):
    """An opened argument is written, kept, returned, or reached by another way.

    The runtime records again, with the object itself as part of the key, and so do later calls with
    objects of its class.
    """


class Opened:
    """Arguments with the containers among them opened.

    leaves   of all arguments
    forms    of the containers, for the key: where, class, names, structure, which one of them
    objects  (container, its names, its values)
    """

    def __init__(self, leaves: Iterable[Any]):
        self.leaves: list[Any] = []
        self.forms: list[tuple] = []
        self.objects: list[tuple[Any, tuple, list[Any]]] = []
        self._order: dict[int, int] = {}
        self._open(leaves, frozenset())

    def _open(self, leaves: Iterable[Any], inside: frozenset[int]) -> None:
        for leaf in leaves:
            content = None
            if leaf.__class__ not in PLAIN and id(leaf) not in inside:
                content = content_of(leaf, bool(inside))
            if content is None:
                self.leaves.append(leaf)
                continue
            names, values = content
            within, structure = flatten_in_order(values)
            which = self._order.setdefault(id(leaf), len(self._order))
            self.forms.append((len(self.leaves), type(leaf), names, structure, which))
            self.objects.append((leaf, names, values))
            self._open(within, inside | {id(leaf)})

    def kinds(self) -> set[type]:
        return {form[1] for form in self.forms}

    def unchanged(self) -> bool:
        """Whether every container holds what it held."""
        for owner, names, values in self.objects:
            now = content_of(owner, True)
            if now is None or now[0] != names or list(map(id, now[1])) != list(map(id, values)):
                return False
        return True

    def put_back(self) -> None:
        """Fields that the function has deleted or bound anew, as they were."""
        for owner, names, values in self.objects:
            for name, value in zip(names, values):
                if isinstance(name, str) and getattr(owner, name, None) is not value:
                    object.__setattr__(owner, name, value)

    def ids(self) -> set[int]:
        """Of the containers and of the dicts of their fields."""
        owners = [owner for owner, _, _ in self.objects]
        return {id(o) for o in owners} | {id(o.__dict__) for o in owners if hasattr(o, "__dict__")}


def content_of(value: Any, inside: bool) -> tuple[tuple, list[Any]] | None:
    """Names and values of a container to be opened; None for other things.

    Outside of another one, only with a tensor in it: settings are compared by identity, and what is
    read of them as facts.
    """
    kind, way = type(value), way_of(value)
    if way is None:
        return None
    fields = dict(getattr(value, "__dict__", ()))
    if way == "fields" and dataclasses.is_dataclass(kind):
        for field in dataclasses.fields(kind):
            if field.name not in fields and hasattr(value, field.name):
                fields[field.name] = getattr(value, field.name)
    names, values = tuple(fields), list(fields.values())
    if way == "entries":
        mapping: Any = OrderedDict if isinstance(value, OrderedDict) else dict
        names = (*names, *map(typed_key, mapping.keys(value)))
        values += mapping.values(value)
        if isinstance(value, defaultdict):
            values.append(value.default_factory)
    elif way == "items":
        values += (tuple if isinstance(value, tuple) else list).__iter__(value)
    elif way == "data" and not all(map(is_data, flatten_in_order(values)[0])):
        return None
    return (names, values) if inside or any(map(has_tensor, values)) else None


def way_of(value: Any) -> str | None:
    """How it is opened; kept for each class."""
    kind = type(value)
    if kind not in _ways:
        _ways[kind] = way_to_open(kind)
    return _ways[kind]


def way_to_open(kind: type) -> str | None:
    if kind in (types.SimpleNamespace, argparse.Namespace):
        return "fields"
    if not is_user_class(kind) or issubclass(kind, (Observed, Tensor, type)) or has_own_reads(kind):
        return None
    if issubclass(kind, dict):
        return "entries"
    if issubclass(kind, (list, tuple)):
        return "items"
    if dataclasses.is_dataclass(kind) or issubclass(kind, (UserDict, UserList)):
        return "fields"
    return "data" if kind.__dictoffset__ else None


def is_data(leaf: Any) -> bool:
    """Whether a leaf is what batches are made of: no model, optimiser or function."""
    return isinstance(leaf, _DATA) or way_of(leaf) in ("fields", "entries", "items")


def has_tensor(value: Any, depth: int = 3) -> bool:
    """Whether there is one not far inside: all of a long list is not worth a look at every call."""
    if isinstance(value, Tensor):
        return True
    if not depth or value.__class__ in PLAIN:
        return False
    inner: Iterable[Any] = ()
    if isinstance(value, dict):
        inner = dict.values(value)
    elif isinstance(value, (list, tuple)):
        inner = value[:_LOOKED_AT]
    elif way_of(value) == "fields":
        inner = list(getattr(value, "__dict__", {}).values())
    return any(has_tensor(item, depth - 1) for item in inner)


def paths(leaf: Any, path: str, inside: frozenset[int] = frozenset()) -> list[tuple[str, Any]]:
    """(path, value) of all leaves of one argument, in the order of `Opened`; for explanations."""
    content = None
    if leaf.__class__ not in PLAIN and id(leaf) not in inside:
        content = content_of(leaf, bool(inside))
    if content is None:
        return [(path, leaf)]
    names, values = content
    found = []
    for accessor, part in zip(accessors(values), flatten_in_order(values)[0]):
        place, _, rest = accessor.codify("")[1:].partition("]")
        known = names[int(place)] if int(place) < len(names) else place
        if isinstance(known, tuple):  # the key of an entry
            known = known[1]
        name = f".{known}" if isinstance(known, str) else f"[{known!r}]"
        found += paths(part, path + name + rest, inside | {id(leaf)})
    return found


_ways: WeakKeyDictionary[type, str | None] = WeakKeyDictionary()
