"""The verifier and the fingerprint: what they notice."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.ir.graphs import HERE, branches, f32_input, layer, with_constants
from tests.op_samples import SAMPLES
from tracegrad.ir import (
    Attrs,
    Graph,
    IRTypeError,
    Loc,
    Node,
    Op,
    TensorType,
    VerifyError,
    at,
    emit,
    f32,
    f64,
    ops,
    verify,
)


def chain(length: int, wrong_at: int) -> Graph:
    """exp of exp of ...; one node claims a type that its rule does not derive."""
    x = node = f32_input(2)
    for index in range(length):
        with at(Loc("user.py", index + 10)):
            node = ops.exp(node)
        if index == wrong_at:
            node = Node(node.op, node.inputs, node.attrs, TensorType((2,), f64), node.loc)
    return Graph((x,), (node,), name="chain")


def test_sound_graphs_pass() -> None:
    for graph in (layer(), branches(), with_constants()):
        verify(graph, require_loc=True)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_every_op_verifies(name: str) -> None:
    for sample in SAMPLES[name]:
        verify(sample.graph(name))


def test_a_wrong_type_names_the_pass_the_line_and_the_neighbours() -> None:
    with pytest.raises(VerifyError) as caught:
        verify(chain(40, wrong_at=20), "my-pass")
    message = str(caught.value)
    assert message.startswith(
        "after my-pass, graph 'chain', op 'exp', node %21: its type is f64[2]"
    )
    assert "the type rule derives f32[2]" in message
    assert "user.py:30" in message
    assert len(re.findall(r"^(?:> |  )%\d+: ", message, re.MULTILINE)) == 21
    assert re.search(r"^> %21: f64\[2\] = exp\(%20\)", message, re.MULTILINE)


def test_wrong_attributes() -> None:
    x = f32_input(2, 3)
    missing = Node(ops.sum_, (x,), Attrs({}), TensorType((3,), f32), HERE)
    with pytest.raises(VerifyError, match="the schema says .'axes'."):
        verify(Graph((x,), (missing,)))
    listed = Node(ops.sum_, (x,), Attrs({"axes": [0]}), TensorType((3,), f32), HERE)
    with pytest.raises(VerifyError, match="is a list, which is no IR value"):
        verify(Graph((x,), (listed,)))
    refused = Node(ops.sum_, (x,), Attrs({"axes": (7,)}), TensorType((3,), f32), HERE)
    with pytest.raises(VerifyError, match="the type rule refuses it"):
        verify(Graph((x,), (refused,)))


def test_an_op_that_only_looks_registered() -> None:
    x = f32_input(2)
    false = Op("exp", infer=lambda t: t, not_differentiable="a test")
    with pytest.raises(VerifyError, match="not the registered op"):
        verify(Graph((x,), (false(x),)))


def test_locations_are_wanted_only_where_asked() -> None:
    x = f32_input(2)
    graph = Graph((x,), (ops.exp(x),))
    verify(graph)
    with pytest.raises(VerifyError, match="has no location"):
        verify(graph, require_loc=True)


def test_signatures() -> None:
    x, y = f32_input(2), f32_input(2)
    with pytest.raises(VerifyError, match="input names .'a'. occur twice"):
        verify(Graph((x, y), (x,), input_names=("a", "a")))
    with pytest.raises(VerifyError, match="stands twice among the inputs"):
        verify(Graph((x, x), (x,)))
    with pytest.raises(VerifyError, match="not a placeholder"):
        verify(Graph((ops.exp(x),), (x,)).replace(inputs=(ops.exp(x), x), input_names=(),
                                                  input_roles=()))  # fmt: skip
    with pytest.raises(VerifyError, match="input of another graph is reachable"):
        verify(Graph((x,), (x + y,)))
    square = f32_input(3, 3)
    with pytest.raises(VerifyError, match="has several parts"):
        verify(Graph((square,), (ops.qr(square),)))


def with_attr(node: Node, name: str, value: Graph) -> Node:
    """`node` with another sub-graph, unchecked."""
    return Node(node.op, node.inputs, Attrs({**node.attrs, name: value}), node.type, node.loc)


def test_subgraphs_are_verified() -> None:
    graph = branches()
    outer = next(node for node in graph.nodes if node.op is ops.cond)
    then = outer.attrs["then"]
    inner = next(node for node in then.nodes if node.op is ops.cond)
    x = f32_input(2)
    broken = Node(ops.exp, (x, x), Attrs({}), x.type, Loc("deep.py", 7))
    new_inner = with_attr(inner, "then", Graph((x,), (broken,), name="deep"))
    new_then = then.with_outputs((ops.proj(new_inner, index=0),))
    new_outer = with_attr(outer, "then", new_then)
    with pytest.raises(VerifyError) as caught:
        verify(graph.with_outputs((ops.proj(new_outer, index=0),)))
    path = "branches / %2 cond.then / outer branch / %2 cond.then / deep"
    assert f"graph '{path}', op 'exp', node %1" in str(caught.value)
    assert "deep.py:7" in str(caught.value)


def test_fingerprints_tell_programs_apart() -> None:
    def program(**changes: object) -> str:
        x = f32_input(2, 3)
        scale = ops.literal(changes.get("scale", np.float32(2.0)))
        y = ops.sum_(x, axes=changes.get("axes", (0,)))
        y = y * 1.0 if changes.get("extra") else y
        z = ops.mul(ops.sum_(y, axes=(0,)), scale)
        return Graph((x,), (z,)).fingerprint()

    assert program() == program()
    assert len({program(), program(axes=(1,)), program(extra=True), program(scale=np.float32(3.0)),
                program(scale=np.float32(-2.0))}) == 5  # fmt: skip


def test_fingerprints_ignore_lines_and_names() -> None:
    def program(line: int, name: str) -> str:
        with at(Loc("a.py", line)):
            x = f32_input(2)
            return Graph((x,), (ops.exp(x),), (name,), name=name).fingerprint()

    assert program(1, "x") == program(2, "y")


def test_fingerprints_see_zero_signs_and_kinds_of_numbers() -> None:
    x = f32_input(2)
    seen = {Graph((x,), (x * value,)).fingerprint() for value in (0.0, -0.0, 1.0, float("nan"))}
    assert len(seen) == 4
    y = f32_input(2)
    swapped = {Graph((x, y), out).fingerprint() for out in ((x - y,), (y - x,), (x - x,))}
    assert len(swapped) == 3


def test_fingerprints_see_into_subgraphs() -> None:
    def program(factor: float) -> str:
        graph = branches()
        cond = next(node for node in graph.nodes if node.op is ops.cond)
        flag, x = (ops_input for ops_input in cond.attrs["orelse"].inputs)
        other = cond.attrs["orelse"].with_outputs((x * factor,))
        new = ops.cond(*cond.inputs, then=cond.attrs["then"], orelse=other)
        return graph.with_outputs((ops.proj(new, index=0),)).fingerprint()

    assert program(2.0) == program(2.0) != program(3.0)


@pytest.mark.parametrize("name", sorted(SAMPLES.keys() - {"proj"}))
def test_an_operand_of_several_results_is_refused(name: str) -> None:
    pair = ops.topk(f32_input(3), k=1, axis=0, largest=True)
    for sample in SAMPLES[name]:
        node = next(n for n in sample.graph(name).nodes if n.op.name == name)
        for place in range(len(node.inputs)):
            inputs = (*node.inputs[:place], pair, *node.inputs[place + 1 :])
            with pytest.raises(IRTypeError):
                emit(node.op, *inputs, **node.attrs)


def test_fingerprints_see_which_state_is_updated() -> None:
    a, b = f32_input(2), f32_input(2)
    outputs = (a + a, b * b)

    def graph(*states: str) -> Graph:
        return Graph((a, b), outputs, ("a", "b"), output_roles=tuple(f"state:{s}" for s in states))

    assert len({graph(*states).fingerprint() for states in ("ab", "ba", "ca")}) == 3
    assert graph("c", "b").updates == {1: 1}
