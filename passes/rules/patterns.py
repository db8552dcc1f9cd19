"""Patterns: what the left side of a rewrite rule looks like, and how it is matched.

    x, y = var("x"), var("y")
    op("neg", op("neg", x))        matches neg(neg(anything))
    x * 1, x + y, x - y, -x        operators spell mul, add, sub, neg; a number is a splat
    splat("c")                     matches a constant with one value throughout
    op("reshape", x, label="r")    `match["r"]` is the node, for its attributes

A name that occurs twice must be the same node twice. Arguments of a commutative op match in either
order. A fence is an op like another, so no pattern looks through one by accident.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tracegrad.ir import ops
from tracegrad.ir.const import Const
from tracegrad.ir.graph import Node, Op
from tracegrad.ir.ops.traits import COMMUTATIVE

Number = bool | int | float
Guard = Callable[[Node], bool]


class Pattern:
    """Base; its operators build patterns, as those of a node build nodes."""

    def __add__(self, other: Pattern | Number) -> Pattern:
        return op("add", self, other)

    def __radd__(self, other: Number) -> Pattern:
        return op("add", other, self)

    def __sub__(self, other: Pattern | Number) -> Pattern:
        return op("sub", self, other)

    def __rsub__(self, other: Number) -> Pattern:
        return op("sub", other, self)

    def __mul__(self, other: Pattern | Number) -> Pattern:
        return op("mul", self, other)

    def __rmul__(self, other: Number) -> Pattern:
        return op("mul", other, self)

    def __truediv__(self, other: Pattern | Number) -> Pattern:
        return op("div", self, other)

    def __rtruediv__(self, other: Number) -> Pattern:
        return op("div", other, self)

    def __neg__(self) -> Pattern:
        return op("neg", self)


@dataclass(frozen=True)
class Var(Pattern):
    """Any node for which `guard` holds, bound to `name`."""

    name: str
    guard: Guard | None = None
    kind: str = "any"  # how a self-test makes one: "any", "splat", "bool"
    roots: tuple[str, ...] = ()  # of a variable that is a whole left side: the ops to try it on


@dataclass(frozen=True)
class Literal(Pattern):
    """A constant, every element `value`; the sign of a zero counts."""

    value: Number


@dataclass(frozen=True)
class Apply(Pattern):
    """An op applied to patterns. `label` binds the node itself."""

    op: Op
    args: tuple[Pattern, ...]
    label: str = ""


def var(name: str, guard: Guard | None = None, roots: tuple[str, ...] = ()) -> Var:
    return Var(name, guard, roots=roots)


def boolean(name: str) -> Var:
    """A variable of dtype bool."""
    return Var(name, lambda node: bool(node.dtype.is_bool), "bool")


def splat(name: str) -> Var:
    """A variable for a constant with one value throughout; `splat_value(node)` is the value."""
    return Var(name, is_splat, "splat")


def op(op_: str | Op, *args: Pattern | Number, label: str = "") -> Apply:
    operands = tuple(arg if isinstance(arg, Pattern) else Literal(arg) for arg in args)
    return Apply(ops.op_named(op_) if isinstance(op_, str) else op_, operands, label)


class Match(dict[str, Node]):
    """What the names of a pattern stand for; `match.x` is `match["x"]`, `match.root` the whole."""

    def __getattr__(self, name: str) -> Node:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the pattern binds no {name!r}; it binds {list(self)}") from None


def splat_const(node: Node) -> Const | None:
    """The Const of a constant node with one value throughout, else None."""
    if node.op is ops.constant:
        value = node.attrs["value"]
        assert isinstance(value, Const)
        return value if value.is_splat else None
    return None


def is_splat(node: Node) -> bool:
    return splat_const(node) is not None


def splat_value(node: Node) -> Any:
    """The Python scalar that fills a constant node, None for any other node."""
    const = splat_const(node)
    return None if const is None else const.splat


def shown_value(node: Node) -> Any:
    """As `splat_value`, also of a constant that was broadcast."""
    while node.op is ops.broadcast_to:
        node = node.inputs[0]
    return splat_value(node)


def same_number(found: Any, wanted: Number) -> bool:
    """Equal as numbers, and the same zero."""
    if found is None or found != wanted:
        return False
    if wanted == 0 and isinstance(found, float):
        return math.copysign(1.0, found) == math.copysign(1.0, float(wanted))
    return not isinstance(found, complex) or wanted != 0


def match(pattern: Pattern, node: Node) -> Match | None:
    """The bindings that make `pattern` this node, or None."""
    bound = _solve(((pattern, node),), {"root": node})
    return None if bound is None else Match(bound)


_Pairs = tuple[tuple[Pattern, Node], ...]


def _solve(pending: _Pairs, bound: dict[str, Node]) -> dict[str, Node] | None:
    """Bindings for all `pending` on top of `bound`; a wrong order of operands is taken back."""
    if not pending:
        return bound
    (pattern, node), rest = pending[0], pending[1:]
    if isinstance(pattern, Var):
        if pattern.name in bound:
            return _solve(rest, bound) if bound[pattern.name] is node else None
        if pattern.guard is not None and not pattern.guard(node):
            return None
        return _solve(rest, {**bound, pattern.name: node})
    if isinstance(pattern, Literal):
        return _solve(rest, bound) if same_number(splat_value(node), pattern.value) else None
    assert isinstance(pattern, Apply)
    if node.op is not pattern.op or len(node.inputs) != len(pattern.args):
        return None
    if pattern.label:
        bound = {**bound, pattern.label: node}
    found = _solve((*zip(pattern.args, node.inputs), *rest), bound)
    if found is None and len(pattern.args) == 2 and node.op.has(COMMUTATIVE):
        found = _solve((*zip(pattern.args, node.inputs[::-1]), *rest), bound)
    return found
