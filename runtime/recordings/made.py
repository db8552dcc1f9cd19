"""Objects that a function makes: taken apart once, put together anew after every run.

No code of their classes runs for that: an object is made as pickle makes one, without `__init__`,
and its content and attributes are what they were when it was returned.
"""

from __future__ import annotations

import argparse
import copy
import enum
import functools
import types
from array import array
from collections import Counter, OrderedDict, UserDict, UserList, UserString, defaultdict, deque
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracegrad.ir.types import DType
from tracegrad.runtime.watch.pictures import ABSENT
from tracegrad.runtime.watch.sightings import is_library, is_user_class
from tracegrad.tracer.device import Device
from tracegrad.tracer.dispatch import UserOp
from tracegrad.tracer.observed import Observed

_DICTS = (OrderedDict, defaultdict, dict)
_LISTS = (list, deque, set)
_ITEMS = (*_LISTS, tuple, frozenset)
_BASES = (*_DICTS, *_ITEMS, types.SimpleNamespace, object)
# Classes of Python's own whose instances are no more than their content.
_PLAIN_CLASSES = frozenset(
    {*_BASES, Counter, UserDict, UserList, UserString, argparse.Namespace}
) - {object}  # fmt: skip
_WITH_PARTS = (types.MethodType, functools.partial, slice)
_COPIED = (np.ndarray, bytearray, array)
_VALUES = (int, float, complex, str, bytes)
_IMMUTABLE = (
    type(ABSENT), type(None), type(Ellipsis), type(NotImplemented), range, enum.Enum, types.ModuleType, types.CodeType,
    np.dtype, np.ufunc, DType, Device, UserOp, types.WrapperDescriptorType, types.MethodDescriptorType,
    types.GenericAlias, types.UnionType,
)  # fmt: skip
_EMPTY = types.CellType()
_IMMUTABLE_NAMES = frozenset({
    "datetime.date", "datetime.time", "datetime.timedelta", "datetime.tzinfo", "decimal.Decimal",
    "fractions.Fraction", "pathlib.PurePath", "pathlib._local.PurePath", "re.Pattern", "uuid.UUID",
})  # fmt: skip


def is_immutable(value: Any) -> bool:
    """Whether one object can serve all calls: nothing in it can change, or belong to a call."""
    if isinstance(value, enum.Enum):
        return True
    if isinstance(value, (*_VALUES, tuple, frozenset)):
        return not attributes_of(value) and (
            isinstance(value, _VALUES) or all(map(is_immutable, value))
        )
    if isinstance(value, types.FunctionType):
        parts = (value.__closure__, value.__defaults__, value.__kwdefaults__, value.__dict__)
        return not any(parts)
    if isinstance(value, types.BuiltinFunctionType):
        return value.__self__ is None or isinstance(value.__self__, (types.ModuleType, type))
    if isinstance(value, slice):
        return is_immutable((value.start, value.stop, value.step))
    if isinstance(value, type):
        return not any(map(holds_values, list(value.__dict__.values())))
    if isinstance(value, np.generic):
        return not isinstance(value, np.void)
    return isinstance(value, _IMMUTABLE) or any(
        f"{cls.__module__}.{cls.__qualname__}" in _IMMUTABLE_NAMES for cls in type(value).__mro__
    )


def holds_values(attribute: Any) -> bool:
    """Whether an attribute of a class is a method, of the user's, that holds values of a call."""
    function = getattr(attribute, "__func__", getattr(attribute, "fget", attribute))
    if not isinstance(function, types.FunctionType) or function.__code__.co_filename[:1] == "<":
        return False  # generated, as those of a dataclass are
    if is_library(function.__globals__.get("__name__")):
        return False
    cells = zip(function.__code__.co_freevars, function.__closure__ or ())
    return any(
        name != "__class__" and cell != _EMPTY and not isinstance(cell.cell_contents, type)
        and not is_immutable(cell.cell_contents)
        for name, cell in cells
    )  # fmt: skip


def is_copied(value: Any) -> bool:
    """Whether it is memory of Python's or NumPy's own that every call gets a copy of."""
    if isinstance(value, np.ndarray) and value.dtype == object:
        return False
    return isinstance(value, _COPIED) and not is_user_class(type(value))


copied = copy.copy


