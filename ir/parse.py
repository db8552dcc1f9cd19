"""Reads IR text back into a graph. Never evaluates it: a reader over a closed set of values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tracegrad.ir import loc as loc_
from tracegrad.ir import spelling
from tracegrad.ir.const import Const
from tracegrad.ir.errors import IRError, ParseError
from tracegrad.ir.graph import Graph, Node, Op, emit, placeholder
from tracegrad.ir.loc import Loc
from tracegrad.ir.types import DType, TensorType, TupleType, dtype_named

MAX_NESTING = 64  # of tuples and of sub-graphs: far above any real graph, far below Python's stack

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<string>"(?:[^"\\]|\\.)*")
  | (?P<number>-?(?:0x[0-9a-fA-F]+|inf\b|nan\b|\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?))
  | (?P<node>%\d+)
  | (?P<digest>blake2b:[0-9a-f]+)
  | (?P<dots>\.\.\.)
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<mark>[()\[\]<>=,:])
  | (?P<comment>\#.*)
    )""",
    re.VERBOSE,
)


class _Line:
    """The tokens of one line, read left to right."""

    def __init__(self, text: str, line: int, constants: Mapping[str, Any]):
        self.line = line
        self.constants = constants
        self.indent = len(text) - len(text.lstrip(" "))
        self.comment: str | None = None
        self.tokens: list[tuple[str, str, int]] = []
        self.next = 0
        position = 0
        text = text.rstrip()
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                rest = text[position : position + 20]
                raise ParseError(f"line {line}, column {position + 1}: cannot read {rest!r}")
            kind = match.lastgroup or ""
            if kind == "comment":
                self.comment = match[kind][1:].strip()
            else:
                self.tokens.append((kind, match[kind], match.start(kind) + 1))
            position = match.end()

    def fail(self, message: str) -> ParseError:
        column = self.tokens[self.next][2] if self.next < len(self.tokens) else "end"
        return ParseError(f"line {self.line}, column {column}: {message}")

    def peek(self) -> str:
        return self.tokens[self.next][1] if self.next < len(self.tokens) else ""

    def kind(self) -> str:
        return self.tokens[self.next][0] if self.next < len(self.tokens) else ""

    def take(self, kind: str = "", text: str = "") -> str:
        if self.next >= len(self.tokens):
            raise self.fail(f"the line ends where {text or kind!r} is expected")
        found_kind, found, _ = self.tokens[self.next]
        if (kind and found_kind != kind) or (text and found != text):
            raise self.fail(f"{found!r} where {text or kind!r} is expected")
        self.next += 1
        return found

    def accept(self, text: str) -> bool:
        if self.peek() == text and self.kind() != "string":
            self.next += 1
            return True
        return False

    def end(self) -> None:
        if self.next < len(self.tokens):
            raise self.fail(f"{self.peek()!r} after the end of the statement")

    def words(self) -> list[str]:
        try:
            return spelling.split_words(self.comment or "")
        except ValueError as error:
            raise ParseError(f"line {self.line}, in the comment: {error}") from None

    # types

    def dtype(self) -> DType:
        name = self.take("name")
        try:
            return dtype_named(name)
        except IRError as error:
            raise self.fail(str(error)) from None

    def integer(self) -> int:
        text = self.take("number")
        try:
            return int(text)
        except ValueError:
            raise self.fail(f"{text!r} is not an integer") from None

    def tensor_type(self) -> TensorType:
        dtype = self.dtype()
        self.take("mark", "[")
        shape: list[int] = []
        while not self.accept("]"):
            if shape:
                self.take("mark", ",")
            shape.append(self.integer())
            if shape[-1] < 0:
                raise self.fail(f"a dimension is never negative, this one is {shape[-1]}")
        return TensorType(tuple(shape), dtype)

    def type(self) -> TensorType | TupleType:
        if not self.accept("("):
            return self.tensor_type()
        parts: list[TensorType] = []
        while not self.accept(")"):
            if parts:
                self.take("mark", ",")
            parts.append(self.tensor_type())
        return TupleType(tuple(parts))

    # values

    def value(self, depth: int = 0) -> Any:
        if depth > MAX_NESTING:
            raise self.fail(f"tuples nest deeper than {MAX_NESTING}")
        kind, text = self.kind(), self.peek()
        if kind == "string":
            self.next += 1
            return self._string(text)
        if kind == "number":
            self.next += 1
            return _python_number(text)
        if self.accept("("):
            parts: list[Any] = []
            while not self.accept(")"):
                parts.append(self.value(depth + 1))
                if not self.accept(","):
                    self.take("mark", ")")
                    break
            return tuple(parts)
        if text in _WORDS:
            self.next += 1
            return _WORDS[text]
        if text == "const":
            self.next += 1
            return self.const()
        if kind == "name":
            if self.next + 1 < len(self.tokens) and self.tokens[self.next + 1][1] == "[":
                return self.tensor_type()
            return self.dtype()
        raise self.fail(f"{text!r} is not a value" if text else "a value is missing")

    def _string(self, text: str) -> str:
        try:
            return spelling.unword(text)
        except ValueError as error:
            raise self.fail(f"bad string {text}: {error}") from None

    def const(self) -> Const:
        self.take("mark", "<")
        type_ = self.tensor_type()
        if self.kind() == "digest":
            const = self._named_const(self.take().removeprefix("blake2b:"), type_)
        elif self.accept("["):
            elements: list[Any] = []
            while not self.accept("]"):
                if elements:
                    self.take("mark", ",")
                elements.append(self.element(type_.dtype))
            if len(elements) != type_.size:
                raise self.fail(f"{len(elements)} values for {type_}")
            const = Const(np.array(elements, type_.dtype.np).reshape(type_.shape))
        else:
            const = Const.full(type_.shape, type_.dtype, self.element(type_.dtype))
        self.take("mark", ">")
        return const

    def _named_const(self, digest: str, type_: TensorType) -> Const:
        if digest not in self.constants:
            raise self.fail(
                f"the values of constant blake2b:{digest} are not in the text; "
                "pass them as parse(text, constants={digest: array})"
            )
        given = self.constants[digest]
        const = given if isinstance(given, Const) else Const(given)
        if const.type != type_ or const.digest != digest:
            raise self.fail(
                f"the constant given for {digest} is {const!r}, not {type_} of that digest"
            )
        return const

    def element(self, dtype: DType) -> Any:
        """One element of a constant, already in the constant's dtype (bits survive)."""
        if self.accept("complex"):
            part = DType("", np.zeros((), dtype.np).real.dtype, "float")
            self.take("mark", "(")
            result = np.zeros((), dtype.np)
            result.real = self.element(part)
            self.take("mark", ",")
            result.imag = self.element(part)
            self.take("mark", ")")
            return result[()]
        if self.accept("bits"):
            self.take("mark", "(")
            bits = self.take("number").removeprefix("0x")
            self.take("mark", ")")
            try:
                return np.frombuffer(bytes.fromhex(bits)[::-1], dtype.np)[0]
            except (ValueError, IndexError) as error:
                raise self.fail(f"bad bits: {error}") from None
        value = self.value()
        expected = (bool,) if dtype.is_bool else (int,) if dtype.is_int else (float, int)
        if type(value) not in expected or (dtype.is_complex):
            raise self.fail(f"{value!r} is not an element of {dtype.name or 'a complex part'}")
        try:
            with np.errstate(all="ignore"):
                return np.array(value, dtype.np)[()]
        except (ValueError, OverflowError) as error:
            raise self.fail(f"{value!r} is not an element of {dtype.name}: {error}") from None


