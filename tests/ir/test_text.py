"""The text form: what it looks like, and that it reads back."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ir.graphs import branches, f32_input, layer, with_constants
from tests.op_samples import SAMPLES
from tracegrad.ir import (
    Const,
    Graph,
    Loc,
    ParseError,
    TensorType,
    at,
    bf16,
    constants_of,
    ops,
    parse,
    placeholder,
    print_graph,
)


def read_back(graph: Graph) -> Graph:
    again = parse(str(graph), constants_of(graph))
    assert str(again) == str(graph)
    assert again.fingerprint() == graph.fingerprint()
    assert [node.loc for node in again.nodes] == [node.loc for node in graph.nodes]
    return again


def test_looks_like_python() -> None:
    assert str(layer()) == (
        "graph layer:\n"
        "  %0: f32[2,3] = input()  # argument x at net.py:1\n"
        "  %1: f32[3,4] = input()  # state fc.weight at net.py:1\n"
        "  %2: f32[2,4] = matmul(%0, %1)  # net.py:41 in forward @ block1.attn <- vjp(tanh)\n"
        "  %3: f32[2,4] = tanh(%2)  # net.py:41 in forward @ block1.attn <- vjp(tanh)\n"
        "  %4: f32[3,4] = constant(value=const<f32[3,4] 0.5>)"
        "  # net.py:41 in forward @ block1.attn <- vjp(tanh)\n"
        "  %5: f32[3,4] = mul(%1, %4)  # net.py:41 in forward @ block1.attn <- vjp(tanh)\n"
        "  return %3, %5  # result y, state:fc.weight fc.weight.new\n"
    )


def test_without_locations() -> None:
    text = print_graph(layer(), locations=False)
    assert "net.py" not in text
    assert parse(text).fingerprint() == layer().fingerprint()
    assert parse(text).input_names == ("x", "fc.weight")


def test_names_and_roles_read_back() -> None:
    graph = layer()
    again = read_back(graph)
    assert (again.name, again.input_names, again.output_names) == (
        graph.name,
        graph.input_names,
        graph.output_names,
    )
    assert (again.input_roles, again.output_roles) == (graph.input_roles, graph.output_roles)


def test_subgraphs_are_indented_blocks_with_their_own_numbers() -> None:
    text = str(branches())
    assert "cond(%0, %0, %1, then=..., orelse=...)" in text
    assert '\n    then = graph "outer branch":\n      %0: bool[] = input()' in text
    read_back(branches())


def test_constants_read_back_bit_for_bit() -> None:
    graph = with_constants()
    text = str(graph)
    for spelling in (
        "const<f32[4,5] -0.0>",
        "[1.0, nan, inf, -inf, -0.0, 0.1, 1e-45]",
        "bits(0x7fc12345)",
        "complex(1.1, 2.0), complex(nan, -0.0)",
        "const<bool[2] [True, False]>",
        "9223372036854775807, -9223372036854775808",
        "const<f32[8,5] blake2b:",
    ):
        assert spelling in text
    again = read_back(graph)
    for a, b in zip(graph.outputs, again.outputs):
        assert a.attrs["value"] == b.attrs["value"]


def test_floats_are_the_shortest_that_read_back() -> None:
    random = np.random.default_rng(0)
    bits = random.integers(0, 2**32, 4000, dtype=np.uint64).astype(np.uint32)
    values = bits.view(np.float32)
    for start in range(0, 4000, 16):
        const = Const(values[start : start + 16])
        graph = Graph((), (ops.constant(value=const),))
        assert parse(str(graph)).outputs[0].attrs["value"] == const
    half = Const(np.array([0.1, 3.3, 65280.0], bf16.np))
    text = str(Graph((), (ops.constant(value=half),)))
    assert "[0.1, 3.3, 6.53e+04]" in text or "[0.1, 3.3, 65300.0]" in text
    assert parse(text).outputs[0].attrs["value"] == half


def test_a_long_constant_needs_its_values() -> None:
    graph = with_constants()
    with pytest.raises(ParseError, match=r"line 5.*pass them as parse\(text, constants="):
        parse(str(graph))
    (digest,) = constants_of(graph)
    wrong = np.zeros((8, 5), np.float32)
    with pytest.raises(ParseError, match="not f32"):
        parse(str(graph), {digest: wrong})


@pytest.mark.parametrize(
    "loc",
    [
        Loc("/a dir/in @ net.py", 3, "<lambda>", "block 1", ('a "quoted" step', "é")),
        Loc("C:\\x\\net.py", 3, "in", "", ("",)),
        Loc("", 7),
        Loc("a#b;c,d.py", 0, "f", also=(Loc("b.py", 2, "g", "s", ("t",)), Loc("new\nline", 1))),
    ],
)
def test_odd_locations_read_back(loc: Loc) -> None:
    x = placeholder(TensorType((2,), bf16), loc)
    with at(loc):
        y = ops.exp(x)
    read_back(Graph((x,), (y,), ("in at , x",), ("a,b;c",), ("ro le",), ("state:q",), 'my "graph"'))


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_every_op_reads_back(name: str) -> None:
    for sample in SAMPLES[name]:
        read_back(sample.graph(name))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("graph g:\n  return %0", "line 2.*%0 is used before"),
        ("graph g:\n  %0: f32[2] = input()", "no return line"),
        ("graph g:\n  %0: f32[2] = input()\n  %1: f32[3] = exp(%0)\n  return %1", "line 3.*f32.2"),
        ("graph g:\n  %0: q8[2] = input()\n  return %0", "line 2.*unknown dtype 'q8'"),
        ("graph g:\n  %0: f32[2] = input()\n  %1: f32[2] = nosuch(%0)\n  return %1", "no op"),
        ("graph g:\n  %0: f32[2] = input()\n  %0: f32[2] = exp(%0)\n  return %0", "twice"),
        ("graph g:\n  %0: f32[2] = input()\n  %1: f32[2] = sum(%0, axes=(0,)", "the line ends"),
        ("graph g:\n  %0: f32[2] = input() $\n  return %0", "column 23: cannot read"),
        ("graph g:\n  %0: f32[-1] = input()\n  return %0", "never negative"),
        ("graph g:\n  return\ngraph h:\n  return", "after the end"),
        ("graph g:\n  %0: f32[2] = constant(value=const<f32[2] [1.0]>)\n  return %0", "1 values"),
        ("graph g:\n  %0: u8[] = constant(value=const<u8[] 300>)\n  return %0", "300"),
        ("graph g:\n  %0: f32[2] = input()  # a b at nowhere\n  return %0", "not file:line"),
        ("graph g:\n  %0: f32[2] = reshape(shape=" + "(" * 999 + "\n  return %0", "nest deeper"),
    ],
)
def test_bad_text_says_where(text: str, message: str) -> None:
    with pytest.raises(ParseError, match=message):
        parse(text)


def test_text_is_never_executed() -> None:
    for evil in ("__import__('os')", "open('x')", "[].append", "lambda: 0", "f32.np", "1 + 1"):
        with pytest.raises(ParseError):
            parse(
                f"graph g:\n  %0: f32[2] = input()\n  %1: f32[2] = exp(%0, a={evil})\n  return %1"
            )


def test_a_long_chain_needs_no_recursion() -> None:
    x = node = f32_input(2)
    for _ in range(3000):
        node = ops.exp(node)
    read_back(Graph((x,), (node,)))
