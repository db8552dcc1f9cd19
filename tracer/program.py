"""Small cached programs: one user-level op at one signature, and its vector-Jacobian product.

A signature is the op, its static attributes, and what each operand is: a tensor type, a kind of
Python number, or nothing. Python numbers are inputs of the program, so `x * lr` is one program
whatever `lr` is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tracegrad.backends import numpy as numpy_backend
from tracegrad.ir import loc as _loc
from tracegrad.ir.graph import INPUT, Graph, Node, inline, placeholder, postorder, substitute
from tracegrad.ir.ops import traits
from tracegrad.ir.types import TensorType, bool_, c128, f64, i64
from tracegrad.passes.autodiff import reverse
from tracegrad.passes.decompose import Decompose
from tracegrad.tracer import quiet
from tracegrad.tracer.dispatch import Weak
from tracegrad.tracer.locate import here

Array = np.ndarray
Runner = Callable[[list[Array]], list[Array]]

WEAK_DTYPE = {"float": f64, "int": i64, "bool": bool_, "complex": c128}
CACHE_SIZE = 4096  # programs; a program is a few kB
LONG = 24  # nodes from which generated code beats a loop over kernels


class LRU(OrderedDict):
    """A dict that forgets what was used longest ago beyond `size` entries."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def add(self, key: Any, value: Any) -> Any:
        self[key] = value
        if len(self) > self.size:
            self.popitem(last=False)
        return value


@dataclass
class VJP:
    """Gradient program of a Program for one choice of wanted operands.

    graph inputs: cotangents of the outputs, then operand values `reads_in`, output values
    `reads_out`, then the forward intermediates `saved` (extra outputs of the recording forward).
    Outputs: one per wanted operand that has a gradient; `gradients` maps operand number to output
    position.
    """

    graph: Graph
    reads_in: tuple[int, ...]
    reads_out: tuple[int, ...]
    saved: tuple[Node, ...]
    gradients: dict[int, int]
    run: Runner


@dataclass
class RecordingPlan:
    """For one choice of tracked operands: the gradient program, which outputs are differentiable,
    what it reads.
    """

    vjp: VJP
    differentiable: tuple[bool, ...]
    reads_in: tuple[int, ...]
    reads_out: tuple[int, ...]


