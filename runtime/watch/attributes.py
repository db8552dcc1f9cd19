"""Which attributes are read and written while recording.

`__getattribute__` and `__setattr__` are put on `Observed` and on the user's own classes for that
time; threads that do not record pass through them untouched.
"""

from __future__ import annotations

import sys
import threading
import types
from collections import OrderedDict, defaultdict, deque
from typing import Any

import numpy as np

from tracegrad.runtime.watch.facts import Place
from tracegrad.runtime.watch.pictures import ABSENT
from tracegrad.runtime.watch.sightings import (
    ATTRIBUTE_HOOKS,
    Sightings,
    fields_of,
    is_library,
    is_user_class,
)
from tracegrad.tracer.locate import here, is_own_code
from tracegrad.tracer.observed import (
    ItemRead,
    KeysRead,
    Observed,
    has_keys,
    recording_watch,
)
from tracegrad.tracer.tensor import Tensor
from tracegrad.tracer.trace.host import HostGuard
from tracegrad.tracer.trace.numbers import same_bits
from tracegrad.tracer.trace.recording import Trace


class AttributeWatch:
    """The attribute hooks of one recording.

    stored  what attributes held before the recording wrote them: (place, value) by the place's key
    """

    def __init__(self, trace: Trace):
        self.trace = trace
        self.sightings = Sightings(self.watch_class)
        self.stored: dict[tuple, tuple[Place, Any]] = {}

    def saw_attribute(self, owner: Any, name: str, value: Any) -> Any:
        """A read of `owner.name` while recording; value is ABSENT if there is none.

        Returns what the reader gets: the value, or numbers that are read again at every call.
        """
        sightings = self.sightings
        if isinstance(value, Tensor):
            self.trace.attribute_names.setdefault(id(value), name)
        kind = type(owner)
        if id(owner) in sightings.born or name in getattr(kind, "_noted_elsewhere", ()):
            return value
        if id(owner) in sightings.opened:
            sightings.add_class(kind)
            return value
        fields = None if in_slot(kind, name) else fields_of(owner)
        place = Place("item", fields, name)
        # Numbers that the library keeps for itself are keys, sizes and options.
        of_user = type(value) in (int, float) and not is_own_code(sys._getframe(2).f_code)
        changing = of_user and place.key in self.trace.varying
        if fields is not None and changing and place.key not in self.stored:
            sightings.add_class(kind)
            return self.trace.host_number((id(fields), name), ItemRead(fields, name), name)
        if issubclass(kind, Observed) and fields is not None and name in fields:
            if name in kind._host_numbers or self.trace.reached_by_host_action(fields):
                asked = self._host_value(fields, name, value)
                if asked is not ABSENT:
                    return asked
        if fields is None:
            if in_slot(kind, name):
                sightings.add(Place("attribute", owner, name), value, here())
        elif not sightings.has_seen(("item", id(fields), name)):
            if name in fields:
                of_metadata = getattr(kind, "_changes_count_as_metadata", False)
                sightings.add(place, fields[name], here(), of_metadata, of_attribute=of_user)
            else:
                self._found_in_class(kind, fields, name)
        sightings.add_class(kind)
        return value

    def _found_in_class(self, kind: type, fields: dict, name: str) -> None:
        """An instance has nothing under `name`, and no class before the one that answered has.

        What the class holds is a fact of the class already.
        """
        found, cls = static_attribute(kind, name)
        if cls is not None and name[:1] == "_" and is_library(cls.__module__):
            return
        if not isinstance(found, property):  # which comes before what the instance has
            self.sightings.add(Place("item", fields, name), ABSENT, here())
        for earlier in kind.__mro__[: kind.__mro__.index(cls)] if cls is not None else ():
            if is_user_class(earlier):
                self.sightings.add(Place("class", earlier, name), ABSENT, here())

    def _host_value(self, fields: dict, name: str, value: Any) -> Any:
        """A number, or a list of numbers, that Python code changes between or during calls.

        ABSENT for what is none, and as it was.
        """
        if type(value) in (int, float):
            return self.trace.host_number((id(fields), name), ItemRead(fields, name), name)
        if type(value) in (list, tuple) and all(type(item) is float for item in value):
            return type(value)(self._host_item(fields, name, k) for k in range(len(value)))
        if value is None or type(value) in (bool, str):
            self.trace.guard_host(ItemRead(fields, name), same_bits, value)
            return value
        if not self.trace.changed_by_host_action(fields, name):
            return ABSENT
        return self.sightings.complain(
            f"{name} is read after it was changed in this call",
            "read it before, or outside the compiled function",
            "its value is known only when the function runs",
        )

    def _host_item(self, fields: dict, name: str, k: int) -> Any:
        return self.trace.host_number(
            (id(fields), name, k), ItemRead(fields, name, k), f"{name}[{k}]"
        )

    def saw_fields(self, owner: Any, fields: dict) -> None:
        """`vars(owner)` in user code: all its attributes count."""
        sightings = self.sightings
        known = fields or id(owner) in sightings.outside  # a new object has nothing yet
        if known and id(owner) not in sightings.born and id(owner) not in sightings.opened:
            sightings.add(Place("attribute", owner, "__dict__"), fields, here())

    def will_store(self, owner: Any, name: str) -> None:
        """A write of `owner.name` is about to happen."""
        fields = None if in_slot(type(owner), name) else fields_of(owner)
        place = Place("attribute", owner, name) if fields is None else Place("item", fields, name)
        if id(owner) in self.sightings.outside and place.key not in self.stored:
            self.stored[place.key] = (place, self.sightings.held(place, place.read()))
        self.sightings.written(place)

    # -- items of optimizers' slots (tracegrad/optim/slots.py) ------------------------------------

    def saw_item(self, holder: dict, key: Any) -> Any:
        """A read of `holder[key]`. Returns what the reader gets: the value (ABSENT if there is none),
        or a number that is read again at every call (a count of steps).
        """
        place, value = Place("item", holder, key), dict.get(holder, key, ABSENT)
        if type(value) in (int, float) and place.key not in self.stored:
            return self.trace.host_number((id(holder), key), ItemRead(holder, key), str(key))
        self.sightings.add(place, value, here())
        return value

    def saw_names(self, holder: dict) -> None:
        """A question about all keys: those that were there before the recording count."""
        names = dict.keys(holder)
        before = [
            k for k in names if self.stored.get(("item", id(holder), k), (0, 0))[1] is not ABSENT
        ]
        guard = HostGuard(KeysRead(holder), has_keys, (*before,), True, here())
        self.trace.host_guards.append(guard)

    def will_store_item(self, holder: dict, key: Any) -> None:
        """A write of `holder[key]` is about to happen."""
        place = Place("item", holder, key)
        self.stored.setdefault(place.key, (place, dict.get(holder, key, ABSENT)))
        self.sightings.written(place)

    # -- installing the hooks --------------------------------------------------------------------

    def install(self) -> None:
        self.trace.watch = self
        for name in ATTRIBUTE_HOOKS:
            self._hook(Observed, name)
        self._hook(Tensor, "__setattr__", _tensor_setattr)

    def watch_class(self, cls: type) -> None:
        """Hook a user's class, unless it has its own way with attributes."""
        if issubclass(cls, Observed):
            return  # inherits the hooks
        for name in ATTRIBUTE_HOOKS:
            if getattr(cls, name) in _USUAL_WAYS or getattr(cls, name) is _HOOK_FUNCTIONS[name]:
                self._hook(cls, name)

    def _hook(self, cls: type, name: str, function: Any = None) -> None:
        with _hooking:
            users = _hooked.setdefault(cls, [])
            if name not in cls.__dict__:
                try:
                    type.__setattr__(cls, name, function or _HOOK_FUNCTIONS[name])
                except TypeError:
                    return
            if self not in users:
                users.append(self)

    def uninstall(self) -> None:
        self.trace.watch = None
        with _hooking:
            for cls, users in list(_hooked.items()):
                if self in users:
                    users.remove(self)
                if not users:
                    del _hooked[cls]
                    for name, function in _HOOK_FUNCTIONS.items():
                        if cls.__dict__.get(name) in (function, _tensor_setattr):
                            type.__delattr__(cls, name)


