"""Parts of tuples, calls of graphs, and control flow whose branches and bodies are graphs.

The gradients of ops with sub-graphs need the reverse walk, which is a pass: see
passes/autodiff_control.py. A sub-graph reads nothing but its own inputs.
"""

from __future__ import annotations

from typing import Any

from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Graph, Node, Op
from tracegrad.ir.hazards import TRIPS, Hazard
from tracegrad.ir.ops.base import no_flops, register, traits
from tracegrad.ir.ops.traits import CHEAP, CONTROL, EXPENSIVE, MULTI, VIEW
from tracegrad.ir.types import TensorType, TupleType, Type, bool_

_BY_A_PASS = "is differentiated by passes.autodiff_control, which has the reverse walk"


# ---- proj(t; index): one part of a several-result op ----


def _proj_type(t: Type, index: int) -> TensorType:
    if not isinstance(t, TupleType):
        raise IRTypeError(f"needs the result of a several-result op, not {t}")
    if not 0 <= index < len(t.parts):
        raise IRTypeError(f"part {index} of {len(t.parts)}")
    return t.parts[index]


proj = register(
    Op(
        "proj",
        attrs=("index",),
        infer=_proj_type,
        not_differentiable="the reverse walk collects its cotangent for the op that it projects",
        traits=traits(VIEW, CHEAP),
        flops=no_flops,
    )
)


def graph_flops(graph: Graph) -> float:
    """Operations of one run of `graph`."""
    operations = 0.0
    for node in graph.nodes:
        if node.op.flops is not None:
            operations += node.op.flops(node)
        elif isinstance(node.type, TensorType) and node.inputs:
            operations += node.type.size
    return operations


def check_signature(graph: Graph, types: tuple[Any, ...], what: str) -> None:
    """Raises IRTypeError unless `graph` takes inputs of exactly `types`."""
    if not isinstance(graph, Graph):
        raise IRTypeError(f"{what} must be a Graph, not {graph!r}")
    expected = tuple(node.type for node in graph.inputs)
    if expected != tuple(types):
        raise IRTypeError(f"{what} takes {expected}, was given {tuple(types)}")


def outputs_type(graph: Graph) -> TupleType:
    parts = tuple(node.type for node in graph.outputs)
    for type_ in parts:
        if not isinstance(type_, TensorType):
            raise IRTypeError(f"an output of {graph.name!r} is a tuple {type_}; project its parts")
    return TupleType(parts)


# ---- call(*xs; graph) ----


def _call_type(*xs: TensorType, graph: Graph) -> TupleType:
    check_signature(graph, xs, "graph")
    return outputs_type(graph)


call = register(
    Op(
        "call",
        attrs=("graph",),
        infer=_call_type,
        not_differentiable=_BY_A_PASS,
        traits=traits(CONTROL, MULTI),
        flops=lambda node: graph_flops(node.attrs["graph"]),
    )
)


# ---- cond(pred, *xs; then, orelse): runs one of two graphs of one signature ----


def _predicate(type_: Type) -> None:
    if type_ != TensorType((), bool_):
        raise IRTypeError(f"the condition must be bool[], not {type_}")


def _cond_type(pred: TensorType, *xs: TensorType, then: Graph, orelse: Graph) -> TupleType:
    _predicate(pred)
    check_signature(then, xs, "then")
    check_signature(orelse, xs, "orelse")
    one, other = outputs_type(then), outputs_type(orelse)
    if one != other:
        raise IRTypeError(f"the branches yield {one} and {other}")
    return one


cond = register(
    Op(
        "cond",
        attrs=("then", "orelse"),
        infer=_cond_type,
        not_differentiable=_BY_A_PASS,
        traits=traits(CONTROL, MULTI),
        flops=lambda node: max(graph_flops(node.attrs[key]) for key in ("then", "orelse")),
    )
)


# ---- while_loop(*carry; cond, body, max_trips): body while cond; max_trips None or a bound ----


def _while_type(*carry: TensorType, cond: Graph, body: Graph, max_trips: int | None) -> TupleType:
    check_signature(cond, carry, "cond")
    check_signature(body, carry, "body")
    if len(cond.outputs) != 1:
        raise IRTypeError(f"cond must yield one value, not {len(cond.outputs)}")
    _predicate(cond.outputs[0].type)
    if outputs_type(body).parts != carry:
        raise IRTypeError(f"body must yield its inputs' types, not {outputs_type(body)}")
    if max_trips is not None and max_trips < 0:
        raise IRTypeError(f"max_trips must be None or >= 0, not {max_trips}")
    return TupleType(carry)


def _while_flops(node: Node) -> float:
    """At most, if there is a bound; else of one trip."""
    trips = node.attrs["max_trips"] or 1
    return trips * (graph_flops(node.attrs["cond"]) + graph_flops(node.attrs["body"]))


while_loop = register(
    Op(
        "while_loop",
        attrs=("cond", "body", "max_trips"),
        infer=_while_type,
        not_differentiable=_BY_A_PASS,
        traits=traits(CONTROL, MULTI, EXPENSIVE),
        flops=_while_flops,
        hazards=lambda node: [] if node.attrs["max_trips"] is None else [Hazard(TRIPS, node)],
    )
)


# ---- scan(*carry, *xs; body, carries, length): body(carry.., x[t]..) -> carry.., y[t].. ----


def _scan_type(*operands: TensorType, body: Graph, carries: int, length: int) -> TupleType:
    if not 0 <= carries <= len(operands) or length < 0:
        raise IRTypeError(f"carries={carries}, length={length} for {len(operands)} operands")
    carry, xs = operands[:carries], operands[carries:]
    for x in xs:
        if not x.shape or x.shape[0] != length:
            raise IRTypeError(f"a scanned operand is {x}; its first axis must be length={length}")
    check_signature(body, (*carry, *(x.with_shape(x.shape[1:]) for x in xs)), "body")
    results = outputs_type(body).parts
    if results[:carries] != carry:
        raise IRTypeError(f"body must yield the carries' types {carry} first, not {results}")
    return TupleType((*carry, *(y.with_shape((length, *y.shape)) for y in results[carries:])))


scan = register(
    Op(
        "scan",
        attrs=("body", "carries", "length"),
        infer=_scan_type,
        not_differentiable=_BY_A_PASS,
        traits=traits(CONTROL, MULTI, EXPENSIVE),
        flops=lambda node: node.attrs["length"] * graph_flops(node.attrs["body"]),
    )
)
