"""Simplify: the rewrite rules, applied until none does.

The canonical form they lead to:
- a constant operand of a commutative op stands second; a view of a splat is a splat
- subtraction instead of adding a negation; multiplication instead of division by a power of two
- one reshape, one transpose, one broadcast in a row; none that changes nothing; an axis of length 1
  comes from a reshape, not from a transpose or a broadcast
- broadcasts come as late as they can: an elementwise op or a reduction runs on the small operand
- blocks that make up an array are concatenated, not padded and added
- a matrix product with one weight for a whole batch is a single 2-D product
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar

from tracegrad.ir.graph import Graph
from tracegrad.passes.base import Pass
from tracegrad.passes.rules.algebra import ASSUMING, CANONICAL, CASTS, IDENTITIES, LOGIC
from tracegrad.passes.rules.blocks import BLOCKS
from tracegrad.passes.rules.contract import CONTRACTIONS
from tracegrad.passes.rules.rewrite import Rewriter, Rule
from tracegrad.passes.rules.shape import BROADCASTS, REDUCTIONS, RESHAPES, SLICES, SPLATS

RULES: tuple[Rule, ...] = (
    *SPLATS, *RESHAPES, *BROADCASTS, *SLICES, *REDUCTIONS, *CANONICAL, *IDENTITIES, *LOGIC, *CASTS,
    *BLOCKS, *CONTRACTIONS,
)  # fmt: skip
ALL_RULES: tuple[Rule, ...] = (*RULES, *ASSUMING)


@cache
def _rules_for(assume: frozenset[str]) -> tuple[Rule, ...]:
    return (*RULES, *(each for each in ASSUMING if each.assumes in assume))


@dataclass(frozen=True)
class Simplify(Pass):
    """`reshape(reshape(x)) * 1` -> `reshape(x)`, and the other rules of `rules/`.

    assume  which `assumes` of rules hold here (see rules/algebra.py); none by default
    hits    how often each rule applied, over all runs of this object
    """

    name: ClassVar[str] = "simplify"
    assume: frozenset[str] = frozenset()
    hits: Counter[str] = field(default_factory=Counter, compare=False, repr=False)

    def run(self, graph: Graph) -> Graph:
        return Rewriter(_rules_for(self.assume), self.hits).run(graph)
