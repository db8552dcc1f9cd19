"""Reads IR text back into a graph. Never evaluates it: a reader over a closed set of values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tracegrad.ir import loc as loc_
from tracegrad.ir import spelling
from tracegrad.ir.errors import IRError, ParseError
from tracegrad.ir.graph import Graph, Node, Op, emit, placeholder
from tracegrad.ir.loc import Loc
from tracegrad.ir.reader import MAX_NESTING, Line
from tracegrad.ir.types import TensorType, TupleType


def parse(text: str, constants: Mapping[str, Any] | None = None) -> Graph:
    """The graph that `print_graph` wrote.

    `constants`: digest -> Const or array, for the constants that the text does not spell out.
    Raises ParseError with line and column. The text is data: nothing in it is ever executed.
    """
    lines = [
        Line(line, index, constants or {})
        for index, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.lstrip().startswith("# ")
    ]
    if not lines:
        raise ParseError("line 1, column 1: the text is empty; it begins with 'graph name:'")
    graph, following = _graph(lines, 0, 0)
    if following < len(lines):
        raise lines[following].fail("text after the end of the graph")
    return graph


def parse_type(text: str) -> TensorType | TupleType:
    """The type that `str(type)` spells. Raises ParseError."""
    line = Line(text, 1, {})
    type_ = line.type()
    line.end()
    return type_


def _graph(lines: list[Line], at: int, depth: int) -> tuple[Graph, int]:
    """The graph whose header stands on lines[at], and the number of the line after it."""
    header = lines[at]
    if depth > MAX_NESTING:
        raise header.fail(f"sub-graphs nest deeper than {MAX_NESTING}")
    name = _graph_name(header)
    values: dict[str, Node] = {}
    inputs: list[Node] = []
    input_names: list[str] = []
    input_roles: list[str] = []
    at += 1
    while at < len(lines) and lines[at].indent > header.indent:
        line = lines[at]
        at += 1
        if line.accept("return"):
            return _finish(line, name, values, inputs, input_names, input_roles), at
        target = line.take("node")
        if target in values:
            raise line.fail(f"{target} is defined twice")
        line.take("mark", ":")
        type_ = line.type()
        line.take("mark", "=")
        op_name = line.take("name")
        operands, attrs = _arguments(line, values)
        blocks = [key for key, value in attrs.items() if value is ...]
        for _ in blocks:
            at = _block(lines, at, line, attrs, depth)
        if op_name == "input":
            node, role, label = _input(line, type_, len(inputs))
            inputs.append(node)
            input_names.append(label)
            input_roles.append(role)
        else:
            node = _emit(line, op_name, operands, attrs)
            if node.type != type_:
                raise line.fail(f"the line says {type_}, the type rule of {op_name} {node.type}")
        values[target] = node
    raise header.fail(f"graph {name!r} has no return line")


def _graph_name(header: Line) -> str:
    header.take("name", "graph")
    if header.kind() == "string":
        name = header.string(header.take())
        header.take("mark", ":")
    else:
        name = header.take("name")
        header.take("mark", ":")
    header.end()
    return name


def _block(lines: list[Line], at: int, owner: Line, attrs: dict[str, Any], depth: int) -> int:
    if at >= len(lines) or lines[at].indent <= owner.indent:
        raise owner.fail("a sub-graph written '...' needs its indented block below")
    key = lines[at].take("name")
    if attrs.get(key) is not ...:
        raise lines[at].fail(f"{key!r} is not a sub-graph of the line above")
    lines[at].take("mark", "=")
    attrs[key], at = _graph(lines, at, depth + 1)
    return at


def _arguments(line: Line, values: dict[str, Node]) -> tuple[list[Node], dict[str, Any]]:
    operands: list[Node] = []
    attrs: dict[str, Any] = {}
    line.take("mark", "(")
    first = True
    while not line.accept(")"):
        if not first:
            line.take("mark", ",")
        first = False
        if line.kind() == "node":
            operands.append(_operand(line, values))
            continue
        key = line.take("name")
        line.take("mark", "=")
        if key in attrs:
            raise line.fail(f"attribute {key!r} is given twice")
        attrs[key] = ... if line.accept("...") else line.value()
    line.end()
    return operands, attrs


def _operand(line: Line, values: dict[str, Node]) -> Node:
    name = line.take("node")
    if name not in values:
        raise line.fail(f"{name} is used before it is defined")
    return values[name]


def _emit(line: Line, op_name: str, operands: list[Node], attrs: dict[str, Any]) -> Node:
    op = _op_named(line, op_name)
    token = loc_.set_ambient(_loc(line, line.words()))
    try:
        return emit(op, *operands, **attrs)
    except IRError as error:
        raise ParseError(f"line {line.line}: {error}") from None
    finally:
        loc_.reset_ambient(token)


def _op_named(line: Line, op_name: str) -> Op:
    from tracegrad.ir.ops import op_named  # ops import the graph, the graph imports the text form

    try:
        return op_named(op_name)
    except (IRError, KeyError):
        raise ParseError(f"line {line.line}: there is no op {op_name!r}") from None


def _loc(line: Line, words: list[str]) -> Loc:
    try:
        return spelling.read_loc(words)
    except ValueError as error:
        raise ParseError(f"line {line.line}, in the comment: {error}") from None


def _input(line: Line, type_: TensorType | TupleType, index: int) -> tuple[Node, str, str]:
    if not isinstance(type_, TensorType):
        raise line.fail("a graph input is one tensor")
    words = line.words()
    role, label = "argument", f"in{index}"
    if len(words) >= 2:
        role, label = spelling.unword(words[0]), spelling.unword(words[1])
    where = words[3:] if len(words) > 2 and words[2] == "at" else []
    return placeholder(type_, _loc(line, where)), role, label


def _finish(
    line: Line,
    name: str,
    values: dict[str, Node],
    inputs: list[Node],
    input_names: list[str],
    input_roles: list[str],
) -> Graph:
    outputs: list[Node] = []
    while line.next < len(line.tokens):
        if outputs:
            line.take("mark", ",")
        outputs.append(_operand(line, values))
    words = [each for each in line.words() if each != ","]
    roles = tuple(spelling.unword(each) for each in words[0::2])
    names = tuple(spelling.unword(each) for each in words[1::2])
    if words and not len(roles) == len(names) == len(outputs):
        raise line.fail(f"{len(outputs)} outputs, but the comment names {len(names)}")
    try:
        return Graph(tuple(inputs), tuple(outputs), tuple(input_names), names,
                     tuple(input_roles), roles, name)  # fmt: skip
    except IRError as error:
        raise ParseError(f"line {line.line}: {error}") from None
