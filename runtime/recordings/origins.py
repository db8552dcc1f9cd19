"""Which objects were there before a recording, and how another call finds its own of them.

What a function returns or keeps of its arguments is, at every call, what that call was given; what
it returns or keeps of the world outside is that very object. Anything else it has made itself
(made.py).
"""

from __future__ import annotations

import gc
import sys
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator
from typing import Any, NoReturn

from tracegrad.ir.loc import Loc
from tracegrad.runtime.calls.containers import IdentityMatters
from tracegrad.runtime.calls.keys import Same, value_key
from tracegrad.runtime.calls.signature import Call
from tracegrad.runtime.watch.facts import CallFact, Fact, Place
from tracegrad.runtime.watch.pictures import ABSENT, LEAVES, fields_of, parts_of
from tracegrad.runtime.watch.sightings import Sightings
from tracegrad.tracer.errors import UnsupportedError

Path = tuple[Any, ...]  # keys and positions, one a container
CONTAINERS = frozenset({list, dict, OrderedDict, defaultdict, deque})  # new ones in every structure


class Origins:
    """Made when the function has returned, before what only it has made is looked at."""

    def __init__(self, sightings: Sightings, call: Call, where: Loc):
        self.sightings, self.where = sightings, where
        self._call = call
        self._facts = sightings.of_values()
        self._outside = set(sightings.outside)
        self._cached = {  # kept from now on, whoever has made it
            id(value)
            for function in sightings.cached.values()
            for value in gc.get_referents(*gc.get_referents(function))
        }
        self._born = sightings.born
        # Positions of leaves, paths of containers.
        self._arguments: dict[int, list[Any]] | None = None
        self._places: dict[int, list[tuple[Place, Path]]] = {}
        self._inside_opened: set[int] = set()  # containers in arguments that are known by content

    def argument(self, value: Any) -> Any:
        """What finds this object among a call's arguments: a leaf's position, or the path of a
        container. None if it is not there.

        Raises IdentityMatters for what is known by its content, UnsupportedError.
        """
        found = self._look()[0].get(id(value))
        if id(value) in self._inside_opened or id(value) in self.sightings.opened:
            raise IdentityMatters
        if found is None:
            return None
        if isinstance(found[0], int) and isinstance(value_key(value), Same):
            return found[0]  # the key says which object it is
        if len(found) > 1 or id(value) in self._places:
            again = (
                "twice among the arguments" if len(found) > 1 else "both given and found outside"
            )
            self.refuse(
                f"a {type(value).__name__} that is {again} is returned or kept",
                "give each its own, or return what is in it",
                "which of the two another call means cannot be told",
            )
        return found[0]

    def is_outside(self, value: Any) -> bool:
        """Whether the object was there before, outside the arguments.

        A container found by its content is from now on also told by identity.
        """
        if id(value) in self._cached or self.expect(value):
            return True
        if id(value) in self._born and has_fields(value):
            return False
        return id(value) in self._outside or has_own_name(value)

    def refuse(self, what: str, fix: str, why: str) -> NoReturn:
        raise UnsupportedError(what, where=self.where, why=why, fix=fix)

    def _look(self) -> tuple[dict[int, list[Any]], dict[int, list[tuple[Place, Path]]]]:
        """Arguments and outside containers by id; looked for once something asks."""
        if self._arguments is None:
            self._arguments = {}
            for k, leaf in enumerate(self._call.leaves):
                self._arguments.setdefault(id(leaf), []).append(k)
            for path, container in containers((self._call.args, self._call.kwargs)):
                self._arguments.setdefault(id(container), []).append(path)
            opened = self._call.opened
            for _, _, values in opened.objects if opened is not None else ():
                self._inside_opened.update(id(c) for _, c in containers((values, ())))
            for fact in self._facts:
                for path, value in contents(fact):
                    self._places.setdefault(id(value), []).append((fact.place, path))
        return self._arguments, self._places

    def expect(self, value: Any) -> bool:
        """Whether a fact has found this container by its content: then it is told by identity too."""
        places = self._look()[1].get(id(value))
        if places is None:
            return False
        key = ("identity", id(value))
        if any(fact.key == key for fact in self.sightings.facts):
            return True
        name = places[0][0].name
        self.sightings.facts.append(
            CallFact(
                lambda: all(found_at(place, path) is value for place, path in places),
                lambda: (
                    f"{name}: another {type(value).__name__} than the one that was returned, kept or changed"
                ),
                key,
            )
        )
        return True


def containers(tree: Any) -> Iterator[tuple[Path, Any]]:
    """The lists and dicts in a call's arguments with their paths from (args, kwargs)."""
    rest: list[tuple[Path, Any]] = [((), tree)]
    while rest:
        path, value = rest.pop()
        kind = type(value)
        if kind in CONTAINERS and len(path) > 1:
            yield path, value
        if kind in (dict, OrderedDict, defaultdict):
            rest += [((*path, key), item) for key, item in value.items()]
        elif kind in (list, deque) or isinstance(value, tuple):
            rest += [((*path, k), item) for k, item in enumerate(value)]


def follow(tree: Any, path: Path) -> Any:
    for step in path:
        tree = tree[step]
    return tree


def contents(fact: Fact) -> Iterator[tuple[Path, Any]]:
    """What a fact knows by content, with the way to it from the fact's place."""
    rest: list[tuple[Path, tuple]] = [((), fact.snapshot)]
    while rest:
        path, taken = rest.pop()
        form = taken[0]
        if form in LEAVES:
            continue
        yield path, taken[3]
        if form == "sequence" or form == "parts":
            rest += [((*path, (form, k)), item) for k, item in enumerate(taken[2])]
        elif form == "mapping":
            keys, items = taken[2]
            rest += [((*path, (form, key)), item) for key, item in zip(keys, items)]


def found_at(place: Place, path: Path) -> Any:
    """The object that stands there now; ABSENT if there is none."""
    value = place.read()
    for form, step in path:
        try:
            if form == "mapping":
                value = dict.get(fields_of(value), step, ABSENT)
            else:
                value = parts_of(value)[step] if form == "parts" else value[step]
        except (LookupError, TypeError, AttributeError):
            return ABSENT
    return value


def has_fields(value: Any) -> bool:
    """Whether the object has a dict of attributes: one that has not is in `born` when it is written."""
    try:
        object.__getattribute__(value, "__dict__")
    except AttributeError:
        return False
    return True


def has_own_name(value: Any) -> bool:
    """Whether it is a function or class that its module has under its name: no call has made it."""
    if not isinstance(value, (types.FunctionType, types.BuiltinFunctionType, type)):
        return False
    found: Any = sys.modules.get(value.__module__ or "")
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is value
