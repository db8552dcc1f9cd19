"""Reads the tokens, types and values of one line of IR text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tracegrad.ir import spelling
from tracegrad.ir.const import Const
from tracegrad.ir.errors import IRError, ParseError
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


class Line:
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
            return self.string(text)
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

    def string(self, text: str) -> str:
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
