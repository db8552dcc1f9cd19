"""Graphs as canonical JSON, for dumps, caches and artifacts: data only, no code, no pickle.

    {"schema": 1, "graph": {...}, "locs": [...], "constants": {digest: {...}}}

Canonical: sorted keys, no spaces, floats as their shortest decimal, so equal graphs are equal
bytes. Where a JSON number would not do (nan, -0.0, a dtype) a value is an object with one key that
says what it is.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

import numpy as np

from tracegrad.ir import loc as loc_
from tracegrad.ir.const import Const
from tracegrad.ir.errors import IRError, ParseError
from tracegrad.ir.graph import INPUT, Graph, Node, emit, placeholder
from tracegrad.ir.loc import UNKNOWN, Loc
from tracegrad.ir.reader import MAX_NESTING
from tracegrad.ir.types import DType, TensorType, TupleType, dtype_named

SCHEMA = 1


def to_json(graph: Graph) -> str:
    """The graph, with locations, names, roles and constants, as one line of JSON."""
    writer = _Writer()
    document = {
        "schema": SCHEMA,
        "graph": writer.graph(graph),
        "locs": writer.locs,
        "constants": writer.constants,
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)


def to_bytes(graph: Graph) -> bytes:
    return to_json(graph).encode()


def from_bytes(data: bytes) -> Graph:
    """The graph that `to_bytes` wrote. Raises ParseError for anything else."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ParseError(f"$: not UTF-8: {error}") from None
    return from_json(text)