# Types of C whose instances have attributes as any object has.
_BUILTIN = (
    object, list, tuple, dict, OrderedDict, defaultdict, set, frozenset, deque, int, float, complex, str, bytes,
    bytearray, BaseException, np.ndarray,
)  # fmt: skip
_USUAL_WAYS = frozenset(getattr(cls, name) for cls in _BUILTIN for name in ATTRIBUTE_HOOKS)

_hooked: dict[type, list[AttributeWatch]] = {}
_hooking = threading.RLock()  # two functions may be recorded at once, in two threads


def _observed_getattribute(self: Any, name: str) -> Any:
    try:
        value = object.__getattribute__(self, name)
    except AttributeError:
        if name[:2] != "__" and (watch := recording_watch()) is not None:
            watch.saw_attribute(self, name, ABSENT)
        raise
    if name[:2] != "__" and (watch := recording_watch()) is not None:
        return watch.saw_attribute(self, name, value)
    elif name == "__dict__" and not is_own_code(sys._getframe(1).f_code):
        if (watch := recording_watch()) is not None:
            watch.saw_fields(self, value)
    return value


def _observed_setattr(self: Any, name: str, value: Any) -> None:
    if (watch := recording_watch()) is not None:
        watch.will_store(self, name)
    object.__setattr__(self, name, value)


def _tensor_setattr(self: Any, name: str, value: Any) -> None:
    """Only what the class does not know itself is asked about: tensors write their fields often."""
    if name not in _OWN_FIELDS and self._traced is None and not hasattr(type(self), name):
        if (watch := recording_watch()) is not None:
            watch.sightings.complain(
                f"an attribute ({name}) of a tensor from outside is set",
                "set it on a module or another object, or outside the compiled function",
                "no later call would set it again",
            )
    object.__setattr__(self, name, value)


_OWN_FIELDS = frozenset({*Tensor.__dict__, *Tensor.__annotations__})
_HOOK_FUNCTIONS = dict(zip(ATTRIBUTE_HOOKS, (_observed_getattribute, _observed_setattr)))


def in_slot(kind: type, name: str) -> bool:
    """Whether instances keep `name` in one of `__slots__`, not in their dict."""
    return isinstance(static_attribute(kind, name)[0], types.MemberDescriptorType)


def static_attribute(kind: type, name: str) -> tuple[Any, type | None]:
    """What a class holds under `name`, without running descriptors, and which of its line holds it."""
    for cls in kind.__mro__:
        if name in cls.__dict__:
            return cls.__dict__[name], cls
    return None, None
