"""What a segment of a path computes, and what it hands on: sets of nodes, found by walking.

A segment computes the backward slice of its guard. One that a loop asks for at every turn computes
the rest of the turn, too, which later turns or the results read: then equal turns are equal
programs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping
from dataclasses import replace
from typing import Any

from tracegrad.ir import ops
from tracegrad.ir.graph import Node, postorder
from tracegrad.ir.types import TensorType
from tracegrad.passes.autodiff_stages import looked_at
from tracegrad.tracer.errors import UnsupportedError
from tracegrad.tracer.trace.guards import Guard, asked_by_loops, line_of, turns
from tracegrad.tracer.trace.host import HostRead

# The `proj` nodes that are one part of a several-result node.
Parts = dict[tuple[Node, int] | None, list[Node]]


def part_key(node: Node) -> tuple[Node, int] | None:
    return (node.inputs[0], node.attrs["index"]) if node.op is ops.proj else None


def parts_of(roots: list[Node]) -> Parts:
    parts: Parts = {}
    for node in postorder(roots):
        if node.op is ops.proj:
            parts.setdefault(part_key(node), []).append(node)
    return parts


def distinct(guards: list[Guard]) -> list[Guard]:
    """Each question once; the first answer is that to all like it."""
    seen: set[tuple[Node, str]] = set()
    found: list[Guard] = []
    made: list[Node] = []
    for guard in guards:
        made += guard.made
        if (guard.node, guard.kind) not in seen:
            seen.add((guard.node, guard.kind))
            found.append(replace(guard, made=made))
            made = []
    return found


def for_turns(guards: list[Guard]) -> list[Node]:
    """What turns of loops hand on to the next one; where none was met, what it may begin with."""
    asked = Counter(map(line_of, guards))
    carried = [node for stage in turns(guards).values() for node in stage.carried.values()]
    for guard, in_loop in zip(guards, asked_by_loops(guards)):
        if in_loop:
            carried += guard.drawn
        if in_loop and asked[line_of(guard)] == 1:
            held = set(guard.held.values())
            carried += [node for node in guard.made if node in held]
    return carried


def readings(
    home: Mapping[Node, int], guards: list[Guard], finals: list[Node]
) -> Iterator[tuple[Node, Node]]:
    """The values that have a home and are read elsewhere, each with its reader."""
    for reader in postorder((*(guard.node for guard in guards), *finals)):
        for value in reader.inputs:
            if value in home and home[value] != home.get(reader):
                yield value, reader


def positions_carried(guards: list[Guard], finals: list[Node]) -> list[list[int]]:
    """For each question of a loop, which of the values made before it (positions in `made`) are read
    after it; none for other questions.

    Turns that are alike carry alike: what is read after one of them counts for all, so that they
    share an executable. The first question carries what turns read: the rest (the gradient of a loop
    before, say) is for the end, which runs in pieces.
    """
    stage: dict[Node, int] = {}
    for k, guard in enumerate(guards):
        for node in postorder((guard.node, *guard.made), stop=stage.__contains__):
            stage.setdefault(node, k)
    read = {*finals, *(value for value, _ in readings(stage, guards, finals))}
    first: set[int] = set()
    turns_of: dict[tuple[str, int], set[int]] = {}
    for k, guard in enumerate(guards):
        line = line_of(guard)
        if line not in turns_of:
            first.add(k)
            turns_of[line] = set()
        else:
            turns_of[line].update(j for j, node in enumerate(guard.made) if node in read)
    carried = [
        [] if k in first else sorted(j for j in turns_of[line_of(guard)] if j < len(guard.made))
        for k, guard in enumerate(guards)
    ]
    turning = [guard.made[j] for guard, along in zip(guards, carried) for j in along]
    reached = set(postorder((*(guard.node for guard in guards), *turning, *for_turns(guards))))
    in_loops = asked_by_loops(guards)
    for k in first:
        guard = guards[k]
        if in_loops[k]:
            wanted = read & reached
            carried[k] = [j for j, node in enumerate(guard.made) if node in wanted]
    return carried


def slice_of(guard: Guard, along: list[int], by_node: Container[Node]) -> list[Node]:
    """What a segment computes: what its guard needs, and these of the values that were made before
    it: in a loop, those of a turn.
    """
    roots = [guard.node, *(guard.made[k] for k in along)]
    return [n for n in postorder(roots, stop=by_node.__contains__) if n not in by_node]


def exported_alike(
    guards: list[Guard], carried: list[list[int]], finals: list[Node], known: dict[Node, Any]
) -> tuple[list[set[Node]], set[Node]]:
    """For each question of a loop, what its segment hands on because an equal turn does: what is
    read after one of them (by the gradient, say, which the first turn may not have) counts for all.

    And what no segment hands on: it only looks at what is known already, and who reads it can do so
    itself.
    """
    done = set(known)
    slices = []
    for guard, along in zip(guards, carried):
        slices.append(slice_of(guard, along, done))
        done.update(slices[-1])
    home = {node: k for k, new in enumerate(slices) for node in new}
    free = {n for new in slices for n in set(new).difference(computed(new))}
    made = {node for guard in guards for node in guard.made}
    # What is free is handed on only if Python made it and another segment reads it: in a turn it may
    # stand for what the turn before hands on.
    read = {*finals, *(
        value for value, reader in readings(home, guards, finals)
        if value not in free or reader in home and value in made
    )}  # fmt: skip
    asked = Counter(map(line_of, guards))
    kinds = [
        (line_of(guard), tuple((n.op, n.attrs, n.type) for n in new))
        for guard, new in zip(guards, slices)
    ]
    positions: dict[Any, set[int]] = {kind: set() for kind in kinds}
    for kind, new in zip(kinds, slices):
        if asked[kind[0]] > 1:
            positions[kind].update(k for k, node in enumerate(new) if node in read)
    alike = [{new[k] for k in positions[kind]} for kind, new in zip(kinds, slices)]
    return alike, free.difference(read, *alike)


def computed(own: list[Node]) -> list[Node]:
    """Without constants, and without what only looks at values from outside."""
    inside = set(own)
    return [n for n in own if (base := looked_at(n)).inputs and base in inside]


class Readers:
    """Who reads each value of a path: other nodes, and Python or the results, `until` which question.

    Made once a path: a walk through all the rest for each segment is quadratic in a loop's turns.
    """

    def __init__(self, guards: list[Guard], finals: list[Node]):
        self.of: dict[Node, list[Node]] = {}
        for node in postorder((*(guard.node for guard in guards), *finals)):
            for operand in node.inputs:
                self.of.setdefault(operand, []).append(node)
        self.until = {guard.node: k for k, guard in enumerate(guards)}
        self.until.update(dict.fromkeys(finals, len(guards)))

    def needed(
        self, new: list[Node], depth: int, known: dict[Node, Any], parts: Parts, alike: set[Node],
        spared: set[Node],
    ) -> list[Node]:  # fmt: skip
        """Values of segment number `depth` that something after it reads, or after one `alike`, but
        for those `spared`; of a several-result node, its parts.
        """
        own = set(new)
        needed = {
            node for node in new if node not in spared
            if node in alike or self.until.get(node, -1) > depth
            or any(reader not in own and reader not in known for reader in self.of.get(node, ()))
        }  # fmt: skip
        values = [n for n in new if n in needed and isinstance(n.type, TensorType)]
        wholes = {n for n in needed if not isinstance(n.type, TensorType)}
        if not wholes:
            return values
        present = {part_key(n) for n in values}
        return values + [
            same[0]
            for key, same in parts.items()
            if key not in present and key and key[0] in wholes
        ]


def refuse_late_numbers(guard: Guard, by_node: dict[Node, Any]) -> None:
    """Segments run before Python's actions, so none can read what an action has set."""
    if reads_late(guard.node, by_node):
        raise UnsupportedError(
            "a branch on a tensor's value and on a hyper-parameter that this call has changed",
            where=guard.loc,
            why="it is decided before a schedule is stepped or param_groups are written",
            fix="read the hyper-parameter before it is changed, or change it outside the compiled function",
        )


def reads_late(root: Node, by_node: dict[Node, Any]) -> bool:
    """Whether the value depends on a number that is read after an action of Python's."""
    reached = postorder((root,), stop=by_node.__contains__)
    sources = (getattr(by_node.get(node), "source", None) for node in reached)
    return any(isinstance(source, HostRead) and source.phase for source in sources)
