"""The order of the steps: little live memory, and no state overwritten before its readers."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from tracegrad.ir.graph import INPUT, Graph, Node
from tracegrad.ir.hazards import Hazard
from tracegrad.passes.hazards import hazards
from tracegrad.passes.memory.place import (
    Facts,
    Placed,
    place,
    same_place,
    separate_outputs,
)
from tracegrad.passes.memory.storage import Storage
from tracegrad.passes.views import VIEW_OPS, viewed


@dataclass(eq=False)
class Scheduled:
    """`placed`, and its steps in the order they run."""

    placed: Placed
    steps: list[Node]


def schedule(graph: Graph, writes: dict[int, int], facts: Facts) -> Scheduled:
    """Place and order `graph`. `writes`: output position -> input whose array takes the new value.

    A write into an input waits for every other reader of the old value, through views (a
    write-after-read edge). Where that would make a cycle, or where the writer cannot read and write
    one array, the new value is computed elsewhere and copied over.
    """
    again: frozenset[int] = frozenset()
    while True:
        separate = separate_outputs(graph, writes, again)
        placed = place(separate, writes, facts)
        order = _Order(placed, facts)
        stuck = order.unsafe or order.run()
        if not stuck:
            return Scheduled(placed, order.steps)
        again |= stuck


def deepest_first(graph: Graph) -> list[Node]:
    """The nodes of `graph`, operands first, of these the one with most work behind it first.

    What is quickly made is then made where it is read: the mask of a relu in the backward, not at
    the start of the step because the mask happens to be the first operand of its `where`.
    """
    height: dict[Node, int] = {}
    for node in graph.nodes:
        height[node] = 1 + max((height[x] for x in node.inputs), default=0)
    order: list[Node] = []
    done: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(node, False) for node in reversed(graph.outputs)]
    while stack:
        node, entered = stack.pop()
        if node in done:
            continue
        if entered:
            done.add(node)
            order.append(node)
            continue
        stack.append((node, True))
        waiting = [x for x in reversed(node.inputs) if x not in done]  # the first is popped first
        operands = sorted(waiting, key=lambda x: height[x])
        stack += [(x, False) for x in operands]
    return order


class _Order:
    def __init__(self, placed: Placed, facts: Facts):
        self.placed = placed
        graph = placed.graph
        nodes = [node for node in deepest_first(graph) if placed.is_step(node)]
        self.position = {node: index for index, node in enumerate(nodes)}
        self.steps: list[Node] = []
        self.needs: dict[Node, set[Node]] = {}
        self.reads: dict[Node, set[Storage]] = {}
        self.readers: dict[Storage, list[Node]] = {}
        self.old_readers: dict[Node, list[Node]] = {}  # of a graph input, through views
        for node in nodes:
            sources = {self._step_of(operand) for operand in node.inputs}
            self.needs[node] = {source for source in sources if source is not None}
            reads: set[Storage] = set()
            self.reads[node] = reads
            for operand in node.inputs:
                reads.update(view.storage for view in placed.parts(operand))
                base = self._looks_at(operand)
                if base.op is INPUT:
                    self.old_readers.setdefault(base, []).append(node)
            for storage in reads:
                self.readers.setdefault(storage, []).append(node)
        self.unsafe = self._write_after_read(facts)

    def _looks_at(self, node: Node) -> Node:
        """What `node` is a view of; a view that had to be copied is a value of its own."""
        while node.op.name in VIEW_OPS and node not in self.placed.copies:
            node = viewed(node)
        return node

    def _step_of(self, node: Node) -> Node | None:
        """The step that computes what `node` looks at; None for inputs and constants."""
        while node not in self.position:
            if node.op.name == "proj":
                node = node.inputs[0]
                continue
            if not node.inputs:
                return None
            node = viewed(node)
        return node

    def _write_after_read(self, facts: Facts) -> frozenset[int]:
        """Add the edges; the outputs whose writer reads what it overwrites in another order."""
        graph, unsafe = self.placed.graph, set()
        self.writers: dict[int, Node] = {}
        for output, source in self.placed.writes.items():
            node = graph.outputs[output]
            if node is graph.inputs[source]:
                continue
            writer = self._step_of(node)
            assert writer is not None
            self.writers[output] = writer
            old = self.old_readers.get(graph.inputs[source], ())
            if writer in old and not self._may_overwrite(writer, output, facts):
                unsafe.add(output)
            self.needs[writer].update(reader for reader in old if reader is not writer)
        return frozenset(unsafe | self._write_last())

    def _write_last(self) -> set[int]:
        """A step that raises must find the state as it was: writers wait for it.

        Returns the outputs whose writer a raising step depends on: they are to be computed
        elsewhere first.
        """
        passed: set[Hazard] = set()
        unsafe: set[int] = set()
        for node in self.position:
            new = [hazard for hazard in hazards(node) if hazard not in passed]
            if not new:
                continue
            passed.update(new)
            before = self._ancestors(node)
            for output, writer in self.writers.items():
                if writer in before:
                    unsafe.add(output)
                elif writer is not node:
                    self.needs[writer].add(node)
        return unsafe

    def _ancestors(self, node: Node) -> set[Node]:
        found: set[Node] = set()
        stack = [node]
        while stack:
            for need in self.needs[stack.pop()]:
                if need not in found:
                    found.add(need)
                    stack.append(need)
        return found

    def _may_overwrite(self, writer: Node, output: int, facts: Facts) -> bool:
        node = self.placed.graph.outputs[output]
        part = node.attrs["index"] if node.op.name == "proj" else 0
        target = self.placed.view(node)
        allowed = {operand for p, operand in facts.overwrites(writer) if p == part}
        for position, operand in enumerate(writer.inputs):
            for view in self.placed.parts(operand):
                if view.storage is target.storage and not (
                    position in allowed and same_place(view, target) and view.dtype is target.dtype
                ):
                    return False
        return True

    def run(self) -> frozenset[int]:
        """Fill `steps`; the outputs whose write is part of a cycle, if there is one."""
        waiting = {node: len(needs) for node, needs in self.needs.items()}
        followers: dict[Node, list[Node]] = {node: [] for node in self.needs}
        for node, needs in self.needs.items():
            for need in needs:
                followers[need].append(node)
        unread = {storage: len(readers) for storage, readers in self.readers.items()}
        allocated: set[Storage] = set()
        done: set[Node] = set()
        position = self.position

        def growth(node: Node) -> int:
            """Bytes of the arena that running `node` now takes, less what it frees."""
            new = {view.storage for view in self.placed.parts(node)} - allocated
            taken = sum(storage.nbytes for storage in new if storage.kind == "arena")
            freed = sum(
                storage.nbytes
                for storage in self.reads[node]
                if storage.kind == "arena" and unread[storage] == 1
            )
            return taken - freed

        # Growth only falls while others run, so a node that was once free stays in `free`.
        ready: list[int] = []
        free: list[int] = []
        by_position = list(self.needs)

        def offer(node: Node) -> None:
            heapq.heappush(free if growth(node) <= 0 else ready, position[node])

        for node, count in waiting.items():
            if count == 0:
                offer(node)
        while free or ready:
            node = by_position[heapq.heappop(free or ready)]
            if node in done:
                continue
            done.add(node)
            self.steps.append(node)
            allocated.update(view.storage for view in self.placed.parts(node))
            for storage in self.reads[node]:
                unread[storage] -= 1
                if unread[storage] == 1:  # its last reader now frees it
                    last = next(r for r in self.readers[storage] if r not in done)
                    if waiting[last] == 0:
                        offer(last)
            for follower in followers[node]:
                waiting[follower] -= 1
                if waiting[follower] == 0:
                    offer(follower)
        if len(done) == len(self.needs):
            return frozenset()
        return frozenset(output for output, writer in self.writers.items() if writer not in done)


def operand_storages(placed: Placed, node: Node) -> set[Storage]:
    """Every storage that step `node` reads."""
    return {view.storage for operand in node.inputs for view in placed.parts(operand)}
