"""Rewrite rules as data, and the driver that applies them.

    rule("mul-one", x * 1, to=x)
    rule("log-exp", op("log", op("exp", x)), to=x, assumes="exp(x) does not overflow")

A rule without `assumes` is right for every input, inf, nan and -0.0 included; `selftest.py` tries.
One with `assumes` runs only where a pass is told to assume.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tracegrad.ir import ops
from tracegrad.ir.errors import IRError
from tracegrad.ir.graph import Graph, Node, Op, emit, rebuild
from tracegrad.ir.loc import at
from tracegrad.ir.ops.source import splat as splat_node
from tracegrad.passes.base import has_subgraphs, walk, with_subgraphs
from tracegrad.passes.rules.patterns import Apply, Literal, Match, Pattern, Var, match

Build = Callable[[Match], Node | None]
Example = Callable[[], Graph]

# Far above any chain of rules (a large model takes 3 walks): beyond them rules undo each other.
NODE_BUDGET = 32  # rewrites of one node in one walk
MAX_WALKS = 16


@dataclass(frozen=True)
class Rule:
    """One rewrite: where `lhs` matches and `when` holds, `to` takes its place.

    to        a pattern over the variables of `lhs`, or a function of the match that emits the new
              node and may decline with None
    dtypes    initials of the dtype categories of the result ("bifc") it is right for
    assumes   what must hold of the values, in words; "" for a rule that is right always
    keeps_zero_sign  False where a result of 0.0 may become -0.0 or the converse
    examples  graphs that the rule applies to, for `selftest.py`; a rule whose left side has no
              attributes needs none
    """

    name: str
    lhs: Pattern
    to: Pattern | Build
    dtypes: str = "bifc"
    when: Callable[[Match], bool] | None = None
    assumes: str = ""
    keeps_zero_sign: bool = True
    examples: tuple[Example, ...] = ()
    defined_at: str = ""  # file:line of the rule itself, for the rewrite log and for errors

    def roots(self) -> tuple[str, ...]:
        """Names of the ops whose nodes this rule may rewrite."""
        if isinstance(self.lhs, Apply):
            return (self.lhs.op.name,)
        assert isinstance(self.lhs, Var)  # the rule reads what it needs from the root itself
        return self.lhs.roots

    def apply(self, node: Node) -> Node | None:
        """What `node` becomes, or None where the rule does not apply. Emits at the ambient loc."""
        found = match(self.lhs, node)
        if found is None:
            return None
        # A several-result op has no dtype; such rules look at their projections instead.
        if self.dtypes != "bifc" and node.dtype.category[0] not in self.dtypes:
            return None
        if self.when is not None and not self.when(found):
            return None
        with at(node.loc.through(self.name)):
            new = instantiate(self.to, found) if isinstance(self.to, Pattern) else self.to(found)
        if new is None or new is node:
            return None
        if new.type != node.type:
            raise IRError(
                f"rule {self.name!r} ({self.defined_at}) turned {node.type} into {new.type}: "
                f"{node!r}"
            )
        return new


def rule(
    name: str,
    lhs: Pattern,
    *,
    to: Pattern | Build,
    dtypes: str = "bifc",
    when: Callable[[Match], bool] | None = None,
    assumes: str = "",
    keeps_zero_sign: bool = True,
    examples: tuple[Example, ...] = (),
) -> Rule:
    """A Rule that knows the line it is written on."""
    frame = sys._getframe(1)
    where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
    return Rule(name, lhs, to, dtypes, when, assumes, keeps_zero_sign, examples, where)


def instantiate(pattern: Pattern, found: Match) -> Node:
    """The node that a right-hand side spells; numbers become splats of the root's type."""
    if isinstance(pattern, Var):
        return found[pattern.name]
    if isinstance(pattern, Literal):
        return splat_node(pattern.value, found.root.type)
    assert isinstance(pattern, Apply)
    return emit(pattern.op, *(instantiate(arg, found) for arg in pattern.args))


@dataclass(frozen=True)
class Rewriter:
    """Applies rules in one forward walk, again until nothing changes.

    Rules of one root op are tried in the order given; the first that applies wins, and its result
    is tried again. Nodes it emitted below are seen by the next walk. Raises IRError for rules that
    come to no end.
    """

    rules: tuple[Rule, ...]
    hits: Counter[str] = field(default_factory=Counter, compare=False)

    # By the op that a rule rewrites: the rule, and the ops that it needs among the operands.
    _index: dict[str, list[tuple[Rule, frozenset[Op]]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    # Whether a rule applies depends on what a node reads, never on who reads it, and nodes do not
    # change: what no rule applied to once is not tried again.
    _settled: set[Node] = field(default_factory=set, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for each in self.rules:
            for root in each.roots():
                self._index.setdefault(root, []).append((each, operand_ops(each.lhs)))

    def run(self, graph: Graph) -> Graph:
        for _ in range(MAX_WALKS):
            before = self.hits.copy()
            graph = walk(graph, self._visit)
            if self.hits == before:
                return graph
        raise endless(f"{MAX_WALKS} walks over graph {graph.name!r}", self.hits - before)

    def _visit(self, node: Node, inputs: tuple[Node, ...]) -> Node:
        if has_subgraphs(node.attrs):
            return with_subgraphs(node, inputs, self.run)
        return self.rewrite(rebuild(node, inputs))

    def rewrite(self, node: Node) -> Node:
        """`node` after every rule that applies to it."""
        applied: list[str] = []
        while node not in self._settled:
            operands = {operand.op for operand in node.inputs}
            for each, needed in self._index.get(node.op.name, ()):
                if not needed <= operands:  # most rules end here, without a match
                    continue
                new = each.apply(node)
                if new is not None:
                    if len(applied) == NODE_BUDGET:
                        raise endless(f"{NODE_BUDGET} rewrites of {node!r}", applied[-4:])
                    self.hits[each.name] += 1
                    applied.append(each.name)
                    node = new
                    break
            else:
                self._settled.add(node)
        return node


def endless(after: str, rules: Iterable[str]) -> IRError:
    return IRError(
        f"rewrite rules come to no end after {after}; the last ones applied: {', '.join(rules)}. "
        "This is an error in tracegrad: two rules undo each other, or one its own work"
    )


def operand_ops(pattern: Pattern) -> frozenset[Op]:
    """Ops that must be among the operands of a node for `pattern` to match it."""
    if not isinstance(pattern, Apply):
        return frozenset()
    needed = {arg.op for arg in pattern.args if isinstance(arg, Apply)}
    if any(isinstance(arg, Literal) or getattr(arg, "kind", "") == "splat" for arg in pattern.args):
        needed.add(ops.constant)
    return frozenset(needed)


__all__ = [
    "Build",
    "Example",
    "Rewriter",
    "Rule",
    "instantiate",
    "rule",
]
