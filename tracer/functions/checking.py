"""Operands whose values an op is not defined for: a run that meets one raises, in every mode. And
results that do not depend on an operand's values, but carry gradients with it.
"""

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


def linked(value: Node, source: Node, zeros: bool = True) -> Node:
    """`value`, which `source` does not move, as a differentiable result of it, where a graph would
    not show that it comes from it. Its gradient there is zeros, or none at all, as PyTorch has it;
    that of what `value` is made of stays.
    """
    total = ops.abs_(ops.sum_(source, axes=tuple(range(source.ndim))))
    flat = ops.cast(ops.floor(total), dtype=value.dtype)  # only its gradient, 0, is used
    moved = ops.rebind(ops.add(value, along(flat, value.shape, ())), value)
    return moved if zeros else ops.rebind(value, moved)
