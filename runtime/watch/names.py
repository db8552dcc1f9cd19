"""What a function's code names: its globals, the attributes it reads, what it may find absent."""

from __future__ import annotations

import dis
import types
from collections.abc import Callable, Iterable
from typing import Any

_LOOKUPS = frozenset({
    "getattr", "hasattr", "setattr", "delattr", "__setattr__", "__delattr__", "vars", "globals", "__dict__", "modules",
})  # fmt: skip
ASKS = frozenset({"getattr", "hasattr", "vars", "globals", "__dict__"})
_HANDLES = dis.opmap["PUSH_EXC_INFO"]
_OF_OBJECTS = frozenset({
    "LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "STORE_ATTR", "DELETE_ATTR", "IMPORT_NAME", "IMPORT_FROM",
})  # fmt: skip
_GLOBAL_STEPS = frozenset(dis.hasname) - {dis.opmap.get(name) for name in _OF_OBJECTS}


def names_tried(code: types.CodeType) -> frozenset[tuple[str, str]]:
    """(variable, attribute or "") that code reads itself, if it may handle that they are not there."""
    if _HANDLES not in code.co_code[::2]:
        return frozenset()
    found, variable = set(), ""
    for step in dis.get_instructions(code):
        name = step.argval if type(step.argval) is str else ""
        if step.opname == "LOAD_GLOBAL":
            found.add((name, ""))
        if step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            found.add((variable, name))
        variable = name if step.opname.startswith("LOAD_") else ""
    return frozenset(found)


def names_in(code: types.CodeType, values: Iterable[Any] = ()) -> set[str]:
    """Globals and attributes that a function's code names, with those of the functions inside it.

    Where it can look names up by itself (getattr, globals()) its strings, and those among `values`, count.
    """
    return _names_in(code, values, lambda code: code.co_names)


def globals_in(code: types.CodeType, values: Iterable[Any] = ()) -> set[str]:
    """Those of `names_in` that may be globals: `optimizer.step()` reads no global `step`."""
    return _names_in(code, values, _own_globals)


def _names_in(
    code: types.CodeType, values: Iterable[Any], own: Callable[[types.CodeType], Iterable[str]]
) -> set[str]:
    names = set(own(code))
    if not _LOOKUPS.isdisjoint(code.co_names):
        names.update(text for text in (*code.co_consts, *values) if type(text) is str)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names_in(constant, values, own)
    return names


def _own_globals(code: types.CodeType) -> set[str]:
    return {s.argval for s in dis.get_instructions(code) if s.opcode in _GLOBAL_STEPS}
