"""Control flow, calls, projections and markers. Sub-graphs run through the interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.backends.base import CHECKS, TooManyTrips
from tracegrad.backends.numpy.kernels.registry import Array, kernel
from tracegrad.ir.graph import Graph


def _run(graph: Graph, arrays: list[Array]) -> list[Array]:
    from tracegrad.backends.numpy.interpret import interpret  # the interpreter needs KERNELS first

    return interpret(graph, arrays)


@kernel("proj")
def proj(t: tuple[Array, ...], index: int) -> Array:
    return t[index]


@kernel("call")
def call(*xs: Array, graph: Graph) -> tuple[Array, ...]:
    return tuple(_run(graph, list(xs)))


@kernel("fused")
def fused(*xs: Array, graph: Graph) -> Any:
    """A tuple, or the value itself when the group has one output."""
    outputs = _run(graph, list(xs))
    return outputs[0] if len(outputs) == 1 else tuple(outputs)


@kernel("cond")
def cond(pred: Array, *xs: Array, then: Graph, orelse: Graph) -> tuple[Array, ...]:
    """Only the branch taken runs."""
    return tuple(_run(then if pred else orelse, list(xs)))


@kernel("while_loop")
def while_loop(*carry: Array, cond: Graph, body: Graph, max_trips: int | None) -> tuple[Array, ...]:
    values, trips = list(carry), 0
    while _run(cond, values)[0]:
        if max_trips is not None and trips == max_trips:
            raise TooManyTrips(f"the loop's condition still holds after max_trips={max_trips}")
        values = _run(body, values)
        trips += 1
    return tuple(values)


@kernel("scan")
def scan(*carry_and_xs: Array, body: Graph, carries: int, length: int) -> tuple[Array, ...]:
    """body(carries.., slices..) -> (carries.., ys..), over the leading axis; ys are stacked."""
    carry, xs = list(carry_and_xs[:carries]), carry_and_xs[carries:]
    ys = [
        np.empty((length, *node.type.shape), node.type.dtype.np) for node in body.outputs[carries:]
    ]
    for step in range(length):
        outputs = _run(body, [*carry, *(x[step, ...] for x in xs)])
        carry = outputs[:carries]
        for y, part in zip(ys, outputs[carries:]):
            y[step] = part
    return (*carry, *ys)


@kernel("fence")
def fence(x: Array) -> Array:
    return x


@kernel("detach")
def detach(x: Array) -> Array:
    return x


@kernel("rebind")
def rebind(old: Array, new: Array) -> Array:
    return new


@kernel("shard")
def shard(x: Array, spec: tuple[str | None, ...]) -> Array:
    return x


@kernel("check")
def check(x: Array, message: str, kind: str) -> Array:
    if not x:
        raise CHECKS[kind](message)
    return x
