"""What to do around a path's final executable, worked out once when the path is recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from tracegrad.runtime.execution.state import UpdatedTensors, updated_tensors
from tracegrad.runtime.paths.tree import Final
from tracegrad.runtime.recordings.recorded import Effect, GradWrite, Recorded, Result
from tracegrad.runtime.watch.checks import checker
from tracegrad.tracer.tensor import Tensor
from tracegrad.tracer.trace.buffers import Input
from tracegrad.tracer.trace.host import HostAction, HostGuard, HostRead


@dataclass
class Plan:
    """Everything a run needs to know beside its executable.

    check     of the facts that only this path has met; None if there are none
    reads     numbers read at every call, in Python's order with the actions
    host      the same with the actions, and what was asked after one, among them; empty if there are none
    draws     how often each random stream is drawn from
    writes    captured state and the outputs that hold its new values
    places    where the last program reads what is written: inputs, -1 where it does not
    unread    outputs among the writes whose old value the last program does not read, so cannot hand back
    updated   the writes again, if each is to a captured tensor
    families  see Recorded
    ended     written state whose graph the call itself has walked backwards, with its output and type
    grads     what happens to gradients; of these,
    unset     (fields of the tensor, where its gradient was dropped or None) where it becomes None
    kept      those that become a tensor, and those of arguments
    single    output index of a result that is one tensor, else -1
    freed     shape and dtype of that result if its graph has been walked backwards, else None
    switched  see Recorded
    slots     names under which state is kept
    grad_left  the gradient mode that a call leaves behind, if it is another than before
    programs  see autograd_call.call_programs; each with the places of what its gradient reads of the
              forward: the depth among what was run, and the position
    tried     whether a `try` of the user's may catch what a run raises
    steady    see steady.py
    """

    check: Any
    reads: list[HostRead]
    host: list[HostRead | HostAction | HostGuard]
    draws: list[tuple[Any, int]]
    writes: list[tuple[Input, int]]
    places: list[int]
    unread: set[int]
    updated: UpdatedTensors | None
    families: dict[int, int]
    ended: list[tuple[Input, int, tuple[int, ...], Any]]
    grads: list[GradWrite]
    unset: list[tuple[dict[str, Any], str | None]]
    kept: list[GradWrite]
    results: list[Result]
    treedef: Any
    effects: list[Effect]
    switched: list[tuple[int | Tensor, bool]]
    slots: list[Any]
    inputs: list[Input]
    programs: list[tuple[Any, list[tuple[int, int]]]]
    single: int
    freed: tuple[tuple[int, ...], Any] | None
    grad_left: bool | None
    tried: bool
    steady: Callable[[Any], Any] | None = None


def make_plan(final: Final, recorded: Recorded, programs: list[Any], facts: list[Any]) -> Plan:
    trace, results = recorded.trace, recorded.results
    single, freed = -1, None
    if (
        len(results) == 1 and results[0].kind == "output" and not results[0].chain
        and not recorded.effects and not programs and not recorded.freed and recorded.treedef.is_leaf()
    ):  # fmt: skip
        single = results[0].index
        if results[0].freed:
            type_ = recorded.outputs[single].type
            freed = (type_.shape, type_.dtype.np)
    saved = iter(final.saved)
    position = {id(source): k for k, source in enumerate(final.sources)}
    places = [position.get(id(item), -1) for item, _ in recorded.writes]
    reads = [item for item in trace.host if isinstance(item, HostRead)]
    unset = [grad for grad in recorded.grads if grad.argument < 0 and grad.kind != "set"]
    return Plan(
        check=checker(facts) if facts else None,
        reads=reads,
        host=list(trace.host) if len(reads) < len(trace.host) else [],
        draws=trace.random_draws,
        writes=recorded.writes,
        unread={index for _, index in recorded.writes} - final.lowered.graph.updates.keys(),
        places=places,
        updated=updated_tensors(final, recorded.writes, places),
        families=recorded.families,
        ended=[
            (item, index, recorded.outputs[index].type.shape, recorded.outputs[index].dtype.np)
            for item, index in recorded.writes
            if index in recorded.freed
        ],
        grads=recorded.grads,
        unset=[(grad.tensor.__dict__, grad.where or None) for grad in unset],
        kept=[grad for grad in recorded.grads if grad.argument >= 0 or grad.kind == "set"],
        results=results,
        treedef=recorded.treedef,
        effects=recorded.effects,
        switched=recorded.switched,
        slots=list(trace.slots.values()),
        inputs=list(trace.inputs),
        programs=[(program, list(islice(saved, len(program.saved)))) for program in programs],
        single=single,
        freed=freed,
        grad_left=trace.grad_left,
        tried=trace.tried,
    )
