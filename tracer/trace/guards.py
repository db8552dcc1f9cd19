"""What Python was told of a tensor's value while it was recorded, and the loops that show in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tracegrad.ir import loc as _loc
from tracegrad.ir import ops
from tracegrad.ir.graph import Node, postorder
from tracegrad.passes.autodiff_stages import Stage


@dataclass(eq=False)
class Guard:
    """An answer that Python was given: later runs follow this path while they give the same.

    kind     "bool": the truth of a 0-d bool; "bits": the exact bytes
    made     the values of tensors made since the question before
    in_loop  whether a loop runs the line again that asked, or one that calls it
    held     the values that variables had then, by name
    numbers  those of variables that held a number of Python's, by name
    drawn    the positions of random streams that were drawn from since the question before
    streams  those of streams that are drawn from first after the question, by generator
    """

    node: Node
    kind: str
    answer: Any
    loc: _loc.Loc
    why: str
    made: list[Node]
    in_loop: bool
    held: Mapping[Any, Node]
    numbers: Mapping[Any, float]
    drawn: list[Node]
    streams: dict[Any, Node] = field(default_factory=dict)

    def replace_nodes(self, new: Mapping[Node, Node]) -> None:
        """Let others stand for its nodes; what a variable held may be one that nothing computes."""
        self.node = new[self.node]
        self.made = [new[n] for n in self.made]
        self.held = {name: new.get(n, n) for name, n in self.held.items()}
        self.drawn = [new[n] for n in self.drawn]
        self.streams = {key: new.get(n, n) for key, n in self.streams.items()}


def line_of(guard: Guard) -> tuple[str, int]:
    """The line of the user's that asked."""
    return guard.loc.file, guard.loc.line


def asked_by_loops(guards: Sequence[Guard]) -> list[bool]:
    """Of each question, whether a loop asks it, or its line has asked more than once (a function that
    calls itself, say).
    """
    asked = Counter(map(line_of, guards))
    return [guard.in_loop or asked[line_of(guard)] > 1 for guard in guards]


def turns(guards: Sequence[Guard]) -> dict[int, Stage]:
    """What is computed up to each question of a loop, from the question of one before: the turns of
    loops and, first, what is before them. By how many questions were answered then.
    """
    in_loops = asked_by_loops(guards)
    known: set[Node] = set()
    stages: dict[int, Stage] = {}
    begun = begun_with(guards)
    before: dict[tuple[str, int], int] = {}
    current: list[Node] = []
    for answered, guard in enumerate(guards, 1):
        reached = postorder((guard.node, *guard.made), stop=known.__contains__)
        new = [n for n in reached if n not in known]
        current += new
        known.update(new)
        if in_loops[answered - 1]:
            line = line_of(guard)
            last = before.get(line)
            carried: dict[Node, Node] = {}
            if last is not None:
                carried = rebound({**guards[last].held, **begun.get(last, {})}, guard.held, current)
            stages[answered] = Stage(current, last is not None, carried)
            before[line] = answered - 1
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


def begun_with(guards: Sequence[Guard]) -> dict[int, dict[Any, Node]]:
    """What a turn begins with though it shows in the turn only, by question and name: positions of
    random streams, and numbers of Python's.
    """
    found = {k: dict(guard.streams) for k, guard in enumerate(guards) if guard.streams}
    before: dict[tuple[str, int], int] = {}
    for k, guard in enumerate(guards):
        last = before.get(line_of(guard))
        before[line_of(guard)] = k
        if last is not None and (numbers := numbers_bound(guards, last, guard)):
            found.setdefault(last, {}).update(numbers)
    return found


def numbers_bound(guards: Sequence[Guard], last: int, guard: Guard) -> dict[Any, Node]:
    """Variables that hold a number of Python's at question `last` of a loop, until the turn up to `guard`
    binds them to a tensor (`total = 0` before the loop): the constant that stands for the number.
    """
    numbers = guards[last].numbers
    names = [name for name in numbers if name in guard.held]
    if not names:
        return {}
    known = set(postorder([n for g in guards[: last + 1] for n in (g.node, *g.made)]))
    found = {}
    for name in names:
        reached = postorder((guard.held[name],), stop=known.__contains__)
        constants = [
            n for n in reached if n.op is ops.constant and n not in known and not n.shape
            and n.attrs.value.splat == numbers[name]
        ]  # fmt: skip
        if len(constants) == 1:
            found[name] = constants[0]
    return found
