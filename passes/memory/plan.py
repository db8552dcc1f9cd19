"""When each storage is alive, which may take the place of a dying one, and where each lies."""

from __future__ import annotations

import bisect
from dataclasses import dataclass

from tracegrad.ir.graph import Node
from tracegrad.passes.memory.place import Facts, Placed
from tracegrad.passes.memory.schedule import Scheduled, operand_storages
from tracegrad.passes.memory.storage import Storage, View

ALIGNMENT = 64  # bytes: one cache line, one AVX-512 register


@dataclass(eq=False)
class Lifetimes:
    """The storages in the arena, with `start` and `end` filled in, after merging."""

    scheduled: Scheduled
    storages: list[Storage]

    @property
    def placed(self) -> Placed:
        return self.scheduled.placed


@dataclass(frozen=True)
class Entry:
    """One storage in the arena: who made it, when it is alive (steps), where it lies (bytes)."""

    label: str
    nbytes: int
    start: int
    end: int
    offset: int


@dataclass(frozen=True)
class MemoryPlan:
    """The arena of one executable.

    arena_bytes  its size; what one running call needs beside inputs and results
    live_bytes   live bytes at the fullest step: what no plan could go below
    peak_step    that step, an index into the steps
    steps        label of each step
    entries      every storage, in order of `start`
    result_bytes  fresh arrays of one call, for the caller
    plan_bytes    workspaces beside the arena that hand-written code owns
    """

    arena_bytes: int
    live_bytes: int
    peak_step: int
    steps: tuple[str, ...]
    entries: tuple[Entry, ...]
    result_bytes: int
    plan_bytes: int

    def at_peak(self) -> list[Entry]:
        """Who is alive at the fullest step, largest first."""
        alive = [e for e in self.entries if e.start <= self.peak_step <= e.end]
        return sorted(alive, key=lambda entry: -entry.nbytes)

    def __str__(self) -> str:
        lines = [f"arena {_size(self.arena_bytes)}, results {_size(self.result_bytes)}"]
        if self.plan_bytes:
            lines[0] += f", other workspaces {_size(self.plan_bytes)}"
        if self.steps:
            where = self.steps[self.peak_step]
            lines[0] += f"; fullest at step {self.peak_step} ({where}): {_size(self.live_bytes)}"
        lines += [f"  {_size(e.nbytes):>10}  {self._maker(e)}" for e in self.at_peak()[:12]]
        return "\n".join(lines)

    def _maker(self, entry: Entry) -> str:
        """The step that made it, with its type and line; what a workspace is for."""
        step = self.steps[entry.start]
        return step if step.startswith(f"{entry.label} ") else f"{entry.label} of {step}"


def _size(nbytes: int) -> str:
    for unit, scale in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if nbytes >= scale:
            return f"{nbytes / scale:.1f} {unit}"
    return f"{nbytes} B"


def lifetimes(scheduled: Scheduled, facts: Facts) -> Lifetimes:
    """First and last step of every storage; results that may overwrite a dying operand do."""
    placed = scheduled.placed
    storages: dict[Storage, None] = {}
    for step, node in enumerate(scheduled.steps):
        touched = operand_storages(placed, node)
        touched.update(view.storage for view in placed.parts(node))
        for storage in sorted(touched, key=lambda s: s.start):
            if storage.kind == "arena":
                if storage.start < 0:
                    storage.start = step
                    storages[storage] = None
                storage.end = step
    for step, node in enumerate(scheduled.steps):
        _overwrite_dying(placed, node, step, facts)
    return Lifetimes(scheduled, [storage for storage in storages if storage.merged is None])


def _overwrite_dying(placed: Placed, node: Node, step: int, facts: Facts) -> None:
    taken: set[Storage] = set()
    results = placed.parts(node)
    allowed = set(facts.overwrites(node))
    for part, position in sorted(allowed):
        result, storage = results[part], results[part].storage
        operand = placed.parts(node.inputs[position])[0]
        old = operand.storage.root()
        if (
            storage.kind != "arena"
            or old.kind != "arena"
            or storage.merged is not None
            or storage.start != step
            or old.end != step
            or old is storage
            or old in taken
            or not (result.whole and operand.whole)
            or result.shape != operand.shape
            or result.dtype is not operand.dtype
            or not _reads_agree(placed, node, part, old, operand, allowed)
        ):
            continue
        taken.add(old)
        old.end = storage.end
        storage.merged = old


def _reads_agree(
    placed: Placed, node: Node, part: int, old: Storage, seen: View, allowed: set[tuple[int, int]]
) -> bool:
    """Every operand of `node` in `old` is one view of it, at positions that allow the write."""
    for position, operand in enumerate(node.inputs):
        for view in placed.parts(operand):
            if view.storage.root() is old and not (
                (part, position) in allowed
                and view.shape == seen.shape
                and view.strides == seen.strides
                and view.offset == seen.offset
            ):
                return False
    return True


def assign_offsets(storages: list[Storage]) -> int:
    """Give every storage its place, largest first, each in the tightest gap; bytes of the arena.

    Two storages may share bytes only if no step has both alive.
    """
    total = 0
    placed: list[tuple[int, int, Storage]] = []  # (offset, stop, storage), by offset
    for storage in sorted(storages, key=lambda s: (-s.nbytes, s.start)):
        size = -(-max(storage.nbytes, 1) // ALIGNMENT) * ALIGNMENT
        best, best_gap, reached = -1, -1, 0
        for offset, stop, other in placed:
            if other.end < storage.start or storage.end < other.start:
                continue
            gap = offset - reached
            if gap >= size and (best < 0 or gap < best_gap):
                best, best_gap = reached, gap
            if stop > reached:
                reached = stop
        if best < 0:
            best = reached
        storage.offset = best
        bisect.insort(placed, (best, best + size, storage), key=lambda entry: entry[0])
        total = max(total, best + size)
    return total


def describe(
    lifetimes: Lifetimes, storages: list[Storage], arena_bytes: int, plan_bytes: int = 0
) -> MemoryPlan:
    """The plan for people: `storages` are the values' and the workspaces of steps."""
    steps = lifetimes.scheduled.steps
    change = [0] * (len(steps) + 1)
    for storage in storages:
        change[storage.start] += storage.nbytes
        change[storage.end + 1] -= storage.nbytes
    live, peak, peak_step = 0, 0, 0
    for step, by in enumerate(change):
        live += by
        if live > peak:
            peak, peak_step = live, step
    entries = sorted(storages, key=lambda s: (s.start, s.offset))
    results = {
        view.storage
        for node in lifetimes.placed.graph.outputs
        for view in lifetimes.placed.parts(node)
        if view.storage.kind == "result"
    }
    return MemoryPlan(
        arena_bytes,
        peak,
        peak_step,
        tuple(f"{node.op.name} {node.type}  # {node.loc}" for node in steps),
        tuple(Entry(s.label, s.nbytes, s.start, s.end, s.offset) for s in entries),
        sum(storage.nbytes for storage in results),
        plan_bytes,
    )
