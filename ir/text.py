"""The text form: one line a node, reads like Python, parses back. Grammar: `ir/__init__.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tracegrad.ir import spelling
from tracegrad.ir.const import Const
from tracegrad.ir.graph import INPUT, Graph, Node
from tracegrad.ir.loc import UNKNOWN
from tracegrad.ir.parse import parse


def print_graph(graph: Graph, *, locations: bool = True) -> str:
    """The graph as text. `locations=False` leaves origins out (names and roles stay)."""
    return "\n".join(_graph_lines(graph, "", locations)) + "\n"


def node_lines(graph: Graph, start: int, stop: int) -> list[str]:
    """The lines of `graph.nodes[start:stop]`, numbered as in `print_graph`, without sub-graphs."""
    number = {node: index for index, node in enumerate(graph.nodes)}
    inputs = _input_comments(graph)
    return [_node_line(node, number, inputs, True) for node in graph.nodes[max(start, 0) : stop]]


def constants_of(graph: Graph) -> dict[str, Const]:
    """The constants that the text does not spell out, by digest: what `parse` needs."""
    found: dict[str, Const] = {}
    graphs = [graph]
    while graphs:
        for node in graphs.pop().nodes:
            for value in node.attrs.values():
                if isinstance(value, Const) and not spelling.is_inline(value):
                    found[value.digest] = value
                elif isinstance(value, Graph):
                    graphs.append(value)
    return found


def _input_comments(graph: Graph) -> dict[Node, str]:
    return {
        node: f"{spelling.word(role)} {spelling.word(name)}"
        for node, role, name in zip(graph.inputs, graph.input_roles, graph.input_names)
    }


def _graph_lines(graph: Graph, indent: str, locations: bool, header: str = "") -> Iterator[str]:
    number = {node: index for index, node in enumerate(graph.nodes)}
    inputs = _input_comments(graph)
    name = graph.name if spelling.is_plain_name(graph.name) else spelling.quoted(graph.name)
    yield f"{indent}{header}graph {name}:"
    body = indent + "  "
    for node in graph.nodes:
        yield body + _node_line(node, number, inputs, locations)
        for name, value in node.attrs.items():
            if isinstance(value, Graph):
                yield from _graph_lines(value, body + "  ", locations, header=f"{name} = ")
    results = ", ".join(f"%{number[node]}" for node in graph.outputs)
    signature = ", ".join(
        f"{spelling.word(role)} {spelling.word(name)}"
        for role, name in zip(graph.output_roles, graph.output_names)
    )
    yield f"{body}return {results}  # {signature}" if results else f"{body}return"


def _node_line(
    node: Node, number: Mapping[Node, int], inputs: Mapping[Node, str], locations: bool
) -> str:
    arguments = [f"%{number[operand]}" for operand in node.inputs]
    arguments += [f"{name}={_attribute(value)}" for name, value in node.attrs.items()]
    line = f"%{number[node]}: {node.type} = {node.op.name}({', '.join(arguments)})"
    comment = spelling.spell_loc(node.loc) if locations and node.loc is not UNKNOWN else ""
    if node.op is INPUT and node in inputs:
        comment = f"{inputs[node]} at {comment}" if comment else inputs[node]
    return f"{line}  # {comment}" if comment else line


def _attribute(value: Any) -> str:
    return "..." if isinstance(value, Graph) else spelling.spell_value(value)


__all__ = ["constants_of", "node_lines", "parse", "print_graph"]
