"""A short graph as one Python function of NumPy calls: what an eager op runs.

Shapes and dtypes are known while the text is written, so what a kernel asks at every call (is this
a 16-bit float? is the result 0-d? which view is this?) is answered once, and a broadcast before an
elementwise op is left to the ufunc. Equal to the kernels bit for bit, memory layout included:
`tests/backends/test_straight.py` compares them on every sample.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import numpy as np

from tracegrad.backends.numpy import quiet
from tracegrad.backends.numpy.interpret import interpret, run_node
from tracegrad.backends.numpy.kernels import KERNELS
from tracegrad.backends.numpy.straight_index import signed_index
from tracegrad.backends.numpy.straight_ops import EXPRESSIONS
from tracegrad.ir.graph import INPUT, Graph, Node
from tracegrad.ir.ops import traits
from tracegrad.ir.ops.base import no_flops
from tracegrad.ir.types import TupleType, i64

Array = np.ndarray[Any, Any]
Runner = Callable[[Sequence[Any]], list[Array]]
EXACT = 2**53  # Python ints up to here are exact as float64


def straight(graph: Graph, arguments: Sequence[str] | None = None) -> Runner:
    """A function of one list, whose results never alias an argument or each other.

    arguments  for every element of the list: "array" or "number" (a Python number) for the graph's
               next input, "" for one that is not looked at; None: arrays only
    """
    kinds = ["array"] * len(graph.inputs) if arguments is None else arguments
    inputs = iter(graph.inputs)
    given = [next(inputs) if kind else None for kind in kinds]
    numbers = {node for node, kind in zip(given, kinds) if kind == "number" and node is not None}
    w = Writer(graph, numbers)
    for node in graph.nodes[len(graph.inputs) :]:
        w.node(node)
    shared = len(set(graph.outputs)) < len(graph.outputs)
    outputs = ", ".join(
        # A part of a value would keep the whole alive.
        w.fresh(node)
        if shared or node.op.name == "slice" or may_alias_input(node)
        else w.array(node)
        for node in graph.outputs
    )
    names = [w.name[node] if node is not None else "_" for node in given]
    unpack = f"    [{', '.join(names)}] = arguments" if names else "    pass"
    before, after = [], []
    # What only moves values cannot overflow or divide by zero, and warn.
    if not all(node.op is INPUT or node.op.flops is no_flops for node in w.written):
        w.names.update(enter=quiet.enter, leave=quiet.leave)
        before, after = ["    token = enter()"], ["    finally:", "        leave(token)"]
    w.names["locate"] = partial(fail_again, graph, given, numbers)
    text = "\n".join([
        "def run(arguments):", unpack, *before, "    try:", *w.lines, f"        return [{outputs}]",
        "    except Exception:", "        locate(arguments)", "        raise", *after,
    ])  # fmt: skip
    # our own text: names and numbers, nothing of the user's
    exec(compile(text, "<tracegrad op>", "exec"), w.names)
    return w.names["run"]


class Writer:
    """The lines of one function, and what its names mean."""

    def __init__(self, graph: Graph, numbers: Collection[Node]):
        self.name = {node: f"v{k}" for k, node in enumerate(graph.nodes)}
        self.names: dict[str, Any] = {"asarray": np.asarray, "array": np.array}
        self.numbers = numbers
        self.lines: list[str] = []
        self._inputs = frozenset(graph.inputs)
        self._results = frozenset(graph.outputs)
        self._readers = Counter(operand for node in graph.nodes for operand in node.inputs)
        # Results that nothing else reads: a cast may choose their layout.
        self.last = frozenset(graph.outputs).difference(*(node.inputs for node in graph.nodes))
        # Written where a reader needs all of it, or not at all.
        self._on_demand = {n for n in graph.nodes if n.op.name in ("broadcast_to", "constant")}
        for node in graph.nodes:
            if node.op.name == "gather" and node.attrs.axes == (0,) and signed_index(node):
                self._on_demand.update((node.inputs[1], *node.inputs[1].inputs[:2]))
        self._used: dict[Any, str] = {}
        self.written: set[Node] = set(graph.inputs)
        self._slim: dict[Node, tuple[str, tuple[int, ...]]] = {}
        self._temporaries = 0

    def use(self, value: Any, key: Any = None) -> str:
        """A name for an object; one name for one `key`."""
        key = id(value) if key is None else key
        name = self._used.get(key)
        if name is None:
            name = self._used[key] = f"c{len(self._used)}"
            self.names[name] = value
        return name

    def line(self, text: str) -> None:
        self.lines.append("        " + text)

    def let(self, text: str) -> str:
        """A new name for the value of `text`."""
        self._temporaries += 1
        self.line(f"t{self._temporaries} = {text}")
        return f"t{self._temporaries}"

    # -- values of nodes -------------------------------------------------------------------------

    def node(self, node: Node) -> None:
        """Write the line of `node`, unless its readers can do without."""
        if node not in self._on_demand:
            self.write(node)

    def write(self, node: Node) -> None:
        self.written.add(node)
        if node.op.has(traits.SOURCE):
            self.names[self.name[node]] = run_node(node, [])
            return
        expression = EXPRESSIONS.get(node.op.name)
        text = expression(self, node) if expression is not None else None
        if text is None:
            kernel = KERNELS[node.op.name]
            called = self.use(partial(kernel, **node.attrs) if node.attrs else kernel, node)
            text = f"{called}({', '.join(map(self.array, node.inputs))})"
        self.line(f"{self.name[node]} = {text}")

    def whole(self, node: Node) -> str:
        """The value in its full shape: an array, or a NumPy number if it is 0-d."""
        if node in self.numbers:
            return self.number(node, node.type.dtype)
        if node not in self.written:
            self.write(node)
        return self.name[node]

    def array(self, node: Node) -> str:
        """The value as an array."""
        text = self.whole(node)
        if isinstance(node.type, TupleType) or node.type.shape or node in self._inputs:
            return text
        return f"asarray({text})"

    def fresh(self, node: Node) -> str:
        """The value as an array that nobody else has."""
        if node.type.shape:
            return f"{self.whole(node)}.copy()"
        return f"array({self.whole(node)})"

    def number(self, node: Node, dtype: Any) -> str:
        """A Python number that came as input `node`, as a 0-d array of `dtype`."""
        target = self.use(dtype.np)
        if node.type.dtype is i64 and dtype.is_inexact:
            return f"{self.use(int_as)}({self.name[node]}, {target})"
        return f"asarray({self.name[node]}, {target})"

    def broadcasting(self, node: Node) -> list[str] | None:
        """Operands of an elementwise op, not broadcast where NumPy does it; None where it cannot."""
        parts = [self.slim(operand) for operand in node.inputs]
        shapes = [shape for _, shape in parts]
        if np.broadcast_shapes(*shapes) == node.type.shape:
            return [text for text, _ in parts]
        return [self.whole(operand) for operand in node.inputs]

    def may_overwrite(self, first: Node, second: Node, result: Node) -> bool:
        """Whether the result, which has the layout of `first`, may take its memory: a product that
        nobody else reads, with something smaller that is broadcast to it.
        """
        if math.prod(self.slim(second)[1]) >= result.type.size or first.type != result.type:
            return False
        while first.op.name == "reshape" and self._lone(first):
            first = first.inputs[0]
        return first.op.name == "matmul" and self._lone(first)

    def _lone(self, node: Node) -> bool:
        return node not in self._results and self._readers[node] == 1

    def slim(self, node: Node) -> tuple[str, tuple[int, ...]]:
        """A value that broadcasts to the node's, and its shape."""
        found = self._slim.get(node)
        if found is None:
            found = self._slim[node] = self._find_slim(node)
        return found

    def _find_slim(self, node: Node) -> tuple[str, tuple[int, ...]]:
        shape: tuple[int, ...] = node.type.shape
        if node in self.written or not shape:
            return self.whole(node), shape
        if node.op.name == "constant" and node.attrs.value.is_splat and 0 not in shape:
            element = node.attrs.value.array[(0,) * len(shape) + (...,)]
            return self.use(element, (node.type.dtype, element.tobytes())), ()
        if node.op.name == "broadcast_to" and list(node.attrs.dims) == sorted(node.attrs.dims):
            return self.aligned(node)
        return self.whole(node), shape

    def aligned(self, node: Node) -> tuple[str, tuple[int, ...]]:
        """The operand of a `broadcast_to` with its axes where NumPy expects them, and its shape."""
        source, dims = node.inputs[0], node.attrs.dims
        sizes = dict(zip(dims, source.type.shape))
        first = min(dims, default=node.type.ndim)
        shape = tuple(sizes.get(k, 1) for k in range(first, node.type.ndim))
        text = self.whole(source)
        return (text if shape == source.type.shape else self.let(f"{text}.reshape({shape})")), shape


