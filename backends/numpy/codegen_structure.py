"""Control flow: sub-graphs are compiled too, and run by the functions here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tracegrad.backends.base import TooManyTrips
from tracegrad.backends.numpy.codegen_writer import Writer, emits
from tracegrad.ir.graph import Node

Array = np.ndarray[Any, Any]
Run = Callable[[Sequence[Array]], list[Array]]


def call(run: Run, arguments: list[Array], outs: tuple[Array, ...]) -> None:
    """outs = run(arguments)."""
    for out, value in zip(outs, run(arguments)):
        np.copyto(out, value)


def while_loop(
    condition: Run, body: Run, max_trips: int | None, carry: list[Array], outs: tuple[Array, ...]
) -> None:
    """outs = carry after as many trips of `body` as `condition` holds for."""
    trips = 0
    while condition(carry)[0]:
        if trips == max_trips:
            raise TooManyTrips(f"the loop's condition still holds after max_trips={max_trips}")
        carry = body(carry)
        trips += 1
    for out, value in zip(outs, carry):
        np.copyto(out, value)


def scan(
    body: Run, carries: int, length: int, arguments: list[Array], outs: tuple[Array, ...]
) -> None:
    """The carries of the last trip, and what each trip yields, stacked."""
    carry, xs = arguments[:carries], arguments[carries:]
    for step in range(length):
        results = body([*carry, *[x[step, ...] for x in xs]])
        carry = results[:carries]
        for out, value in zip(outs[carries:], results[carries:]):
            out[step] = value
    for out, value in zip(outs, carry):
        np.copyto(out, value)


def _program(w: Writer, node: Node, attribute: str) -> str:
    return w.use(f"{attribute}_{w.number[node]}", w.compile(node.attrs[attribute]))


def _outs(w: Writer, node: Node) -> str:
    return f"({', '.join(w.out(node, k) for k in range(len(node.type.parts)))},)"


@emits("call")
def emit_call(w: Writer, node: Node) -> None:
    arguments = ", ".join(w.ref(x) for x in node.inputs)
    function = w.use("call", call)
    w.line(f"{function}({_program(w, node, 'graph')}, [{arguments}], {_outs(w, node)})")


@emits("cond")
def emit_cond(w: Writer, node: Node) -> None:
    """Only the branch taken runs."""
    pred, *arguments = [w.ref(x) for x in node.inputs]
    then, orelse = _program(w, node, "then"), _program(w, node, "orelse")
    branch = f"{then} if {pred} else {orelse}"
    w.line(f"{w.use('call', call)}({branch}, [{', '.join(arguments)}], {_outs(w, node)})")


@emits("while_loop")
def emit_while(w: Writer, node: Node) -> None:
    condition, body = _program(w, node, "cond"), _program(w, node, "body")
    carry = ", ".join(w.ref(x) for x in node.inputs)
    trips = repr(node.attrs["max_trips"])
    function = w.use("while_loop", while_loop)
    w.line(f"{function}({condition}, {body}, {trips}, [{carry}], {_outs(w, node)})")


@emits("scan")
def emit_scan(w: Writer, node: Node) -> None:
    arguments = ", ".join(w.ref(x) for x in node.inputs)
    carries, length = node.attrs["carries"], node.attrs["length"]
    body, function = _program(w, node, "body"), w.use("scan", scan)
    w.line(f"{function}({body}, {carries}, {length}, [{arguments}], {_outs(w, node)})")