class Program:
    """One user-level op at one signature."""

    def __init__(self, op: Any, attrs: tuple, specs: tuple):
        self.op, self.attrs, self.specs = op, attrs, specs
        with _loc.at(here()):
            operands, self.inputs = operand_nodes(specs)
            outputs = op.emit_on(operands, attrs)
        self.operand_nodes = operands
        self.graph = Graph(self.inputs, outputs, name=op.name)
        self.types = tuple(node.type for node in outputs)
        self.has_numbers = any(spec is None or spec.__class__ is str for spec in specs)
        self.run = make_runner(self.graph)
        self._vjps: dict[tuple, VJP] = {}
        self._recording: dict[tuple[Node, ...], Runner] = {}
        self._plans: dict[tuple[bool, ...], RecordingPlan] = {}
        self.differentiable = any(node.type.dtype.is_inexact for node in outputs)

    def arrays(self, values: Iterable[Any]) -> list[Array]:
        """Input arrays from operand values: arrays, Python numbers, Nones."""
        result = []
        for value, spec in zip(values, self.specs):
            if spec is None:
                continue
            if spec.__class__ is str:
                value = np.asarray(value, WEAK_DTYPE[spec].np)
            result.append(value)
        return result

    def plan(self, wanted: tuple[bool, ...]) -> RecordingPlan:
        """What a recorded call keeps when the operands in `wanted` are tracked."""
        found = self._plans.get(wanted)
        if found is None:
            flags = tuple(t.dtype.is_inexact for t in self.types)
            vjp = self.vjp(wanted, flags)
            # A gradient of the gradient recomputes intermediates, so it reads operands that `saved`
            # spares the first.
            bare = self.vjp(wanted, flags, save=False) if vjp.saved else vjp
            reads = tuple(sorted({*vjp.reads_in, *bare.reads_in}))
            outs = tuple(sorted({*vjp.reads_out, *bare.reads_out}))
            found = self._plans[wanted] = RecordingPlan(vjp, flags, reads, outs)
        return found

    def run_recording(self, vjp: VJP, arrays: list[Array]) -> tuple[list[Array], list[Array]]:
        """Outputs, and the intermediates that `vjp` wants kept."""
        if not vjp.saved:
            return self.run(arrays), []
        runner = self._recording.get(vjp.saved)
        if runner is None:
            graph = Graph(self.inputs, (*self.graph.outputs, *vjp.saved), name=self.op.name)
            runner = self._recording[vjp.saved] = make_runner(graph)
        results = runner(arrays)
        count = len(self.types)
        return results[:count], results[count:]

    def vjp(
        self, wanted: tuple[bool, ...], with_cotangent: tuple[bool, ...], save: bool = True
    ) -> VJP:
        """`wanted` says which operands need a gradient, `with_cotangent` which outputs received
        one.
        """
        key = (wanted, with_cotangent, save)
        found = self._vjps.get(key)
        if found is None:
            found = self._vjps[key] = self._derive(wanted, with_cotangent, save)
        return found

    def _derive(
        self, wanted: tuple[bool, ...], with_cotangent: tuple[bool, ...], save: bool
    ) -> VJP:
        outputs = self.graph.outputs
        operands = [n.node if isinstance(n, Weak) else n for n in self.operand_nodes]
        wrt = [n for n, want in zip(operands, wanted) if want]
        with _loc.at(here()):
            kept = [n for n, has in zip(outputs, with_cotangent) if has]
            cotangents = [placeholder(n.type) for n in kept]
            gradients = reverse(kept, cotangents, wrt)
            stand_in = {n: placeholder(n.type) for n in outputs if n.op is not INPUT}
        found = [g for g in gradients if g is not None]
        results = substitute(found, {**stand_in, **{n: n for n in self.inputs}})
        saved: tuple[Node, ...] = ()
        if save:
            saved = worth_saving(results, self.graph)
            standing = {node: placeholder(node.type, node.loc) for node in saved}
            results = substitute(results, {**standing, **{n: n for n in self.inputs}})
        used = set(postorder(results))
        reads_in = tuple(k for k, n in enumerate(operands) if n is not None and (n in used))
        reads_out = tuple(k for k, n in enumerate(outputs) if stand_in.get(n) in used)
        inputs = (
            *cotangents,
            *(operands[k] for k in reads_in),
            *(stand_in[outputs[k]] for k in reads_out),
            *(standing[n] for n in saved),
        ) if saved else (
            *cotangents, *(operands[k] for k in reads_in), *(stand_in[outputs[k]] for k in reads_out)
        )  # fmt: skip
        graph = Graph(inputs, tuple(results), name=f"vjp({self.op.name})")
        positions: dict[int, int] = {}
        wanted_operands = [k for k, want in enumerate(wanted) if want]
        for k, gradient in zip(wanted_operands, gradients):
            if gradient is not None:
                positions[k] = len(positions)
        return VJP(graph, reads_in, reads_out, saved, positions, make_runner(graph))


def worth_saving(results: tuple[Node, ...], forward: Graph) -> tuple[Node, ...]:
    """Forward intermediates read by the gradient whose recomputation is dear (not cheap elementwise
    work).
    """
    forward_nodes = set(forward.nodes) - set(forward.inputs) - set(forward.outputs)
    frontier = [
        n for n in postorder(results, stop=forward_nodes.__contains__) if n in forward_nodes
    ]
    saved = []
    for node in frontier:
        dear = any(
            m.op.has(traits.EXPENSIVE) or m.op.has(traits.COMPOSITE) or m.op.has(traits.CONTRACTION)
            or m.op.has(traits.RANDOM)
            for m in postorder([node]) if m in forward_nodes
        )  # fmt: skip
        if dear and isinstance(node.type, TensorType):
            saved.append(node)
    return tuple(saved)


def operand_nodes(specs: tuple) -> tuple[tuple, tuple[Node, ...]]:
    """Placeholders for a signature: operands as an emit function takes them, and the graph's
    inputs.
    """
    operands: list[Any] = []
    inputs: list[Node] = []
    for spec in specs:
        if spec is None:
            operands.append(None)
            continue
        weak = spec.__class__ is str
        node = placeholder(TensorType((), WEAK_DTYPE[spec]) if weak else spec)
        inputs.append(node)
        operands.append(Weak(node, spec) if weak else node)
    return tuple(operands), tuple(inputs)


_programs: LRU = LRU(CACHE_SIZE)


def program_for(op: Any, attrs: tuple, specs: tuple) -> Program:
    """The cached program of a signature.

    Raises what the op's type rules raise (shape or dtype mismatch).
    """
    # The types of literals matter: 1, 1.0 and True are equal keys but different attributes.
    key = (op, attrs, tuple(map(type, attrs)), specs)
    program = _programs.get(key)
    if program is None:
        program = _programs.add(key, Program(op, attrs, specs))
    return program


