"""Facts: where a Python value was found while recording, and what it was.

All facts of a recording are checked by one generated function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracegrad.ir.loc import Loc
from tracegrad.runtime.pictures import ABSENT, PLAIN, unchanged
from tracegrad.tracer.tensor import metadata_changes

_IN_C = ("__class__", "__code__")  # attributes that are read without running Python code


class Place:
    """A name that can be read and bound: a dict's item, a closure cell, or an attribute."""

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
    text = repr(value) if isinstance(value, PLAIN) else f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def shown_snapshot(taken: tuple) -> str:
    if taken[0] in ("value", "same"):
        return "absent" if taken[1] is ABSENT else shown(taken[1])
    return f"the {taken[1].__name__} as it was"


# -- the check -----------------------------------------------------------------------------------


def checker(facts: list[Any]) -> Callable[[], int | None]:
    """A generated function: the number of the first fact that no longer holds, or None."""
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
