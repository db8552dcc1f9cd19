"""Elementwise chains and their last-axis reductions become `fused` nodes, each run tile by tile.

Note [Domains and stages]
A fusible node has a *domain*: the full shape of the loop that computes it. An elementwise node's
domain is its own shape; a reduction over the last axis, the row values computed from it and their
broadcast back belong to the domain of the reduction's input. stage(n) is the largest stage of an
input, plus 1 where the edge enters or leaves a domain or touches a node that does not fuse.
Connected nodes of equal stage and domain form a group: a path that leaves a group comes back at a
higher stage, so a group can never wait for itself. A group that only one later group reads joins
it: `0.9 * m` joins the update it is for, instead of being kept from the start of the step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from tracegrad.ir import ops
from tracegrad.ir.graph import INPUT, Graph, Node, placeholder, rebuild
from tracegrad.ir.loc import at
from tracegrad.ir.ops.traits import ELEMENTWISE
from tracegrad.ir.types import TensorType
from tracegrad.passes.base import Pass
from tracegrad.passes.rules.patterns import is_splat

Shape = tuple[int, ...]


@dataclass(frozen=True)
class FuseRules:
    """What the backend's loop can run.

    elementwise  names of ops
    reductions   names of ops, over the last axis
    alone        ops worth a loop of their own: their code needs temporaries, say
    dtypes       names of the dtypes of reductions
    min_size     elements of a domain from which a loop pays
    max_row      longest last axis of a domain with reductions
    """

    elementwise: frozenset[str] = frozenset()
    reductions: frozenset[str] = frozenset()
    alone: frozenset[str] = frozenset()
    dtypes: frozenset[str] = frozenset({"f32", "f64"})
    min_size: int = 1 << 15
    max_row: int = 1 << 14


@dataclass(frozen=True)
class Fuse(Pass):
    """`tanh(x * 2 + y)` -> `fused(x, y; graph=...)`: one pass over memory.

    See Note [Domains and stages].
    """

    name: ClassVar[str] = "fuse"
    rules: FuseRules = field(default_factory=FuseRules)

    def run(self, graph: Graph) -> Graph:
        fuser = _Fuser(graph, self.rules)
        fuser.find_domains()
        if not fuser.domain:
            return graph
        fuser.find_stages()
        return fuser.rebuilt(fuser.groups())


def row_shapes(domain: Shape) -> tuple[Shape, Shape]:
    """The two shapes of one value a row: with the last axis dropped, or of size 1."""
    return domain[:-1], (*domain[:-1], 1)


class _Fuser:
    def __init__(self, graph: Graph, rules: FuseRules):
        self.graph, self.rules = graph, rules
        self.domain: dict[Node, Shape] = {}
        self.rows: set[Node] = set()  # members that hold one value a row
        # Broadcasts and splats: made again in every group that reads them.
        self.absorbed: set[Node] = set()
        self.stage: dict[Node, int] = {}
        self.users = graph.users()
        self.outputs = frozenset(graph.outputs)
        self.order = {node: index for index, node in enumerate(graph.nodes)}

    # ---------------------------------------------------------------- who belongs where

    def find_domains(self) -> None:
        for node in self.graph.nodes:
            if node.op is INPUT or not isinstance(node.type, TensorType):
                continue
            name = node.op.name
            if name == "broadcast_to":
                self._broadcast(node)
            elif is_splat(node):
                self.absorbed.add(node)
            elif name in self.rules.reductions:
                self._reduction(node)
            elif name in self.rules.elementwise and node.op.has(ELEMENTWISE):
                self._elementwise(node)
            elif name == "reshape":
                self._row_reshape(node)

    def _broadcast(self, node: Node) -> None:
        source = node.inputs[0]
        domain = self.domain.get(source)
        if source in self.rows and domain == node.shape:
            keep = tuple(range(source.ndim))
            if node.attrs["dims"] == keep and source.shape in row_shapes(domain):
                self.domain[node] = domain
                return
        self.absorbed.add(node)

    def _reduction(self, node: Node) -> None:
        x = node.inputs[0]
        if (
            node.attrs["axes"] == (x.ndim - 1,)
            and x not in self.rows
            # What a row shares has one element in a tile, however often it counts.
            and x.op.name != "broadcast_to"
            and x not in self.absorbed
            and x.type.size >= self.rules.min_size
            and 1 < x.shape[-1] <= self.rules.max_row
            and x.dtype.name in self.rules.dtypes
            and self.domain.get(x, x.shape) == x.shape
        ):
            self.domain[node] = x.shape
            self.rows.add(node)

    def _elementwise(self, node: Node) -> None:
        homes = {self.domain[x] for x in node.inputs if x in self.rows}
        if homes:
            domain = min(homes)
            if len(homes) == 1 and node.shape in row_shapes(domain):
                self.domain[node] = domain
                self.rows.add(node)
            return
        if node.type.size >= self.rules.min_size:
            self.domain[node] = node.shape

    def _row_reshape(self, node: Node) -> None:
        source = node.inputs[0]
        if source in self.rows and node.shape in row_shapes(self.domain[source]):
            self.domain[node] = self.domain[source]
            self.rows.add(node)

    # ---------------------------------------------------------------- when

    def find_stages(self) -> None:
        stage = self.stage
        for node in self.graph.nodes:
            stage[node] = max((self._after(x, node) for x in node.inputs), default=0)

    def _after(self, source: Node, reader: Node) -> int:
        """The first stage at which `reader` can have `source`."""
        same = source in self.domain and self.domain[source] == self.domain.get(reader)
        # What is absorbed is made again inside the reader's group: only its operand is waited for.
        free = source in self.absorbed and (is_splat(source) or reader in self.domain)
        return self.stage[source] + (0 if same or free else 1)

    # ---------------------------------------------------------------- together with whom

    def groups(self) -> list[list[Node]]:
        """Connected members of equal stage and domain that are worth a loop."""
        self._connect()
        members: dict[Node, list[Node]] = {}
        for node in self.domain:
            members.setdefault(self._find(node), []).append(node)
        self._move_to_readers(members)
        return [
            sorted(group, key=self.order.__getitem__)
            for group in members.values()
            if self._worth_a_loop(group)
        ]

    def _find(self, node: Node) -> Node:
        leader = self.leader
        while leader[node] is not node:
            leader[node] = leader[leader[node]]
            node = leader[node]
        return node

    def _connect(self) -> None:
        self.leader = {node: node for node in self.domain}
        for node, domain in self.domain.items():
            for x in node.inputs:
                if self.domain.get(x) == domain and self.stage[x] == self.stage[node]:
                    self.leader[self._find(x)] = self._find(node)

    def _move_to_readers(self, members: dict[Node, list[Node]]) -> None:
        """Let a group that only one later group reads, and that saves no memory, join it."""
        by_stage = sorted(members, key=lambda head: self.stage[head], reverse=True)
        for head in by_stage:
            group = members[head]
            own = set(group)
            readers = {u for node in group for u in self.users[node] if u not in own}
            if not readers or not self.outputs.isdisjoint(group):
                continue
            homes = {self._find(u) if u in self.domain else None for u in readers}
            if len(homes) != 1 or (home := homes.pop()) is None:
                continue
            if self.domain[home] != self.domain[head]:
                continue
            kept = self._operands(group, own) - self._operands(members[home], own)
            made = [node for node in group if any(u not in own for u in self.users[node])]
            # Its operands would live on instead of its results; row values and scalars are small.
            if 4 * sum(n.type.nbytes for n in kept) > 5 * sum(n.type.nbytes for n in made):
                continue
            for node in group:
                self.stage[node] = self.stage[home]
            self.leader[head] = home
            members[home] = group + members[home]
            del members[head]

    def _operands(self, group: list[Node], own: set[Node]) -> set[Node]:
        """What the group reads from memory."""
        inside = set(group)
        read: set[Node] = set()
        for node in group:
            for x in node.inputs:
                while x in self.absorbed and x.inputs:
                    x = x.inputs[0]
                if x not in inside and x not in own and x not in self.absorbed:
                    read.add(x)
        return read

    def _worth_a_loop(self, group: list[Node]) -> bool:
        if all(node in self.rows or node.op.name == "broadcast_to" for node in group):
            return False  # a loop over rows without columns: who wants a broadcast makes it
        computing = [n for n in group if n.op.name not in ("broadcast_to", "reshape")]
        return len(computing) > 1 or any(n.op.name in self.rules.alone for n in computing)

    # ---------------------------------------------------------------- the new graph

    def rebuilt(self, groups: list[list[Node]]) -> Graph:
        if not groups:
            return self.graph
        home = {node: group for group in groups for node in group}
        fused: set[Node] = set()
        new: dict[Node, Node] = {}
        # By stage everything a group reads comes before it, whatever the order of its members.
        for node in sorted(self.graph.nodes, key=lambda n: (self.stage[n], self.order[n])):
            if node in new:
                continue
            if node in home:
                if node not in fused:
                    fused.update(home[node])
                    self._fuse(home[node], new)
            elif node.op is INPUT:
                new[node] = node
            elif node not in self.absorbed:
                new[node] = rebuild(node, tuple(self._finished(x, new) for x in node.inputs))
        return self.graph.with_outputs(self._finished(node, new) for node in self.graph.outputs)

    def _finished(self, node: Node, new: dict[Node, Node]) -> Node:
        """The new form of `node`; broadcasts are made where they are read."""
        if node not in new:
            new[node] = rebuild(node, tuple(self._finished(x, new) for x in node.inputs))
        return new[node]

    def _fuse(self, group: list[Node], new: dict[Node, Node]) -> None:
        inside: dict[Node, Node] = {}
        operands: list[Node] = []

        def enter(node: Node) -> Node:
            """`node`, which is no member, inside the group: an operand, or made again."""
            if node not in inside:
                if is_splat(node):
                    inside[node] = node
                elif node in self.absorbed:
                    inside[node] = rebuild(node, (enter(node.inputs[0]),))
                else:
                    operands.append(node)
                    inside[node] = placeholder(node.type, node.loc)
            return inside[node]

        own = set(group)
        for node in group:  # in the order of the graph
            inputs = tuple(inside[x] if x in own else enter(x) for x in node.inputs)
            inside[node] = rebuild(node, inputs)
        wanted = [node for node in group if self._leaves(node, own)]
        graph = Graph(
            tuple(inside[x] for x in operands), tuple(inside[node] for node in wanted), name="fused"
        )
        with at(group[-1].loc.through("fuse")):
            whole = ops.fused(*(self._finished(x, new) for x in operands), graph=graph)
            if len(wanted) == 1:
                new[wanted[0]] = whole
            else:
                for index, node in enumerate(wanted):
                    with at(node.loc):
                        new[node] = ops.proj(whole, index=index)

    def _leaves(self, node: Node, own: set[Node]) -> bool:
        """Whether something outside the group reads `node` itself."""
        if node.op.name == "broadcast_to":
            return False  # who wants it outside broadcasts the row value there
        return node in self.outputs or any(
            user not in own or self._spread_outside(user, own) for user in self.users[node]
        )

    def _spread_outside(self, user: Node, own: set[Node]) -> bool:
        return user.op.name == "broadcast_to" and (
            user in self.outputs or any(reader not in own for reader in self.users[user])
        )