def make_runner(graph: Graph) -> Runner:
    """Bind a graph to NumPy; results never alias inputs.

    Heavy or long graphs go through the code generator.
    """
    if any(map(heavy, graph.nodes)) or len(graph.nodes) > LONG:
        return LazyCompiled(graph)
    return LazySteps(graph)


def heavy(node: Node) -> bool:
    """Ops whose generated code is far faster than the plain kernel: windows, convolutions, several-
    result ops.
    """
    return node.op.has(traits.MULTI) or "strides" in node.op.attrs


class LazyCompiled:
    """A graph that is compiled at its first call, so that unused gradient programs cost nothing."""

    __slots__ = ("graph", "executable")

    def __init__(self, graph: Graph):
        self.graph = graph
        self.executable: Any = None

    def __call__(self, arrays: list[Array]) -> list[Array]:
        if self.executable is None:
            self.executable = compile_for_numpy(self.graph)
        return self.executable(arrays)  # type: ignore[no-any-return]


class LazySteps:
    """A short graph as kernel calls resolved at its first call."""

    __slots__ = ("graph", "run")

    def __init__(self, graph: Graph):
        self.graph = graph
        self.run: Runner | None = None

    def __call__(self, arrays: list[Array]) -> list[Array]:
        if self.run is None:
            self.run = bind_steps(Decompose(frozenset(numpy_backend.KERNELS)).run(self.graph))
        return self.run(arrays)


def compile_for_numpy(graph: Graph) -> Any:
    """Optimise and compile a graph for NumPy (eager gradients, heavy eager ops)."""
    from tracegrad.backends.optimise import optimise

    return numpy_backend.compile(optimise(graph))


def bind_steps(graph: Graph) -> Runner:
    """Straight-line calls of the graph's kernels, resolved once; attributes are bound, constants
    computed.
    """
    name = {node: f"v{k}" for k, node in enumerate(graph.nodes)}
    names: dict[str, Any] = {
        "enter": quiet.enter,
        "leave": quiet.leave,
        "locate": lambda a: interpret_again(graph, a),
    }
    lines = []
    for k, node in enumerate(graph.nodes[len(graph.inputs) :]):
        if node.op.has(traits.SOURCE):
            names[name[node]] = numpy_backend.run_node(node, [])
            continue
        kernel = numpy_backend.KERNELS[node.op.name]
        names[f"k{k}"] = partial(kernel, **node.attrs) if node.attrs else kernel
        lines.append(
            f"        {name[node]} = k{k}({', '.join(name[operand] for operand in node.inputs)})"
        )
    shared = len(set(graph.outputs)) < len(graph.outputs)
    outputs = [name[n] + (".copy()" if shared or may_alias_input(n) else "") for n in graph.outputs]
    unpack = (
        f"    [{', '.join(name[n] for n in graph.inputs)}] = arrays" if graph.inputs else "    pass"
    )
    text = "\n".join([
        "def run(arrays):", unpack, "    token = enter()", "    try:", *lines, f"        return [{', '.join(outputs)}]",
        "    except Exception:", "        locate(arrays)", "        raise", "    finally:", "        leave(token)",
    ])  # fmt: skip
    exec(
        compile(text, "<string>", "exec"), names
    )  # our own text: names and numbers, nothing of the user's
    return names["run"]  # type: ignore[no-any-return]


def interpret_again(graph: Graph, arrays: list[Array]) -> None:
    """After a kernel failed: the interpreter fails on the same op and says which, at which line."""
    numpy_backend.interpret(graph, arrays)


def may_alias_input(node: Node) -> bool:
    """Whether the kernels may return memory of an input (or a constant) for this node."""
    while (
        node.op.has(traits.VIEW)
        or node.op.has(traits.IDENTITY_MARKER)
        or node.op.name in ("cast", "proj")
    ):
        node = node.inputs[0]
    return node.op is INPUT or node.op.has(traits.SOURCE)


def evaluate_nodes(order: Iterable[Node], values: dict[Node, Any]) -> None:
    """Compute every node of `order` that has no value yet (inputs come first)."""
    for node in order:
        if node not in values:
            values[node] = numpy_backend.run_node(
                node, [values[operand] for operand in node.inputs]
            )


class GraphOp:
    """A graph as a user-level op (gradient programs under create_graph, compiled functions on the
    tape).
    """

    eager_only = ""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.name = graph.name

    def emit_on(self, operands: tuple[Any, ...], attrs: tuple[Any, ...]) -> tuple[Node, ...]:
        nodes = [n.node if isinstance(n, Weak) else n for n in operands]
        return inline(self.graph, nodes)

    def pack(self, results: list[Any]) -> Any:
        return results
