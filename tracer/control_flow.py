"""Graphs of functions inside other code: the branches of `cond`, the body of `while_loop`, what
`vmap` batches.

Every tensor from outside is an input of such a graph (see trace/nested.py); the caller passes them
on as operands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, Node, placeholder
from tracegrad.ir.types import TensorType, bool_
from tracegrad.tracer.arguments import explained
from tracegrad.tracer.dispatch import Weak, apply
from tracegrad.tracer.errors import ArgumentError, ShapeError
from tracegrad.tracer.locate import here
from tracegrad.tracer.state import Mode, get_mode, reset_mode, set_mode
from tracegrad.tracer.tensor import Tensor
from tracegrad.tracer.trace.nested import NestedTrace
from tracegrad.tracer.trees import flatten


@dataclass
class FunctionGraph:
    """A traced function: inputs of `graph` are the arguments' leaves, then `captured`."""

    graph: Graph
    captured: list[Tensor]
    treedef: Any


def trace_function(function: Callable[..., Any], arguments: Any, what: str) -> FunctionGraph:
    """Trace `function(*arguments)`, trees of TensorTypes; other leaves are passed as they are."""
    trace = NestedTrace(what)
    leaves, treedef = flatten(tuple(arguments))
    given = [trace.argument(leaf) if isinstance(leaf, TensorType) else leaf for leaf in leaves]
    inputs = [tensor._traced.node for tensor in given if isinstance(tensor, Tensor)]
    token = set_mode(Mode(get_mode().grad, trace))
    try:
        returned = function(*treedef.unflatten(given))
        results, out_treedef = flatten(returned)
        outputs = []
        for leaf in results:
            if not isinstance(leaf, Tensor):
                if not isinstance(leaf, (bool, int, float)) and not hasattr(leaf, "_traced_number"):
                    raise ArgumentError(
                        f"a function given to {what} returned {type(leaf).__name__}; it must return tensors",
                        where=here(),
                    )
                leaf = (
                    leaf.as_tensor()
                    if hasattr(leaf, "_traced_number")
                    else trace.adopt(_scalar(leaf))
                )
            outputs.append(trace.node_of(leaf))
    finally:
        reset_mode(token)
    graph = Graph((*inputs, *trace.captured_nodes), tuple(outputs), name=what)
    return FunctionGraph(graph, trace.captured, out_treedef)


def _scalar(value: Any) -> Tensor:
    from tracegrad.tracer.creation.tensors import array_from
    from tracegrad.tracer.tensor import wrap

    return wrap(array_from(value, None))


def with_captures(traced: FunctionGraph, union: list[Tensor]) -> Graph:
    """The graph with its captured inputs re-ordered to `union` (ids), unused ones added."""
    count = len(traced.graph.inputs) - len(traced.captured)
    by_id = {id(t): n for t, n in zip(traced.captured, traced.graph.inputs[count:])}
    captures = tuple(
        by_id.get(id(t)) or placeholder(TensorType(tuple(t.shape), t.dtype), here()) for t in union
    )
    return Graph(
        (*traced.graph.inputs[:count], *captures), traced.graph.outputs, name=traced.graph.name
    )


class ControlOp:
    """A control-flow node as a user-level op on tensors."""

    eager_only = stores = ""
    known = None

    def __init__(self, name: str, op: Any, attrs: dict[str, Any], keep: int):
        self.name, self.op, self.attributes, self.keep = name, op, attrs, keep

    def emit_on(self, operands: tuple[Any, ...], attrs: tuple[Any, ...]) -> tuple[Node, ...]:
        nodes = [o.node if isinstance(o, Weak) else o for o in operands]
        whole = self.op(*nodes, **self.attributes)
        return tuple(ops.proj(whole, index=k) for k in range(self.keep))

    def pack(self, results: list[Any]) -> Any:
        return results


def types_of(tree: Any) -> Any:
    leaves, treedef = flatten(tree)
    return treedef.unflatten(
        TensorType(tuple(x.shape), x.dtype) if isinstance(x, Tensor) else x for x in leaves
    )


def union_of(*groups: list[Tensor]) -> list[Tensor]:
    return list({id(t): t for group in groups for t in group}.values())


def as_predicate(pred: Any) -> Any:
    if not isinstance(pred, Tensor):
        return pred
    if pred.numel() != 1:
        raise ShapeError(
            f"a condition needs one element, this tensor has {pred.numel()}", where=here()
        )
    flat = pred.reshape(())
    return flat if flat.dtype is bool_ else flat.to(bool_)


@partial(explained, home="tracegrad")
def cond(
    pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], operands: tuple = ()
) -> Any:
    """`true_fn(*operands)` if pred else `false_fn(*operands)`, as one node of the graph; both are
    traced.

    Both must return tensors of the same structure, shapes and dtypes. Differentiable. A Python bool
    picks at once.
    """
    pred = as_predicate(pred)
    if not isinstance(pred, Tensor):
        return true_fn(*operands) if pred else false_fn(*operands)
    types = types_of(tuple(operands))
    then, orelse = trace_function(true_fn, types, "cond"), trace_function(false_fn, types, "cond")
    if then.treedef != orelse.treedef:
        raise ArgumentError("the branches of cond return different structures", where=here())
    captured = union_of(then.captured, orelse.captured)
    graphs = {"then": with_captures(then, captured), "orelse": with_captures(orelse, captured)}
    leaves = [x for x in flatten(tuple(operands))[0] if isinstance(x, Tensor)]
    op = ControlOp("cond", ops.cond, graphs, len(then.graph.outputs))
    return then.treedef.unflatten(apply(op, (pred, *leaves, *captured)))


@partial(explained, home="tracegrad")
def while_loop(
    cond_fn: Callable[..., Any], body_fn: Callable[..., Any], carried_inputs: tuple, *, max_trips: int | None = None
) -> Any:  # fmt: skip
    """`while cond_fn(*carry): carry = body_fn(*carry)`, as one node of the graph. Returns the last
    carry.

    Shapes and dtypes of the carry must not change. Differentiable only with `max_trips`, a bound on
    the trips.
    """
    carry = tuple(c if isinstance(c, Tensor) else _scalar(c) for c in carried_inputs)
    types = types_of(carry)
    test = trace_function(lambda *c: as_predicate(cond_fn(*c)), types, "while_loop")
    body = trace_function(lambda *c: tuple(body_fn(*c)), types, "while_loop")
    captured = union_of(test.captured, body.captured)
    looped = with_captures(body, captured)
    extra = looped.inputs[len(carry) :]
    attrs = {
        "cond": with_captures(test, captured),
        "body": looped.replace(outputs=(*looped.outputs, *extra), output_names=(), output_roles=()),
        "max_trips": max_trips,
    }
    op = ControlOp("while_loop", ops.while_loop, attrs, len(carry))
    return tuple(apply(op, (*carry, *captured)))
