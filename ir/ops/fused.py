"""A group of elementwise nodes and reductions, computed by one loop; made by the fuse pass only."""

from __future__ import annotations

from tracegrad.ir.graph import Graph, Op
from tracegrad.ir.ops.base import register, traits
from tracegrad.ir.ops.structure import check_signature, graph_flops, outputs_type
from tracegrad.ir.ops.traits import CONTROL
from tracegrad.ir.types import TensorType, TupleType


def _fused_type(*xs: TensorType, graph: Graph) -> TensorType | TupleType:
    check_signature(graph, xs, "graph")
    results = outputs_type(graph)
    return results.parts[0] if len(results.parts) == 1 else results


# The outputs of `graph`: a tuple, or the value itself where there is one.
fused = register(
    Op(
        "fused",
        attrs=("graph",),
        infer=_fused_type,
        not_differentiable="is made after differentiation; differentiate before the fuse pass",
        traits=traits(CONTROL),
        flops=lambda node: graph_flops(node.attrs["graph"]),
    )
)