def int_as(number: Any, dtype: np.dtype[Any]) -> Array:
    """A Python int as a float, rounded once (from int64)."""
    if -EXACT <= number <= EXACT:
        return np.asarray(number, dtype)
    return np.asarray(number, np.int64).astype(dtype)


def fail_again(
    graph: Graph, given: list[Node | None], numbers: set[Node], arguments: Sequence[Any]
) -> None:
    """After a call failed: the interpreter fails on the same op and says which, at which line."""
    arrays = [
        np.asarray(value, node.type.dtype.np) if node in numbers else value
        for node, value in zip(given, arguments)
        if node is not None
    ]
    interpret(graph, arrays)


# Whose kernels may return memory of an operand: ops of these traits, and these.
_HANDING_ON = (traits.VIEW, traits.IDENTITY_MARKER, traits.CONTROL)
_HANDS_ON = frozenset(("real", "imag", "bitcast", "dynamic_slice", "dropout", "check", "lstm"))


def may_alias_input(node: Node) -> bool:
    """Whether the kernels may return memory of an input (or a constant) for this node."""
    stack = [node]
    while stack:
        op = (node := stack.pop()).op
        if op is INPUT or op.has(traits.SOURCE):
            return True
        same = op.name == "cast" and node.inputs[0].type == node.type
        if op.name == "dropout" and node.attrs.rate * 2**32 >= 1:
            continue  # only what keeps every element returns it
        if same or op.name in _HANDS_ON or any(map(op.has, _HANDING_ON)):
            stack += node.inputs
    return False
