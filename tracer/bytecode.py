"""What the instructions of a user's function tell: which lines loops run again, who catches errors.

By the bytes: a recording watches what Python's own `dis` does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from opcode import opmap, opname
from types import CodeType

_JUMPS_BACK = frozenset(number for name, number in opmap.items() if "JUMP_BACKWARD" in name)
_EXTENDED_ARG = opmap["EXTENDED_ARG"]
_LOAD_GLOBAL = opmap["LOAD_GLOBAL"]
_ASK_FOR_VARIABLES = frozenset({"locals", "vars", "dir", "eval", "exec"})  # of the builtins
_ASK_FOR_FRAMES = frozenset({"_getframe", "currentframe"})
_NOTHING = frozenset({"CACHE", "PUSH_EXC_INFO", "NOP"})
_GOES_ON = frozenset({"CHECK_EXC_MATCH", "CHECK_EG_MATCH", "POP_EXCEPT"})
_CLEAN_UP = ["COPY", "POP_EXCEPT", "RERAISE"]  # the end of a handler that has raised
_ENTERS = frozenset({"BEFORE_WITH", "BEFORE_ASYNC_WITH", "LOAD_SPECIAL"})
_OUR_MANAGERS = frozenset({
    "no_grad", "enable_grad", "set_grad_enabled", "inference_mode", "autocast"
})  # fmt: skip
_LOADS = frozenset({
    "LOAD_NAME", "LOAD_GLOBAL", "LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_DEREF", "LOAD_CLASSDEREF",
    "LOAD_FROM_DICT_OR_DEREF", "LOAD_FROM_DICT_OR_GLOBALS",
})  # fmt: skip
_ATTRIBUTES = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_CALLS = frozenset({"CALL", "CALL_KW", "CALL_FUNCTION_EX"})
# Instructions that name a variable or an attribute: by how many bits their argument is shifted.
_SHIFT_OF_NAMES = {
    opmap[name]: shift
    for name, shift in (
        ("LOAD_NAME", 0), ("LOAD_GLOBAL", 1), ("LOAD_METHOD", 0),
        ("LOAD_ATTR", int(sys.version_info >= (3, 12))),
    )
    if name in opmap
}  # fmt: skip


def instructions(code: CodeType) -> Iterator[tuple[int, int, int]]:
    """Offset, number and argument of each."""
    extended = 0
    for offset, (number, argument) in enumerate(zip(code.co_code[::2], code.co_code[1::2])):
        argument |= extended << 8
        extended = argument if number == _EXTENDED_ARG else 0
        yield 2 * offset, number, argument


def lines_in_loops(code: CodeType) -> frozenset[int | None]:
    """The lines of a function that a loop in it runs again."""
    back = [
        (after_caches(code, offset) - 2 * distance, offset)
        for offset, number, distance in instructions(code) if number in _JUMPS_BACK
    ]  # fmt: skip
    return frozenset(
        line for start, end, line in code.co_lines()
        if any(first < end and start <= last for first, last in back)
    )  # fmt: skip


def after_caches(code: CodeType, offset: int) -> int:
    """Where the instruction after that at `offset` stands: from Python 3.13 on jumps have inline caches."""
    offset += 2
    while code.co_code[offset : offset + 1] == b"\0":  # CACHE
        offset += 2
    return offset


def asks_for_variables(code: CodeType) -> bool:
    """Whether a function may look at its own variables other than by their names."""
    if not _ASK_FOR_FRAMES.isdisjoint(code.co_names):
        return True
    return not _ASK_FOR_VARIABLES.isdisjoint(code.co_names) and any(
        code.co_names[argument >> 1] in _ASK_FOR_VARIABLES  # the last bit says how it is called
        for _, number, argument in instructions(code) if number == _LOAD_GLOBAL
    )  # fmt: skip


def may_catch(code: CodeType, offset: int) -> bool:
    """Whether an error at `offset` may end in the function itself: in an `except`, in a `with` (but for
    those of our own), in a `finally` that returns. Errs on the side of True.
    """
    entries = list(exception_table(code))
    met: set[int] = set()
    while (handler := handler_of(entries, offset)) is not None and handler not in met:
        met.add(handler)
        begins = min(start for start, _, target in entries if target == handler)
        if _swallows(code, entries, begins, handler):
            return True
        offset = handler
    return False


Entries = list[tuple[int, int, int]]


def handler_of(entries: Entries, offset: int) -> int | None:
    """Where an error at `offset` goes."""
    return next((target for start, end, target in reversed(entries) if start <= offset < end), None)


def exception_table(code: CodeType) -> Iterator[tuple[int, int, int]]:
    """Which instructions (from, to before) have which handler, as offsets.

    The format: Objects/exception_handling_notes.txt of CPython.
    """
    table = iter(code.co_exceptiontable)

    def number(first: int) -> int:
        value = first & 63
        while first & 64:
            first = next(table)
            value = value << 6 | first & 63
        return value

    for first in table:
        start = number(first)
        length, target, _ = (number(next(table)) for _ in range(3))
        yield 2 * start, 2 * (start + length), 2 * target


def _swallows(code: CodeType, entries: Entries, begins: int, handler: int) -> bool:
    """Whether a handler, of what stands from `begins` on, may let the function go on."""
    named = [
        (offset, opname[number]) for offset, number, _ in instructions(code) if offset >= handler
    ]
    body = [(offset, name) for offset, name in named if name not in _NOTHING]
    names = [name for _, name in body]
    if names[0] == "WITH_EXCEPT_START":
        return not _is_ours(code, begins)
    if names[:3] == _CLEAN_UP:
        return False
    end = handler_of(entries, body[0][0])  # where it cleans up after itself
    inside = [target for _, _, target in entries if target > handler and target != end]
    for k, (offset, name) in enumerate(body):
        if offset == end:
            return False
        if name in _GOES_ON and names[k - 1 : k + 2] != _CLEAN_UP:
            return True
        if name == "RERAISE" and offset < min(inside, default=offset + 1):
            return False  # it is its own, not that of a handler inside it
    return False


def _is_ours(code: CodeType, body: int) -> bool:
    """Whether the `with` item whose body begins at `body` is one call of a manager of ours, by its name:
    what stands on its line, after the item before.
    """
    line = line_at(code, body)  # of the first instruction, which takes what the manager has given
    item: list[tuple[str, str]] = []  # instructions, and what they name
    following: list[tuple[str, str]] = []
    for offset, number, argument in instructions(code):
        if offset >= body or line_at(code, offset) != line:
            continue
        name = opname[number]
        if name in _ENTERS:
            item, following = following or item, []
        elif name in _LOADS or name in _ATTRIBUTES or name in _CALLS:
            shift = _SHIFT_OF_NAMES.get(number)
            following.append((name, "" if shift is None else code.co_names[argument >> shift]))
    calls = sum(name in _CALLS for name, _ in item)
    path = 1
    while path < len(item) and item[path][0] in _ATTRIBUTES:
        path += 1
    return calls == 1 and item[path - 1][1] in _OUR_MANAGERS


def line_at(code: CodeType, offset: int) -> int | None:
    return next((line for start, end, line in code.co_lines() if start <= offset < end), None)
