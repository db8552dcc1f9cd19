"""What an op may raise for the values it gets: said in the op's paragraph, asked by every backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracegrad.ir.graph import Node

# Kinds of hazards, and what `subject` is then.
INDEX = "index"  # positions on an axis: one may lie outside [0, size)
ZERO = "zero"  # the divisor of integers: an element may be 0
DEFINITE = "definite"  # a matrix that may not be positive definite (only its lower triangle counts)
FINITE = "finite"  # a matrix that may hold an inf or nan
FINITE_LOWER = "finite_lower"  # the same of its lower triangle
# The operand of a `check` of this kind: false?
CHECK, VALUE, LINALG, DIVISION = "check", "value", "linalg", "division"
TRIPS = "trips"  # a loop that may go on after max_trips
INSIDE = "inside"  # a node whose sub-graph or decomposition has hazards

KINDS = frozenset(
    {INDEX, ZERO, DEFINITE, FINITE, FINITE_LOWER, CHECK, VALUE, LINALG, DIVISION, TRIPS, INSIDE}
)


@dataclass(frozen=True)
class Hazard:
    """`subject` may hold a value that stops the program. Equal hazards pass or fail together."""

    kind: str
    subject: Node
    size: int = 0
