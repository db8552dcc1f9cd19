"""JSON and pickles of graphs: they read back, and a damaged file says where."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest

from tests.ir.graphs import branches, f32_input, layer, with_constants
from tests.op_samples import SAMPLES
from tracegrad.ir import Graph, ParseError, from_bytes, from_json, ops, to_bytes, to_json


def same(a: Graph, b: Graph) -> None:
    assert str(a) == str(b)
    assert a.fingerprint() == b.fingerprint()
    assert [node.loc for node in a.nodes] == [node.loc for node in b.nodes]


@pytest.mark.parametrize("make", [layer, branches, with_constants])
def test_reads_back(make: Any) -> None:
    graph = make()
    again = from_json(to_json(graph))
    same(graph, again)
    assert to_json(again) == to_json(graph)
    same(graph, from_bytes(to_bytes(graph)))


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_every_op_reads_back(name: str) -> None:
    for sample in SAMPLES[name]:
        graph = sample.graph(name)
        same(graph, from_json(to_json(graph)))


def test_graphs_pickle_and_copy() -> None:
    for graph in (layer(), branches(), with_constants()):
        same(graph, pickle.loads(pickle.dumps(graph)))
        assert copy.deepcopy(graph) is graph


def test_a_deep_graph_pickles() -> None:
    x = node = f32_input(2)
    for _ in range(5000):
        node = ops.exp(node)
    graph = Graph((x,), (node,))
    assert pickle.loads(pickle.dumps(graph)).fingerprint() == graph.fingerprint()


def changed(path: str, value: Any) -> str:
    """The JSON of `layer` with one place, a dotted path, set to `value`."""
    document = json.loads(to_json(layer()))
    *above, last = path.split(".")
    place: Any = document
    for key in above:
        place = place[int(key) if key.isdigit() else key]
    place[int(last) if last.isdigit() else last] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema", 99, r"\$\.schema: this is version 99"),
        ("graph", [], r"\$\.graph: an object is expected"),
        ("graph.nodes.2.op", "nosuch", r"\$\.graph\.nodes\[2\]: unknown op 'nosuch'"),
        ("graph.nodes.2.op", 3, r"\$\.graph\.nodes\[2\]\.op: str expected"),
        ("graph.nodes.2.inputs", [0, 9], r"nodes\[2\]\.inputs\[1\]: 9 is not below 2"),
        ("graph.nodes.2.inputs", [0, True], r"nodes\[2\]\.inputs\[1\]: True"),
        ("graph.nodes.2.type", "f32[9]", r"nodes\[2\]\.type: says f32\[9\]"),
        ("graph.nodes.0.type", "f33[9]", r"nodes\[0\]\.type: .*unknown dtype"),
        ("graph.nodes.2.loc", 55, r"nodes\[2\]\.loc: 55 is not below"),
        ("graph.nodes.2.attrs", {"axes": [0]}, r"nodes\[2\]: matmul: attributes"),
        ("graph.nodes.4.attrs.value", {"const": "00"}, r"attrs\.value\.const: constant 00"),
        ("graph.nodes.4.attrs.value", {"code": "1+1"}, r"unknown kind of value 'code'"),
        ("graph.nodes.4.attrs.value", 0.5, r"attrs\.value: '0.5' is no attribute value"),
        ("graph.outputs.0", [77, "y", "result"], r"\$\.graph\.outputs\[0\]: 77"),
        ("graph.inputs", [], r"\$\.graph\.inputs: 0 names for 2 inputs"),
        ("locs.0", ["a.py"], r"\$\.locs\[0\]: a location is"),
        ("constants", {}, r"is not in \$\.constants"),
    ],
)
def test_a_damaged_file_says_where(path: str, value: Any, message: str) -> None:
    with pytest.raises(ParseError, match=message):
        from_json(changed(path, value))


def test_damaged_constant_bytes_are_noticed() -> None:
    document = json.loads(to_json(with_constants()))
    long = next(key for key, entry in document["constants"].items() if entry["shape"] == [8, 5])
    entry = document["constants"][long]
    entry["data"] = "AAAA" + entry["data"][4:]
    entry["data"] = entry["data"][:8] + "BBBB" + entry["data"][12:]
    with pytest.raises(ParseError, match="the data is damaged"):
        from_json(json.dumps(document))
    entry["data"] = entry["data"][:-8]
    with pytest.raises(ParseError, match=rf"\$\.constants\.{long}\.data"):
        from_json(json.dumps(document))


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[]", b"{}", b"3", b"[" * 100_000])
def test_what_is_no_graph_is_refused(data: bytes) -> None:
    with pytest.raises(ParseError, match=r"^\$"):
        from_bytes(data)


def test_cut_short_files_are_refused() -> None:
    data = to_bytes(branches())
    for length in range(0, len(data) - 1, 97):
        with pytest.raises(ParseError):
            from_bytes(data[:length])
