"""What Python was told of a tensor's value while it was recorded, and the loops that show in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tracegrad.ir import loc as _loc
from tracegrad.ir.graph import Node, postorder


@dataclass(eq=False)
class Guard:
    """An answer that Python was given: later runs follow this path while they give the same.

    kind  "bool": the truth of a 0-d bool; "bits": the exact bytes
    made  the values of tensors made since the question before
    """

    node: Node
    kind: str
    answer: Any
    loc: _loc.Loc
    why: str
    made: list[Node]


def line_of(guard: Guard) -> tuple[str, int]:
    """The line of the user's that asked."""
    return guard.loc.file, guard.loc.line


def turns(guards: Sequence[Guard]) -> dict[int, list[Node]]:
    """What is computed up to each question that is asked again, at a line where one was asked
    before: the turns of loops, but for the last, and what is before them. By how many questions
    were answered then.
    """
    cuts_then: dict[tuple[str, int], int] = {}  # when the line asked last
    known: set[Node] = set()
    stages: dict[int, list[Node]] = {}
    current: list[Node] = []
    for asked, guard in enumerate(guards):
        line = line_of(guard)
        if cuts_then.get(line) == len(stages):
            stages[asked] = current
            current = []
        cuts_then[line] = len(stages)
        reached = postorder((guard.node, *guard.made), stop=known.__contains__)
        new = [n for n in reached if n not in known]
        current += new
        known.update(new)
    return stages
