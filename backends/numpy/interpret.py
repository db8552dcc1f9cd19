"""Run a graph node by node on the NumPy kernels: what every fast path is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from tracegrad.backends.base import BackendError, KernelError, LinAlgError, UnsupportedOp
from tracegrad.backends.numpy.kernels import KERNELS
from tracegrad.backends.numpy.kernels.registry import Array
from tracegrad.ir.graph import INPUT, Graph, Node, Op, placeholder
from tracegrad.ir.ops import OPS
from tracegrad.ir.types import TupleType

# One entry a node: (node, values that no later node reads). Graphs never change, so plans keep.
_plans: WeakKeyDictionary[Graph, list[tuple[Node, tuple[Node, ...]]]] = WeakKeyDictionary()
# Decomposition of a composite by op, input types and attributes.
_decompositions: dict[tuple[Any, ...], Graph] = {}
_DECOMPOSITIONS_KEPT = 512


def _plan(graph: Graph) -> list[tuple[Node, tuple[Node, ...]]]:
    plan = _plans.get(graph)
    if plan is None:
        kept = set(graph.outputs)
        last_reader: dict[Node, Node] = {}
        for node in graph.nodes:
            for operand in node.inputs:
                last_reader[operand] = node
        plan = [
            (
                node,
                tuple(
                    operand
                    for operand in dict.fromkeys(node.inputs)
                    if last_reader[operand] is node and operand not in kept
                ),
            )
            for node in graph.nodes
            if node.op is not INPUT
        ]
        _plans[graph] = plan
    return plan


def interpret(graph: Graph, arrays: Sequence[Array]) -> list[Array]:
    """The outputs of `graph` for one array per input. Values are dropped after their last reader.

    Raises BackendError (with the op and the user's line) when a kernel fails. Outputs may share
    memory with inputs or with each other.
    """
    if len(arrays) != len(graph.inputs):
        raise KernelError(
            f"graph {graph.name!r} takes {len(graph.inputs)} arrays, {len(arrays)} were given"
        )
    values: dict[Node, Any] = dict(zip(graph.inputs, arrays))
    with np.errstate(all="ignore"):
        for node, dying in _plan(graph):
            values[node] = _apply(node, [values[operand] for operand in node.inputs])
            for operand in dying:
                del values[operand]
    return [values[node] for node in graph.outputs]


def run_node(node: Node, arrays: Sequence[Any]) -> Any:
    """The value of one node for its inputs' values: an array; a tuple for a several-result op."""
    with np.errstate(all="ignore"):
        return _apply(node, arrays)


def _apply(node: Node, arrays: Sequence[Any]) -> Any:
    function = KERNELS.get(node.op.name)
    try:
        if function is not None:
            return function(*arrays, **node.attrs)
        return _run_decomposed(node, arrays)
    except BackendError as error:
        if error.loc is not None:  # raised inside a sub-graph, which knows the line better
            raise
        raise error.located(node.op.name, node.loc) from None
    except np.linalg.LinAlgError as error:
        raise LinAlgError(str(error), node.op.name, node.loc) from error
    except Exception as error:
        described = ", ".join(str(operand.type) for operand in node.inputs)
        raise KernelError(
            f"{type(error).__name__}: {error} (inputs: {described or 'none'})",
            node.op.name,
            node.loc,
        ) from error


def _run_decomposed(node: Node, arrays: Sequence[Any]) -> Any:
    outputs = interpret(decomposition(node), arrays)
    return tuple(outputs) if isinstance(node.type, TupleType) else outputs[0]


def decomposition(node: Node) -> Graph:
    """The composite `node` as a graph of simpler ops over inputs of the same types; cached."""
    op: Op = node.op
    if op.decompose is None:
        raise UnsupportedOp("has no NumPy kernel and no decomposition", op.name)
    key = (op, tuple(operand.type for operand in node.inputs), node.attrs)
    graph = _decompositions.get(key)
    if graph is None:
        inputs = tuple(placeholder(operand.type, node.loc) for operand in node.inputs)
        result = op.decompose(*inputs, **node.attrs)
        outputs = result if isinstance(result, tuple) else (result,)
        graph = Graph(inputs, outputs, name=op.name)
        if OPS.get(op.name) is not op:  # of one call, whose recording its VJP may hold
            return graph
        if len(_decompositions) >= _DECOMPOSITIONS_KEPT:
            _decompositions.clear()
        _decompositions[key] = graph
    return graph
