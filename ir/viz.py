"""Pictures of graphs: DOT, Mermaid and SVG. Phases are coloured; large graphs fold by module scope.

The node ids are those of the text form, so that a box, a line and an error speak of the same node.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from html import escape

from tracegrad.ir.graph import INPUT, Graph, Node
from tracegrad.ir.text import node_lines

FOLD_ABOVE = 300  # boxes: more cannot be read on one page

COLOURS = {  # fills and borders that stay apart for colour-blind readers, and in print by lightness
    "input": ("#f4f4f4", "#777777"),
    "forward": ("#d6e8fa", "#2b6cb0"),
    "backward": ("#fde3c8", "#c05621"),
    "update": ("#d5f0dd", "#2f855a"),
}


@dataclass(frozen=True)
class Box:
    """One node, or all nodes of one phase and scope."""

    id: str
    title: str
    detail: str
    phase: str
    members: tuple[int, ...]  # node numbers of the text form
    tooltip: str


@dataclass(frozen=True)
class Picture:
    """What is drawn, before any drawing."""

    name: str
    boxes: tuple[Box, ...]
    edges: tuple[tuple[str, str], ...]


def phases(graph: Graph) -> dict[Node, str]:
    """What a node is for: "input", "forward", "backward" (made by a VJP), "update" (reads one)."""
    phase: dict[Node, str] = {}
    for node in graph.nodes:
        if node.op is INPUT:
            phase[node] = "input"
        elif any(step.startswith("vjp(") for step in node.loc.via):
            phase[node] = "backward"
        elif any(phase[operand] in ("backward", "update") for operand in node.inputs):
            phase[node] = "update"
        else:
            phase[node] = "forward"
    return phase


def picture(graph: Graph, fold_above: int = FOLD_ABOVE) -> Picture:
    """Boxes and edges. Above `fold_above` nodes a box is a module scope, as deep as fits."""
    phase = phases(graph)
    keys: dict[Node, tuple[str, str]] = {
        node: (phase[node], str(index)) for index, node in enumerate(graph.nodes)
    }
    if len(graph.nodes) > fold_above:
        depth = max((node.loc.scope.count(".") + 1 for node in graph.nodes), default=1)
        while True:
            keys = {node: _fold_key(node, phase[node], depth) for node in graph.nodes}
            if depth == 0 or len(set(keys.values())) <= fold_above:
                break
            depth -= 1
    members: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, node in enumerate(graph.nodes):
        members[keys[node]].append(index)
    lines = node_lines(graph, 0, len(graph.nodes))
    names = dict(zip(graph.inputs, graph.input_names))
    ids = {key: f"n{numbers[0]}" for key, numbers in members.items()}
    boxes = tuple(
        _box(graph, ids[key], tuple(numbers), key, lines, names) for key, numbers in members.items()
    )
    edges: dict[tuple[str, str], None] = {}
    for node in graph.nodes:
        for operand in node.inputs:
            if keys[operand] != keys[node]:
                edges[ids[keys[operand]], ids[keys[node]]] = None
    return Picture(graph.name, boxes, tuple(edges))


def _fold_key(node: Node, phase: str, depth: int) -> tuple[str, str]:
    return phase, ".".join(node.loc.scope.split(".")[:depth])


def _box(
    graph: Graph,
    id_: str,
    numbers: tuple[int, ...],
    key: tuple[str, str],
    lines: list[str],
    names: dict[Node, str],
) -> Box:
    node = graph.nodes[numbers[0]]
    phase, scope = key
    if len(numbers) == 1:
        title = f"%{numbers[0]} {names.get(node, node.op.name)}"
        return Box(id_, title, str(node.type), phase, numbers, lines[numbers[0]])
    shown = "\n".join(lines[number] for number in numbers[:12])
    more = f"\n... and {len(numbers) - 12} more" if len(numbers) > 12 else ""
    detail = f"{len(numbers)} nodes"
    title = f"{phase} {scope}" if scope else phase
    return Box(id_, title, detail, phase, numbers, shown + more)


def to_dot(graph: Graph, fold_above: int = FOLD_ABOVE) -> str:
    """Graphviz text; `dot -Tsvg` draws it."""
    drawn = picture(graph, fold_above)
    lines = [f"digraph {_quoted(drawn.name)} {{", "  node [shape=box, style=filled];"]
    for box in drawn.boxes:
        fill, border = COLOURS[box.phase]
        label = _quoted(f"{box.title}\n{box.detail}")
        lines.append(
            f"  {box.id} [label={label}, fillcolor={_quoted(fill)}, color={_quoted(border)}, "
            f"tooltip={_quoted(box.tooltip)}];"
        )
    lines += [f"  {source} -> {target};" for source, target in drawn.edges]
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def to_mermaid(graph: Graph, fold_above: int = FOLD_ABOVE) -> str:
    """Mermaid text, which Markdown viewers draw."""
    drawn = picture(graph, fold_above)
    lines = ["flowchart TD"]
    for box in drawn.boxes:
        label = f"{_entities(box.title)}<br/>{_entities(box.detail)}"
        lines.append(f'  {box.id}["{label}"]:::{box.phase}')
    lines += [f"  {source} --> {target}" for source, target in drawn.edges]
    lines += [
        f"  classDef {phase} fill:{fill},stroke:{border},color:#000"
        for phase, (fill, border) in COLOURS.items()
    ]
    return "\n".join([*lines, ""])


def _entities(text: str) -> str:
    """Mermaid reads `#name;` entities in labels; quotes, brackets and semicolons would end them."""
    return "".join(c if c.isalnum() or c in " %.,_-" else f"#{ord(c)};" for c in text)


_BOX_WIDTH, _BOX_HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 150, 38, 24, 46, 20


def to_svg(graph: Graph, fold_above: int = FOLD_ABOVE) -> str:
    """A picture that stands alone, inputs at the top; hovering a box shows its lines."""
    drawn = picture(graph, fold_above)
    place, width, height = _layout(graph, drawn)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="monospace" font-size="11">',
        f"<title>{escape(drawn.name)}</title>",
        '<g fill="none" stroke="#888" stroke-width="1">',
    ]
    for source, target in drawn.edges:
        x0, y0 = place[source][0], place[source][1] + _BOX_HEIGHT
        x1, y1 = place[target]
        bend = max(abs(y1 - y0) // 2, _GAP_Y // 2)
        parts.append(f'<path d="M{x0},{y0} C{x0},{y0 + bend} {x1},{y1 - bend} {x1},{y1}"/>')
    parts.append("</g>")
    for box in drawn.boxes:
        x, y = place[box.id]
        fill, border = COLOURS[box.phase]
        numbers = " ".join(map(str, box.members))
        parts.append(
            f'<g class="{box.phase}" data-nodes="{numbers}"><title>{escape(box.tooltip)}</title>'
            f'<rect x="{x - _BOX_WIDTH // 2}" y="{y}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" '
            f'rx="4" fill="{fill}" stroke="{border}"/>'
            f'<text x="{x}" y="{y + 15}" text-anchor="middle">{escape(_short(box.title))}</text>'
            f'<text x="{x}" y="{y + 30}" text-anchor="middle" fill="#444">'
            f"{escape(_short(box.detail))}</text></g>"
        )
    return "\n".join([*parts, "</svg>", ""])


def _short(text: str, limit: int = 21) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "\u2026"


def _layout(graph: Graph, drawn: Picture) -> tuple[dict[str, tuple[int, int]], int, int]:
    """Top middle of every box, and the size of the page; layers are topological generations."""
    # Here, since a drawing needs it and `import tracegrad` should not pay for it.
    import networkx as nx  # type: ignore[import-untyped]

    flow = nx.DiGraph()
    flow.add_nodes_from(range(len(graph.nodes)))
    number = {node: index for index, node in enumerate(graph.nodes)}
    flow.add_edges_from((number[o], number[n]) for n in graph.nodes for o in n.inputs)
    depth: dict[int, int] = {}
    for generation, numbers in enumerate(nx.topological_generations(flow)):
        depth.update(dict.fromkeys(numbers, generation))
    # A folded box may read and feed another one, so its layer comes from its first node.
    first = {box.id: min(depth[member] for member in box.members) for box in drawn.boxes}
    rank = {generation: index for index, generation in enumerate(sorted(set(first.values())))}
    layers: dict[int, list[str]] = defaultdict(list)
    for box in drawn.boxes:
        layers[rank[first[box.id]]].append(box.id)
    readers = defaultdict(list)
    for source, target in drawn.edges:
        readers[target].append(source)
    column: dict[str, float] = {}
    row: dict[str, int] = {}
    for layer in sorted(layers):  # each box as near as can be to what it reads
        known = {each: [column[s] for s in readers[each] if s in column] for each in layers[layer]}
        order = sorted(known, key=lambda each: _mean(known[each]))
        for index, each in enumerate(order):
            column[each], row[each] = index - (len(order) - 1) / 2, layer
    left, right = min(column.values(), default=0.0), max(column.values(), default=0.0)
    middle = _MARGIN + _BOX_WIDTH // 2
    place = {
        each: (
            middle + round((column[each] - left) * (_BOX_WIDTH + _GAP_X)),
            _MARGIN + row[each] * (_BOX_HEIGHT + _GAP_Y),
        )
        for each in column
    }
    width = 2 * middle + round((right - left) * (_BOX_WIDTH + _GAP_X))
    height = 2 * _MARGIN + _BOX_HEIGHT + max(row.values(), default=0) * (_BOX_HEIGHT + _GAP_Y)
    return place, width, height


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
