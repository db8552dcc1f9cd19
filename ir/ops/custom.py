"""Calls of an `autograd.Function`: ops that a recording makes, one for each call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracegrad.ir.graph import Op
from tracegrad.ir.ops import traits
from tracegrad.ir.types import TupleType

PREFIX = "custom_"


def custom_op(name: str, vjp: Callable[..., tuple[Any, ...]] | None = None) -> Op:
    """Its operands again: first the results of the user's forward, then its arguments.

    So the arguments can be given the gradients that the user's backward (`vjp`) finds. A graph read
    from text or JSON has the values only: the backward is Python.
    """
    return Op(
        PREFIX + name, infer=lambda *types: TupleType(types), vjp=vjp,
        not_differentiable="" if vjp else "its backward is Python, which a graph's text does not hold",
        decompose=lambda *operands: operands,
        traits=frozenset({traits.COMPOSITE, traits.MULTI}),
    )  # fmt: skip
