"""The identity of a program: equal for two graphs that compute the same by the same steps."""

from __future__ import annotations

from typing import Any

from tracegrad.ir.const import Const
from tracegrad.ir.graph import INPUT, Graph
from tracegrad.ir.types import DType


def fingerprint(graph: Graph) -> str:
    """Hex blake2b over ops, attributes, types, edges, constant bytes, updates and sub-graphs'
    fingerprints.

    Not over locations and names: two call sites share one executable, each keeps its lines.
    """
    import hashlib  # here, because it takes long to import

    number = {node: index for index, node in enumerate(graph.nodes)}
    lines = [str(len(graph.inputs))]
    for node in graph.nodes:
        operands = ",".join(str(number[operand]) for operand in node.inputs)
        attrs = ";".join(f"{name}={_spell(value)}" for name, value in node.attrs.items())
        # The type follows from the rest except for inputs; it is here so that a changed rule shows.
        name = "input" if node.op is INPUT else f"op:{node.op.name}"
        lines.append(f"{name}|{operands}|{attrs}|{node.type}")
    lines.append("return " + ",".join(str(number[node]) for node in graph.outputs))
    if graph.updates:
        lines.append("updates " + ",".join(f"{k}={j}" for k, j in graph.updates.items()))
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def labels(graph: Graph) -> tuple[Any, ...]:
    """What the fingerprint leaves out and a person reads: lines, and names of inputs (those of
    values from an earlier segment say only which segment that was).
    """
    names = [n for n, role in zip(graph.input_names, graph.input_roles) if role != "import"]
    inner = (v for node in graph.nodes for v in node.attrs.values() if isinstance(v, Graph))
    return (*names, *(str(node.loc) for node in graph.nodes), *map(labels, inner))


def _spell(value: Any) -> str:
    """Unlike values never spell alike: 1, 1.0, True and "1" are four programs."""
    if isinstance(value, tuple):
        return "(" + "".join(_spell(part) + "," for part in value) + ")"
    if isinstance(value, Const):
        return f"const:{value.type}:{value.digest}"
    if isinstance(value, Graph):
        return f"graph:{value.fingerprint()}"
    if isinstance(value, DType):
        return f"dtype:{value.name}"
    return repr(value)