@dataclass(frozen=True)
class Form:
    """How an object is made of parts: its content, then what its attributes hold.

    base    the class of Python's that keeps the content
    items   how many parts are content (of a dict: keys, then as many values)
    names   of attributes in `__dict__`, and in slots
    extra   what the base is made with beside its content: a deque's length
    """

    kind: type
    base: type
    items: int = 0
    names: tuple[str, ...] = ()
    slots: tuple[tuple[Any, str], ...] = ()
    extra: Any = None

    @property
    def at_once(self) -> bool:
        """Whether it can only be made when its parts are there."""
        return self.base in (tuple, frozenset) or self.base in _WITH_PARTS

    def blank(self) -> Any:
        """The object without its parts: they may hold it."""
        base: Any = self.base
        new = base.__new__(self.kind)
        if self.base is deque:
            deque.__init__(new, maxlen=self.extra)
        return new

    def whole(self, parts: list[Any]) -> Any:
        if self.base is types.MethodType:
            return types.MethodType(parts[1], parts[0])
        if self.base is functools.partial:
            return functools.partial(parts[0], *parts[1], **parts[2])
        if self.base is slice:
            return slice(*parts)
        new = self.base.__new__(self.kind, parts[: self.items])
        self._set_attributes(new, parts[self.items :])
        return new

    def fill(self, new: Any, parts: list[Any]) -> None:
        count = self.items
        if self.base in _DICTS:
            for key, value in zip(parts[:count], parts[count : 2 * count]):
                self.base.__setitem__(new, key, value)
            count *= 2
            if self.base is defaultdict:
                new.default_factory = parts[count]
                count += 1
        elif self.base in _LISTS:
            base: Any = self.base
            (set.update if base is set else base.extend)(new, parts[:count])
        self._set_attributes(new, parts[count:])

    def _set_attributes(self, new: Any, values: list[Any]) -> None:
        if self.names:
            object.__getattribute__(new, "__dict__").update(zip(self.names, values))
        for (member, _), value in zip(self.slots, values[len(self.names) :]):
            member.__set__(new, value)


def take_apart(value: Any) -> tuple[Form, list[Any]] | None:
    """The object as a form and its parts, or None where only its class knows how one is made."""
    kind = type(value)
    if kind is types.MethodType:
        return Form(kind, kind), [value.__self__, value.__func__]
    if kind is functools.partial:
        return Form(kind, kind), [value.func, value.args, value.keywords]
    if kind is slice:
        return Form(kind, kind), [value.start, value.stop, value.step]
    if not (kind in _PLAIN_CLASSES or is_user_class(kind)) or issubclass(kind, Observed):
        return None
    base: Any = next(base for base in _BASES if issubclass(kind, base))
    if kind.__new__ is not base.__new__:
        return None
    items: list[Any] = []
    extra = None
    if base in _DICTS:
        items = [*base.keys(value), *base.values(value)]
    elif base in _ITEMS:
        items = list(base.__iter__(value))
    count = len(items) // 2 if base in _DICTS else len(items)
    if base is defaultdict:
        items.append(value.default_factory)
    elif base is deque:
        extra = value.maxlen
    names, slots = attributes_of(value), slots_of(value)
    values = object.__getattribute__(value, "__dict__") if names else {}
    held = [values[name] for name in names]
    held += [member.__get__(value, kind) for member, _ in slots]
    return Form(kind, base, count, names, slots, extra), [*items, *held]


def attributes_of(value: Any) -> tuple[str, ...]:
    """Names in the object's own `__dict__`."""
    try:
        fields = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return ()
    return tuple(fields) if type(fields) is dict else ()


def slots_of(value: Any) -> tuple[tuple[Any, str], ...]:
    """The slots, of Python classes, that hold something."""
    found = []
    for cls in type(value).__mro__:
        if is_user_class(cls):
            for name, member in cls.__dict__.items():
                if isinstance(member, types.MemberDescriptorType):
                    try:
                        member.__get__(value, cls)
                    except AttributeError:
                        continue
                    found.append((member, name))
    return tuple(found)


def why_not(value: Any) -> tuple[str, str, str]:
    """(what it is, what to do instead, why) for an object that cannot be made anew."""
    kind = type(value).__name__
    if isinstance(value, Coroutine):
        value.close()  # it is never awaited
        return (
            "a coroutine",
            "compile the plain function that it calls, and await outside",
            "it runs after the recording is over",
        )
    if isinstance(value, Iterator):
        return (
            f"a new iterator ({kind})",
            "return a list or a tuple of its items",
            "it runs after the recording is over, and only once",
        )
    if isinstance(value, types.FunctionType):
        return (
            f"a new function ({value.__qualname__}) that holds values",
            "return the values, and make the function outside",
            "it would hold the values of this call at every call",
        )
    if isinstance(value, Observed):
        return (
            f"a new {kind}",
            "make it outside the compiled function, and copy values into it there",
            "its parameters would be results of the graph, not parameters",
        )
    if isinstance(value, np.ndarray):
        return (
            f"a new {kind} of objects" if value.dtype == object else f"a new view of a {kind}",
            "return a list of the objects" if value.dtype == object else "return a .copy() of it",
            "every call would have to make one of its own",
        )
    return (
        f"a new {kind}",
        "return its tensors or numbers, or let it be a dataclass or a plain class",
        "every call would have to make one, and only its class knows how",
    )
