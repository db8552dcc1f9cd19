"""Pictures: every node drawn, phases coloured, large graphs folded, odd names escaped."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

from tests.ir.graphs import branches, f32_input, layer
from tracegrad.ir import Graph, Loc, Node, at, ops
from tracegrad.ir.viz import COLOURS, FOLD_ABOVE, phases, picture, to_dot, to_mermaid, to_svg

SVG = "{http://www.w3.org/2000/svg}"


def step() -> Graph:
    """A forward node, a backward one and an update."""
    here = Loc("net.py", 1)
    w = f32_input(2)
    with at(here):
        y = ops.exp(w)
    with at(here.through("vjp(exp)")):
        dw = y * y
    with at(Loc("sgd.py", 2)):
        new = w - dw
    return Graph((w,), (y, new), ("w",), ("y", "w.new"), ("state",), ("result", "state:w"))


def deep(blocks: int, per_block: int) -> Graph:
    x = node = f32_input(2)
    for block in range(blocks):
        for index in range(per_block):
            with at(Loc("net.py", index, "forward", f"blocks.{block}.mlp")):
                node = ops.exp(node)
    return Graph((x,), (node,), name="deep")


def test_phases() -> None:
    graph = step()
    found = phases(graph)
    assert [found[node] for node in graph.nodes] == ["input", "forward", "backward", "update"]


def boxes_of(svg: str) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(svg)
    return [group for group in root.iter(f"{SVG}g") if group.get("data-nodes")]


def test_svg_draws_every_node_in_its_colour_and_below_its_inputs() -> None:
    graph = step()
    groups = boxes_of(to_svg(graph))
    assert [group.get("data-nodes") for group in groups] == ["0", "1", "2", "3"]
    rows = []
    for group in groups:
        rectangle = group.find(f"{SVG}rect")
        assert rectangle is not None
        assert rectangle.get("fill") == COLOURS[str(group.get("class"))][0]
        rows.append(int(str(rectangle.get("y"))))
    assert rows == sorted(set(rows))
    assert len(re.findall("<path ", to_svg(graph))) == 4


def test_svg_boxes_do_not_overlap() -> None:
    x = f32_input(2)
    outs: list[Node] = [op(x) for op in (ops.exp, ops.sin, ops.cos, ops.tanh)]
    outs.append(outs[0] + outs[1])
    svg = to_svg(Graph((x,), tuple(outs)))
    corners = [
        (int(str(r.get("x"))), int(str(r.get("y"))))
        for group in boxes_of(svg)
        if (r := group.find(f"{SVG}rect")) is not None
    ]
    for index, (x0, y0) in enumerate(corners):
        for x1, y1 in corners[:index]:
            assert abs(x0 - x1) >= 150 or abs(y0 - y1) >= 38
    root = ElementTree.fromstring(svg)
    width, height = int(str(root.get("width"))), int(str(root.get("height")))
    assert all(0 <= x and x + 150 <= width and 0 <= y and y + 38 <= height for x, y in corners)


def test_large_graphs_fold_by_scope() -> None:
    graph = deep(20, 40)
    drawn = picture(graph)
    assert len(graph.nodes) > FOLD_ABOVE >= len(drawn.boxes)
    titles = [box.title for box in drawn.boxes]
    assert "forward blocks.3.mlp" in titles
    assert sorted(n for box in drawn.boxes for n in box.members) == list(range(801))
    assert len(boxes_of(to_svg(graph))) == 21
    shallow = picture(graph, fold_above=10)
    assert {box.title for box in shallow.boxes} == {"%0 in0", "forward blocks"}


def test_small_graphs_do_not_fold() -> None:
    assert len(picture(deep(2, 40)).boxes) == 81


def test_dot_and_mermaid_name_every_node_and_edge() -> None:
    graph = layer()
    dot, mermaid = to_dot(graph), to_mermaid(graph)
    for index in range(len(graph.nodes)):
        assert f"  n{index} [label=" in dot
        assert f'  n{index}["%{index} ' in mermaid
    assert dot.count(" -> n") == mermaid.count(" --> n") == 5


def test_odd_names_are_escaped() -> None:
    x = f32_input(2)
    with at(Loc('a"<b>&.py', 1, "<lambda>")):
        graph = Graph((x,), (ops.exp(x),), ('<x> & "y"',), name='g"<&>')
    root = ElementTree.fromstring(to_svg(graph))
    title = root.find(f"{SVG}title")
    assert title is not None and title.text == 'g"<&>'
    assert '\\"y\\"' in to_dot(graph)
    assert "#60;x#62;" in to_mermaid(graph)


def test_graphs_without_nodes_and_with_subgraphs_are_drawn() -> None:
    assert boxes_of(to_svg(Graph((), ()))) == []
    assert len(boxes_of(to_svg(branches()))) == len(branches().nodes)


def test_drawings_are_deterministic() -> None:
    assert to_svg(layer()) == to_svg(layer())