_WORDS: dict[str, Any] = {"True": True, "False": False, "None": None}


def _python_number(text: str) -> int | float:
    if text.lstrip("-").startswith("0x"):
        return int(text, 16)
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    return float(text)


def parse(text: str, constants: Mapping[str, Any] | None = None) -> Graph:
    """The graph that `print_graph` wrote.

    `constants`: digest -> Const or array, for the constants that the text does not spell out.
    Raises ParseError with line and column. The text is data: nothing in it is ever executed.
    """
    lines = [
        _Line(line, index, constants or {})
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
    line = _Line(text, 1, {})
    type_ = line.type()
    line.end()
    return type_


def _graph(lines: list[_Line], at: int, depth: int) -> tuple[Graph, int]:
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


def _graph_name(header: _Line) -> str:
    header.take("name", "graph")
    if header.kind() == "string":
        name = header._string(header.take())
        header.take("mark", ":")
    else:
        name = header.take("name")
        header.take("mark", ":")
    header.end()
    return name


def _block(lines: list[_Line], at: int, owner: _Line, attrs: dict[str, Any], depth: int) -> int:
    if at >= len(lines) or lines[at].indent <= owner.indent:
        raise owner.fail("a sub-graph written '...' needs its indented block below")
    key = lines[at].take("name")
    if attrs.get(key) is not ...:
        raise lines[at].fail(f"{key!r} is not a sub-graph of the line above")
    lines[at].take("mark", "=")
    attrs[key], at = _graph(lines, at, depth + 1)
    return at


def _arguments(line: _Line, values: dict[str, Node]) -> tuple[list[Node], dict[str, Any]]:
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


def _operand(line: _Line, values: dict[str, Node]) -> Node:
    name = line.take("node")
    if name not in values:
        raise line.fail(f"{name} is used before it is defined")
    return values[name]


def _emit(line: _Line, op_name: str, operands: list[Node], attrs: dict[str, Any]) -> Node:
    op = _op_named(line, op_name)
    token = loc_.set_ambient(_loc(line, line.words()))
    try:
        return emit(op, *operands, **attrs)
    except IRError as error:
        raise ParseError(f"line {line.line}: {error}") from None
    finally:
        loc_.reset_ambient(token)


def _op_named(line: _Line, op_name: str) -> Op:
    from tracegrad.ir.ops import op_named  # ops import the graph, the graph imports the text form

    try:
        return op_named(op_name)
    except (IRError, KeyError):
        raise ParseError(f"line {line.line}: there is no op {op_name!r}") from None


def _loc(line: _Line, words: list[str]) -> Loc:
    try:
        return spelling.read_loc(words)
    except ValueError as error:
        raise ParseError(f"line {line.line}, in the comment: {error}") from None


def _input(line: _Line, type_: TensorType | TupleType, index: int) -> tuple[Node, str, str]:
    if not isinstance(type_, TensorType):
        raise line.fail("a graph input is one tensor")
    words = line.words()
    role, label = "argument", f"in{index}"
    if len(words) >= 2:
        role, label = spelling.unword(words[0]), spelling.unword(words[1])
    where = words[3:] if len(words) > 2 and words[2] == "at" else []
    return placeholder(type_, _loc(line, where)), role, label


def _finish(
    line: _Line,
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
