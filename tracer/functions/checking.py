"""Operands whose values an op is not defined for: a run that meets one raises, in every mode."""

from __future__ import annotations

from tracegrad.ir import ops
from tracegrad.ir.graph import Node
from tracegrad.ir.ops.build import along


def required(x: Node, ok: Node, message: str, kind: str = "value") -> Node:
    """`x`; where not all of `ok` (bool) is true the run raises `message`.

    The check stands in the way of both the value and its gradient, so that neither is computed
    without it.
    """
    every = ops.min_(ok, axes=tuple(range(ok.ndim))) if ok.ndim and ok.type.size else ok
    if every.ndim:  # of no elements: nothing can be wrong
        return x
    passed = along(ops.check(every, message=message, kind=kind), x.shape, ())
    return ops.where(passed, x, ops.zeros_like(x))
