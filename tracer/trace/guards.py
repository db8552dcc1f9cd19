"""What Python was told of a tensor's value while it was recorded, and the loops that show in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tracegrad.ir import loc as _loc
from tracegrad.ir.graph import Node, postorder
from tracegrad.passes.autodiff_stages import Stage


@dataclass(eq=False)
class Guard:
    """An answer that Python was given: later runs follow this path while they give the same.

    kind  "bool": the truth of a 0-d bool; "bits": the exact bytes
    made  the values of tensors made since the question before
    in_loop  whether the line that asked stands in a loop
    held     the values that variables had then, by name
    drawn    the positions of random streams that were drawn from since the question before
    """

    node: Node
    kind: str
    answer: Any
    loc: _loc.Loc
    why: str
    made: list[Node]
    in_loop: bool
    held: Mapping[Any, Node]
    drawn: list[Node]


def line_of(guard: Guard) -> tuple[str, int]:
    """The line of the user's that asked."""
    return guard.loc.file, guard.loc.line


def turns(guards: Sequence[Guard]) -> dict[int, Stage]:
    """What is computed up to each question of a loop, from the question of one before: the turns of
    loops and, first, what is before them. By how many questions were answered then.
    """
    asked = Counter(map(line_of, guards))
    known: set[Node] = set()
    stages: dict[int, Stage] = {}
    before: dict[tuple[str, int], Guard] = {}
    current: list[Node] = []
    for answered, guard in enumerate(guards, 1):
        reached = postorder((guard.node, *guard.made), stop=known.__contains__)
        new = [n for n in reached if n not in known]
        current += new
        known.update(new)
        if guard.in_loop or asked[line_of(guard)] > 1:
            line = line_of(guard)
            turn = before.get(line)
            carried = {} if turn is None else rebound(turn.held, guard.held, current)
            stages[answered] = Stage(current, turn is not None, carried)
            before[line] = guard
            current = []
    return stages


def rebound(
    before: Mapping[Any, Node], after: Mapping[Any, Node], turn: Sequence[Node]
) -> dict[Node, Node]:
    """What a loop carries from turn to turn: the values, before and after, of the variables that the
    turn reads and binds anew.
    """
    read = {operand for node in turn for operand in node.inputs}
    return {
        old: after[name] for name, old in before.items()
        if old in read and after.get(name, old) is not old
    }  # fmt: skip
