"""Where a node comes from: the user's file and line, the module path, and the steps that made it.

The tracer sets the ambient location to the user's frame. What makes nodes from nodes sets it to the
location of the one that a new node stands for, one step later: the autodiff walk (`vjp(op)`), the
rewrite driver (the rule's name), and each other pass that emits. `emit` reads it; nothing else
copies locations around.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

ALSO_CAP = 8  # origins kept after merges: enough to read, bounded for long fusion groups


@dataclass(frozen=True, slots=True)
class Loc:
    """One origin. `scope` is the attribute path of the module call, e.g. "block1.attn"."""

    file: str
    line: int
    function: str = ""
    scope: str = ""
    via: tuple[str, ...] = ()  # steps, oldest first: ("vjp(tanh)", "mul-one")
    also: tuple[Loc, ...] = ()  # other origins, after a merge

    def through(self, step: str) -> Loc:
        """This origin, one derivation step later."""
        if self.via and self.via[-1] == step:
            return self
        # Not `replace`: this runs for every node that autodiff and the rules emit.
        via = (*self.via, step)
        return Loc(self.file, self.line, self.function, self.scope, via, self.also)

    def merged(self, others: tuple[Loc, ...]) -> Loc:
        """This origin, remembering (up to ALSO_CAP of) the others it was merged with."""
        seen = {(self.file, self.line)}
        also = []
        for other in (*self.also, *others):
            if (other.file, other.line) not in seen:
                seen.add((other.file, other.line))
                also.append(replace(other, also=()))
        return replace(self, also=tuple(also[:ALSO_CAP]))

    def __str__(self) -> str:
        text = f"{self.file}:{self.line}"
        if self.function:
            text += f" in {self.function}"
        if self.scope:
            text += f" @ {self.scope}"
        if self.via:
            text += " <- " + " <- ".join(self.via)
        return text


UNKNOWN = Loc("<unknown>", 0)

_ambient: ContextVar[Loc] = ContextVar("tracegrad_loc", default=UNKNOWN)


def current() -> Loc:
    """The location that the next emitted node gets."""
    return _ambient.get()


@contextmanager
def at(loc: Loc) -> Iterator[None]:
    """Nodes emitted inside come from `loc`."""
    token = _ambient.set(loc)
    try:
        yield
    finally:
        _ambient.reset(token)


def set_ambient(loc: Loc) -> object:
    """`at` without a context manager, for loops that set it once a node; see `reset_ambient`."""
    return _ambient.set(loc)


def reset_ambient(token: object) -> None:
    _ambient.reset(token)  # type: ignore[arg-type]
