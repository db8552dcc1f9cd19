"""The programs that a call ran, one after the other, as one: graph, history, source, memory.

A function that branches on values, or gets the gradient of a loop, runs as several programs
(paths/segments.py, paths/pieces.py). Made only for who asks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from tracegrad.ir.graph import Graph, Node, inline, placeholder
from tracegrad.passes.observers import Timing
from tracegrad.runtime.paths.lowering import Lowered
from tracegrad.runtime.paths.tree import Final, Question
from tracegrad.tracer.trace.buffers import Input


def taken(final: Final) -> Lowered | Path:
    """What ran to its end, as one; its last program where the tree with the others is forgotten."""
    if final.path is None:
        before = programs_before(final)
        whole = len(before) == final.depth and (before or final.pieces)
        final.path = Path(before, final) if whole else final.lowered
    return final.path


def programs_before(final: Final) -> list[Question]:
    """Those that end with a question, from the first one on."""
    before: list[Question] = []
    segment = final.parent()
    while segment is not None:
        before.append(segment)
        segment = segment.parent()
    return before[::-1]


class Path:
    """Like a `Lowered`, of all programs of a path.

    programs   in order; a turn of a loop is there once a turn
    questions  how many of them end with a question of Python's
    lowered    those that differ
    """

    def __init__(self, before: list[Question], final: Final):
        self.programs = [*before, *final.pieces, final]
        self.questions = len(before)
        self.constants = final.constants  # that the pieces import, as if a program had made them
        self.lowered: list[Lowered] = []
        self.times: list[int] = []  # that each of these ran
        number: dict[str, int] = {}
        for program in self.programs:
            which = number.setdefault(program.lowered.final.fingerprint(), len(number))
            if which == len(self.lowered):
                self.lowered.append(program.lowered)
                self.times.append(0)
            self.times[which] += 1

    @cached_property
    def graph(self) -> Graph:
        """As traced."""
        return self._joined(lambda lowered: lowered.graph)

    @cached_property
    def final(self) -> Graph:
        """After every pass."""
        return self._joined(lambda lowered: lowered.final)

    @cached_property
    def history(self) -> list[tuple[str, Graph]]:
        """All programs go through the same passes."""
        once = {id(program.lowered): program.lowered for program in self.programs}
        each = {key: lowered.history for key, lowered in once.items()}
        return [
            (name, self._joined(lambda lowered, k=k: each[id(lowered)][k][1]))  # type: ignore[misc]
            for k, (name, _) in enumerate(each[id(self.programs[-1].lowered)])
        ]

    @property
    def passes(self) -> Timing:
        """Of all programs together: the seconds of those that differ, the nodes of all that ran."""
        timing = Timing()
        for k, (name, _, _, _) in enumerate(self.lowered[-1].passes.rows):
            rows = [lowered.passes.rows[k] for lowered in self.lowered]
            seconds = sum(row[1] for row in rows)
            before = sum(row[2] * times for row, times in zip(rows, self.times))
            after = sum(row[3] * times for row, times in zip(rows, self.times))
            timing.rows.append((name, seconds, before, after))
        return timing

    @property
    def timings(self) -> dict[str, float]:
        names = self.lowered[-1].timings
        return {name: sum(lowered.timings[name] for lowered in self.lowered) for name in names}

    @property
    def source(self) -> str:
        """The programs that differ, each under a line that says how often it ran."""
        sign = "//" if self.lowered[-1].source.startswith("module") else "#"  # StableHLO or Python
        return "\n".join(
            f"{sign} program {k} of {len(self.lowered)}, {lowered.graph.name}, "
            f"run {counted(times, 'time')}\n{lowered.source}"
            for k, (lowered, times) in enumerate(zip(self.lowered, self.times), 1)
        )

    @property
    def memory(self) -> Any:
        """Of the program that needs most: they run one after the other."""
        return max((lowered.memory for lowered in self.lowered), key=bytes_needed)

    def describe(self) -> str:
        """How many programs, and why."""
        return (
            f"{counted(self.questions, 'question')} of Python's, "
            f"{len(self.programs)} programs in turn, {len(self.lowered)} different"
        )

    def _joined(self, graph_of: Callable[[Lowered], Graph]) -> Graph:
        """One graph that computes what the programs compute in turn, and the questions' answers."""
        last = graph_of(self.programs[-1].lowered)
        inputs: dict[Any, Node] = {}
        named = self._names()
        roles: dict[Any, str] = {}
        values: list[Sequence[Node]] = []
        guards: list[Node] = []
        for number, program in enumerate(self.programs):
            if number == self.questions and self.constants:
                values.append(self.constants)
            graph = graph_of(program.lowered)
            arguments = []
            for node, source, role in zip(graph.inputs, program.sources, graph.input_roles):
                if isinstance(source, Input):
                    if source.key not in inputs:
                        inputs[source.key] = placeholder(node.type, node.loc)
                        roles[source.key] = role
                    arguments.append(inputs[source.key])
                else:
                    depth, position = source
                    arguments.append(values[depth][position])
            values.append(inline(graph, arguments))
            if number < self.questions:
                guards.append(values[-1][0])
        return Graph(
            tuple(inputs.values()), (*values[-1], *guards),
            tuple(named[key] for key in inputs),
            (*last.output_names, *(f"question{k}" for k in range(len(guards)))),
            tuple(roles.values()), (*last.output_roles, *("guard",) * len(guards)), "path",
        )  # fmt: skip

    def _names(self) -> dict[Any, str]:
        """Of the inputs. The last program's own, which its outputs name; others may come from an
        earlier recording, with one of these for another input.
        """
        named: dict[Any, str] = {}
        used: set[str] = set()
        for program in reversed(self.programs):
            for source in program.sources:
                if isinstance(source, Input) and source.key not in named:
                    name, suffix = source.name, 1
                    while name in used:
                        name, suffix = f"{source.name}_{suffix}", suffix + 1
                    used.add(name)
                    named[source.key] = name
        return named


def bytes_needed(memory: Any) -> int:
    """Of a NumPy plan or of XLA's own account."""
    if isinstance(memory, dict):
        return sum(memory.get(what, 0) for what in ("arguments", "outputs", "temporaries"))
    return int(memory.arena_bytes + memory.result_bytes + memory.plan_bytes)


def counted(count: int, what: str) -> str:
    """ "1 time", "2 times"."""
    return f"{count} {what}{'s' * (count != 1)}"
