"""One generated function that checks all facts of a recording: a call asks nothing of each by itself."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from types import CellType
from typing import Any

from tracegrad.runtime.watch.facts import Fact, HostFact, ItemFact
from tracegrad.runtime.watch.pictures import ABSENT
from tracegrad.tracer.observed import ItemRead, has_key, same_objects
from tracegrad.tracer.tensor import metadata_changes
from tracegrad.tracer.trace.numbers import is_a, same_bits, truth

_IN_C = ("__class__", "__code__")  # attributes that are read without running Python code
_COMPARISONS = {
    operator.lt: "<", operator.le: "<=", operator.gt: ">", operator.ge: ">=", operator.eq: "==", operator.ne: "!=",
}  # fmt: skip
_SHORT = 4  # identities compared one by one in the generated code


def checker(facts: list[Any]) -> Callable[[], int | None]:
    """A generated function: the number of the first fact that no longer holds, or None."""
    text = _Conditions()
    captured = {k for k, fact in enumerate(facts) if fact.of_metadata}
    lines = ["def check():", "    try:", "        pass"]
    if captured:  # captured tensors and hooks are looked at only after one of them has changed
        lines.append("        now = changes[0]")
        lines.append("        if now != seen[0]:")
        lines += [
            f"            if not ({text.condition(facts[k])}): return {k}" for k in sorted(captured)
        ]
        lines.append("            seen[0] = now")
    for k, fact in enumerate(facts):
        if k not in captured:
            lines.append(f"        if not ({text.condition(fact)}): return {k}")
    # What was there to be read in line is there no more: an empty cell, a number deleted.
    lines += ["    except Exception: return slowly()", "    return None"]
    names = {
        **text.names, "changes": metadata_changes, "seen": [-1],
        "get": dict.get, "item": dict.__getitem__, "has": dict.__contains__, "is_": operator.is_,
        "slowly": lambda: next((k for k, fact in enumerate(facts) if not fact.holds()), None),
    }  # fmt: skip
    # Our own text; no user input in it.
    exec(compile("\n".join(lines), "<tracegrad facts>", "exec"), names)
    check: Any = names["check"]
    check.facts = facts
    return check


class _Conditions:
    """Writes facts as Python expressions; `names` holds the objects in them."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {}
        self._known: dict[int, str] = {}

    def name(self, value: Any) -> str:
        """One name for each object."""
        name = self._known.get(id(value))
        if name is None:
            name = self._known[id(value)] = f"n{len(self._known)}"
            self.names[name] = value
        return name

    def condition(self, fact: Any) -> str:
        text: str | None = None
        if isinstance(fact, ItemFact):
            text = (
                f"get({self.name(fact.holder)}, {self.name(fact.name)}) is {self.name(fact.value)}"
            )
        elif isinstance(fact, HostFact):
            text = self._of_number(fact)
        elif isinstance(fact, Fact):
            text = self._of_place(fact)
        return text or f"{self.name(fact.holds)}()"

    def _of_number(self, fact: HostFact) -> str | None:
        guard = fact.guard
        read, constant = guard.read, guard.constant
        if guard.compare is has_key and type(constant) is str:
            holder = self.name(guard.read())
            return (
                f"has({holder}, {constant!r})"
                if guard.answer
                else f"not has({holder}, {constant!r})"
            )
        if not isinstance(read, ItemRead):
            return None
        value = f"item({self.name(read.holder)}, {read.key!r})"
        if read.index is not None:
            value += f"[{read.index}]"
        if guard.compare is truth:
            return value if guard.answer else f"not {value}"
        if guard.compare in _COMPARISONS and type(constant) in (int, float, bool):
            text = f"{value} {_COMPARISONS[guard.compare]} {self.name(constant)}"
            return text if guard.answer else f"not {text}"
        if guard.compare is same_bits and guard.answer:
            if constant is None or type(constant) is bool:
                return f"{value} is {constant!r}"
            if type(constant) in (int, str, float):
                return f"{value} is {self.name(constant)} or {self.name(fact.holds)}()"
        if guard.compare is is_a and guard.answer:
            return f"{value}.__class__ is {constant} or {self.name(fact.holds)}()"
        if guard.compare is same_objects and guard.answer:
            return self._of_identities(value, list, constant)
        return None

    def _of_place(self, fact: Fact) -> str | None:
        place, value, form = fact.place, fact.value, fact.snapshot[0]
        if place.kind == "attribute" and place.name in _IN_C:
            return f"{self.name(place.holder)}.{place.name} is {self.name(value)}"
        if place.kind == "cell" and type(place.holder) is CellType and value is not ABSENT:
            read = f"{self.name(place.holder)}.cell_contents"
        elif place.kind == "class" or (place.kind == "item" and type(place.holder) is dict):
            holder = place.holder.__dict__ if place.kind == "class" else place.holder
            name = repr(place.name) if type(place.name) is str else self.name(place.name)
            if value is ABSENT:
                return f"{name} not in {self.name(holder)}"
            read = f"{self.name(holder.get)}({name})"
        else:
            return None
        if form == "same":
            return f"{read} is {self.name(value)}"
        if form == "value" and (value is None or type(value) is bool):
            return f"{read} is {value!r}"
        if form == "value" and type(value) in (int, str, float):
            # The very object first: floats and strings are mostly not rebound.
            return f"{read} is {self.name(value)} or {self.name(fact.holds)}()"
        if form == "identities":
            return self._of_identities(read, *fact.snapshot[1:3])
        if form == "mapping" and fact.snapshot[1] is dict:
            keys, items = fact.snapshot[2]
            names = all(type(key) is str for key in keys)
            if names and all(item == ("value", None) for item in items):  # in order
                text = f"(x := {read}) == {self.name(dict.fromkeys(keys))}"
                return f"{text} and (*x,) == {self.name(keys)}" if keys else text
        return None

    def _of_identities(self, read: str, kind: type, items: Sequence[Any]) -> str | None:
        if kind not in (list, tuple):
            return None
        start = f"(x := {read}).__class__ is {kind.__name__} and len(x) == {len(items)}"
        if len(items) > _SHORT:
            return f"{start} and all(map(is_, {self.name(tuple(items))}, x))"
        return " and ".join([start, *[f"x[{k}] is {self.name(i)}" for k, i in enumerate(items)]])