def from_json(text: str) -> Graph:
    """The graph that `to_json` wrote. Raises ParseError with the JSON path of what is wrong."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ParseError(f"$: not JSON: {error}") from None
    schema = _member(document, "schema", "$")
    if schema != SCHEMA:
        raise ParseError(f"$.schema: this is version {schema!r}; version {SCHEMA} can be read")
    return _Reader(document).graph(_member(document, "graph", "$"), "$.graph", 0)


class _Writer:
    def __init__(self) -> None:
        self.locs: list[Any] = []
        self.constants: dict[str, Any] = {}
        self._loc_number: dict[Loc, int] = {}

    def graph(self, graph: Graph) -> dict[str, Any]:
        number = {node: index for index, node in enumerate(graph.nodes)}
        return {
            "name": graph.name,
            "nodes": [
                {
                    "op": node.op.name,
                    "inputs": [number[operand] for operand in node.inputs],
                    "attrs": {name: self.value(value) for name, value in node.attrs.items()},
                    "type": str(node.type),
                    "loc": self.loc(node.loc),
                }
                for node in graph.nodes
            ],
            "inputs": [list(each) for each in zip(graph.input_names, graph.input_roles)],
            "outputs": [
                [number[node], name, role]
                for node, name, role in zip(graph.outputs, graph.output_names, graph.output_roles)
            ],
        }

    def loc(self, loc: Loc) -> int:
        """The number of `loc` in the table; -1 for an unknown one."""
        if loc is UNKNOWN or loc == UNKNOWN:
            return -1
        if loc not in self._loc_number:
            entry = [loc.file, loc.line, loc.function, loc.scope, list(loc.via)]
            entry.append([self.loc(other) for other in loc.also])
            self._loc_number[loc] = len(self.locs)
            self.locs.append(entry)
        return self._loc_number[loc]

    def value(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, float):
            return {"float": repr(float(value))}
        if isinstance(value, tuple):
            return [self.value(part) for part in value]
        if isinstance(value, DType):
            return {"dtype": value.name}
        if isinstance(value, TensorType | TupleType):
            return {"type": str(value)}
        if isinstance(value, Const):
            self.constants[value.digest] = _const_entry(value)
            return {"const": value.digest}
        if isinstance(value, Graph):
            return {"graph": self.graph(value)}
        raise IRError(f"{type(value).__name__} is no IR value: {value!r}")


def _const_entry(const: Const) -> dict[str, Any]:
    array = const.array.reshape(-1)[:1] if const.is_splat else const.array
    data = np.ascontiguousarray(array).tobytes()
    return {
        "dtype": const.dtype.name,
        "shape": list(const.shape),
        "splat": const.is_splat,
        "data": base64.b64encode(data).decode(),
    }


class _Reader:
    def __init__(self, document: Any):
        self.constants: dict[str, Const] = {}
        for digest, entry in _typed(document, "constants", "$", dict).items():
            self.constants[digest] = _read_const(entry, digest, f"$.constants.{digest}")
        self.locs: list[Loc] = []
        for index, entry in enumerate(_typed(document, "locs", "$", list)):
            self.locs.append(self._read_loc(entry, f"$.locs[{index}]"))

    def _read_loc(self, entry: Any, path: str) -> Loc:
        if not isinstance(entry, list) or [type(part) for part in entry] != [
            str, int, str, str, list, list,
        ]:  # fmt: skip
            raise ParseError(f"{path}: a location is [file, line, function, scope, via, also]")
        file, line, function, scope, via, also = entry
        if not all(isinstance(step, str) for step in via):
            raise ParseError(f"{path}[4]: steps are strings")
        others = tuple(self.loc(number, f"{path}[5]") for number in also)
        return Loc(file, line, function, scope, tuple(via), others)

    def loc(self, number: Any, path: str) -> Loc:
        if number == -1:
            return UNKNOWN
        return self.locs[_index(number, len(self.locs), path)]

    def graph(self, entry: Any, path: str, depth: int) -> Graph:
        if depth > MAX_NESTING:
            raise ParseError(f"{path}: sub-graphs nest deeper than {MAX_NESTING}")
        nodes: list[Node] = []
        for index, each in enumerate(_typed(entry, "nodes", path, list)):
            nodes.append(self._node(each, nodes, f"{path}.nodes[{index}]", depth))
        signature = [
            _strings(each, 2, f"{path}.inputs[{index}]")
            for index, each in enumerate(_typed(entry, "inputs", path, list))
        ]
        inputs = [node for node in nodes if node.op is INPUT]
        if len(signature) != len(inputs):
            raise ParseError(f"{path}.inputs: {len(signature)} names for {len(inputs)} inputs")
        outputs: list[Node] = []
        names: list[str] = []
        roles: list[str] = []
        for index, each in enumerate(_typed(entry, "outputs", path, list)):
            where = f"{path}.outputs[{index}]"
            if not isinstance(each, list) or len(each) != 3:
                raise ParseError(f"{where}: an output is [node, name, role]")
            outputs.append(nodes[_index(each[0], len(nodes), where)])
            name, role = _strings(each[1:], 2, where)
            names.append(name)
            roles.append(role)
        return Graph(
            tuple(inputs), tuple(outputs), tuple(name for name, _ in signature), tuple(names),
            tuple(role for _, role in signature), tuple(roles), _typed(entry, "name", path, str),
        )  # fmt: skip

    def _node(self, entry: Any, nodes: list[Node], path: str, depth: int) -> Node:
        name = _typed(entry, "op", path, str)
        loc = self.loc(_member(entry, "loc", path), f"{path}.loc")
        spelt = _typed(entry, "type", path, str)
        if name == INPUT.name:
            return placeholder(_tensor_type(spelt, f"{path}.type"), loc)
        operands = [
            nodes[_index(number, len(nodes), f"{path}.inputs[{position}]")]
            for position, number in enumerate(_typed(entry, "inputs", path, list))
        ]
        attrs = {
            key: self.value(value, f"{path}.attrs.{key}", depth)
            for key, value in _typed(entry, "attrs", path, dict).items()
        }
        from tracegrad.ir.ops import op_named  # ops import the graph, which serialises itself

        token = loc_.set_ambient(loc)
        try:
            node = emit(op_named(name), *operands, **attrs)
        except IRError as error:
            raise ParseError(f"{path}: {error}") from None
        finally:
            loc_.reset_ambient(token)
        if str(node.type) != spelt:
            raise ParseError(f"{path}.type: says {spelt}, the type rule {node.type}")
        return node

    def value(self, value: Any, path: str, depth: int) -> Any:
        if depth > MAX_NESTING:
            raise ParseError(f"{path}: values nest deeper than {MAX_NESTING}")
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, list):
            return tuple(
                self.value(part, f"{path}[{index}]", depth + 1) for index, part in enumerate(value)
            )
        if isinstance(value, dict) and len(value) == 1:
            ((kind, inner),) = value.items()
            if kind == "graph":
                return self.graph(inner, f"{path}.graph", depth + 1)
            if isinstance(inner, str):
                return self._named(kind, inner, path)
        raise ParseError(f"{path}: {str(value)[:40]!r} is no attribute value")

    def _named(self, kind: str, text: str, path: str) -> Any:
        if kind == "float":
            try:
                return float(text)
            except ValueError:
                raise ParseError(f"{path}.float: {text!r} is not a float") from None
        if kind == "dtype":
            return _dtype(text, path)
        if kind == "type":
            return _any_type(text, path)
        if kind == "const":
            if text not in self.constants:
                raise ParseError(f"{path}.const: constant {text} is not in $.constants")
            return self.constants[text]
        raise ParseError(f"{path}: unknown kind of value {kind!r}")


def _member(entry: Any, key: str, path: str) -> Any:
    if not isinstance(entry, dict):
        raise ParseError(f"{path}: an object is expected, not {type(entry).__name__}")
    if key not in entry:
        raise ParseError(f"{path}: {key!r} is missing")
    return entry[key]


def _typed(entry: Any, key: str, path: str, kind: type) -> Any:
    value = _member(entry, key, path)
    if type(value) is not kind:
        raise ParseError(f"{path}.{key}: {kind.__name__} expected, not {type(value).__name__}")
    return value


def _index(number: Any, count: int, path: str) -> int:
    if type(number) is not int or not 0 <= number < count:
        raise ParseError(f"{path}: {number!r} is not below {count}")
    return number


def _strings(entry: Any, count: int, path: str) -> tuple[str, ...]:
    if not isinstance(entry, list) or [type(part) for part in entry] != [str] * count:
        raise ParseError(f"{path}: {count} strings are expected")
    return tuple(entry)


def _dtype(name: str, path: str) -> DType:
    try:
        return dtype_named(name)
    except IRError as error:
        raise ParseError(f"{path}: {error}") from None


def _any_type(text: str, path: str) -> TensorType | TupleType:
    from tracegrad.ir.parse import parse_type  # the reader of the text form, wanted for this alone

    try:
        return parse_type(text)
    except ParseError as error:
        raise ParseError(f"{path}: {error}") from None


def _tensor_type(text: str, path: str) -> TensorType:
    type_ = _any_type(text, path)
    if not isinstance(type_, TensorType):
        raise ParseError(f"{path}: an input is one tensor, not {text}")
    return type_


def _read_const(entry: Any, digest: str, path: str) -> Const:
    dtype = _dtype(_typed(entry, "dtype", path, str), f"{path}.dtype")
    shape = tuple(_typed(entry, "shape", path, list))
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ParseError(f"{path}.shape: {list(shape)} is no shape")
    try:
        data = base64.b64decode(_typed(entry, "data", path, str), validate=True)
        array = np.frombuffer(data, dtype.np)
        splat = _typed(entry, "splat", path, bool)
        if splat and array.size != min(1, TensorType(shape, dtype).size):
            raise ValueError(f"{array.size} elements for a splat")
        if splat:
            const = _splat(array, shape, dtype)
        else:
            const = Const(array.reshape(shape))
    except (binascii.Error, ValueError) as error:
        raise ParseError(f"{path}.data: {error}") from None
    if const.digest != digest:
        raise ParseError(f"{path}: the data is damaged; its digest is {const.digest}")
    return const


def _splat(array: Any, shape: tuple[int, ...], dtype: DType) -> Const:
    if not array.size:
        return Const(np.zeros(shape, dtype.np))
    return Const(np.broadcast_to(array.reshape(()), shape))
