"""Small cached programs: one user-level op at one signature, and its vector-Jacobian product.

A signature is the op, its static attributes, and what each operand is: a tensor type, a kind of
Python number, or nothing. Python numbers are inputs of the program, so `x * lr` is one program
whatever `lr` is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tracegrad.backends import numpy as numpy_backend
from tracegrad.backends.checks import checks
from tracegrad.ir import loc as _loc
from tracegrad.ir import ops
from tracegrad.ir.exact import exact
from tracegrad.ir.graph import INPUT, Graph, Node, inline, placeholder, postorder, substitute
from tracegrad.ir.ops import traits
from tracegrad.ir.types import TensorType, bool_, c128, f64, i64
from tracegrad.tracer.dispatch import Weak
from tracegrad.tracer.locate import here
from tracegrad.tracer.state import get_default_dtype

if TYPE_CHECKING:
    from tracegrad.passes.autodiff_stages import Cuts

Array = np.ndarray
Runner = Callable[[list[Array]], list[Array]]

WEAK_DTYPE = {"float": f64, "int": i64, "bool": bool_, "complex": c128}
CACHE_SIZE = 4096  # programs; a program is a few kB
SHORT = frozenset(("topk",))  # several-result ops that are a few light ones
LONG = 24  # nodes from which generated code beats a loop over kernels


class LRU(dict):
    """A dict of what was used last: at least `size` entries, at most twice as many. `cache[key]` is
    None for an unknown key.

    Two generations: when the young one has `size` entries it becomes the old one, and what is used
    from there returns to the young. So a hit is one lookup in a dict (0.11 us); moving an entry to
    the end of an OrderedDict at every hit took 0.27.
    """

    def __init__(self, size: int):
        super().__init__()
        self.size = size
        self.old: dict[Any, Any] = {}

    def __missing__(self, key: Any) -> Any:
        value = self.old.pop(key, None)
        return None if value is None else self.add(key, value)

    def get(self, key: Any, default: Any = None) -> Any:
        value = self[key]
        return default if value is None else value

    def add(self, key: Any, value: Any) -> Any:
        if len(self) >= self.size:
            self.old = self.copy()
            super().clear()
        self[key] = value
        return value

    def clear(self) -> None:
        super().clear()
        self.old.clear()


@dataclass
class VJP:
    """Gradient program of a Program for one choice of wanted operands.

    graph inputs: cotangents of the outputs, then operand values `reads_in`, output values
    `reads_out`, then the forward intermediates `saved` (extra outputs of the recording forward).
    Outputs: one per wanted operand that has a gradient; `gradients` maps operand number to output
    position. `run` computes them; `op` does so as an op that can be recorded. `cuts` says where
    the graph can be cut into pieces (passes/autodiff_stages.py). `needs_in` and `needs_out` are
    what is read where the intermediates are computed anew, as a gradient of the gradient does.
    """

    graph: Graph
    reads_in: tuple[int, ...]
    reads_out: tuple[int, ...]
    saved: tuple[Node, ...]
    gradients: dict[int, int]
    cuts: Cuts
    needs_in: tuple[int, ...]
    needs_out: tuple[int, ...]

    @cached_property
    def run(self) -> Runner:
        return bind(self.graph)

    @cached_property
    def op(self) -> GraphOp:
        return GraphOp(self.graph)


@dataclass
class RecordingPlan:
    """For one choice of tracked operands: the gradient program, which outputs are differentiable,
    what it reads; `run` gives the outputs and then the intermediates that are kept.
    """

    run: Runner
    vjp: VJP
    differentiable: tuple[bool, ...]
    reads_in: tuple[int, ...]
    reads_out: tuple[int, ...]


class Program:
    """One user-level op at one signature, as a graph.

    specs     of the operands; `operands` are their nodes: Weak for a number, None for nothing
    run       operand values (arrays, Python numbers, Nones) -> output arrays
    single    whether a call gives one tensor, not a tuple
    """

    def __init__(self, op: Any, graph: Graph, specs: tuple, operands: tuple[Any, ...]):
        self.op, self.graph, self.specs, self.operands = op, graph, specs, operands
        self.types = tuple(node.type for node in graph.outputs)
        self.single = len(self.types) == 1 and getattr(op, "results", ()) is None
        self.differentiable = any(type_.dtype.is_inexact for type_ in self.types)
        self._vjps: dict[tuple, VJP] = {}
        self._plans: dict[tuple[bool, ...], RecordingPlan] = {}

    @classmethod
    def of_op(cls, op: Any, attrs: tuple, specs: tuple) -> Program:
        with _loc.at(here()):
            operands, inputs = operand_nodes(specs)
            outputs = op.emit_on(operands, attrs)
        return cls(op, Graph(inputs, outputs, name=op.name), specs, operands)

    @cached_property
    def run(self) -> Runner:
        return bind(self.graph, self.specs)

    def plan(self, wanted: tuple[bool, ...]) -> RecordingPlan:
        """What a recorded call keeps when the operands in `wanted` are tracked."""
        found = self._plans.get(wanted)
        if found is None:
            flags = tuple(t.dtype.is_inexact for t in self.types)
            vjp = self.vjp(wanted, flags)
            if vjp.saved:
                outputs = (*self.graph.outputs, *vjp.saved)
                run = bind(Graph(self.graph.inputs, outputs, name=self.op.name), self.specs)
            else:
                run = self.run
            found = self._plans[wanted] = RecordingPlan(
                run, vjp, flags, vjp.needs_in, vjp.needs_out
            )
        return found

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

    def vjp_of_received(
        self, wanted: tuple[bool, ...], flags: tuple[bool, ...], received: tuple[bool, ...]
    ) -> VJP:
        """`vjp(wanted, flags)`, where only the outputs in `received` got a cotangent, the others zeros:
        operands that these alone depend on have no gradient, rather than zeros.
        """
        whole = self.vjp(wanted, flags)
        if received == flags:
            return whole
        key = (wanted, flags, received)
        found = self._vjps.get(key)
        if found is None:
            reached = self.vjp(wanted, received, save=False).gradients
            found = self._vjps[key] = copy(whole)
            found.run = whole.run  # compiled once
            found.gradients = {k: at for k, at in whole.gradients.items() if k in reached}
        return found

    def _derive(
        self, wanted: tuple[bool, ...], with_cotangent: tuple[bool, ...], save: bool
    ) -> VJP:
        outputs = self.graph.outputs
        operands = [n.node if isinstance(n, Weak) else n for n in self.operands]
        wrt = [n for n, want in zip(operands, wanted) if want]
        with _loc.at(here()):
            kept = [n for n, has in zip(outputs, with_cotangent) if has]
            cotangents = [placeholder(n.type) for n in kept]
            gradients, cuts = self._reverse(kept, cotangents, wrt)
            stand_in = {n: placeholder(n.type) for n in outputs if n.op is not INPUT}
        found = [g for g in gradients if g is not None]
        if not save:  # what is read is computed anew: no more than that
            cuts = cuts.within(set(postorder(found)))
        emitted = [*found, *cuts.nodes]
        nodes = substitute(emitted, stand_in)
        saved: tuple[Node, ...] = ()
        if save and cuts.crossing:
            # Pieces that are to be alike must not compute anew what turns of a loop before have, not
            # even from an output.
            saved = frontier(emitted, self.graph, cuts.anew)
        elif save:
            saved = worth_saving(nodes[: len(found)], self.graph)

        def read_by(results: Iterable[Node]) -> tuple[tuple[int, ...], tuple[int, ...]]:
            """The operands and the outputs that are read."""
            used = set(postorder(results))
            return (
                tuple(k for k, n in enumerate(operands) if n is not None and n in used),
                tuple(k for k, n in enumerate(outputs) if stand_in.get(n) in used),
            )

        reads_in, reads_out = needs_in, needs_out = read_by(nodes)
        if saved:
            stand_in.update({node: placeholder(node.type, node.loc) for node in saved})
            nodes = substitute(emitted, stand_in)
            reads_in, reads_out = read_by(nodes)
        results = nodes[: len(found)]
        inputs = (
            *cotangents,
            *(operands[k] for k in reads_in),
            *(stand_in[outputs[k]] for k in reads_out),
            *(stand_in[n] for n in saved),
        )
        graph = Graph(inputs, tuple(results), name=f"vjp({self.op.name})")
        positions: dict[int, int] = {}
        wanted_operands = [k for k, want in enumerate(wanted) if want]
        for k, gradient in zip(wanted_operands, gradients):
            if gradient is not None:
                positions[k] = len(positions)
        return VJP(
            graph, reads_in, reads_out, saved, positions, cuts.replaced(dict(zip(emitted, nodes))),
            tuple(sorted({*reads_in, *needs_in})), tuple(sorted({*reads_out, *needs_out})),
        )  # fmt: skip

    def _reverse(
        self, outputs: list[Node], cotangents: list[Node], wrt: list[Node]
    ) -> tuple[list[Node | None], Cuts]:
        """Gradients, and where their graph can be cut."""
        from tracegrad.passes.autodiff import reverse
        from tracegrad.passes.autodiff_stages import Cuts

        return reverse(outputs, cotangents, wrt), Cuts()


def frontier(
    results: Sequence[Node], forward: Graph, anew: Collection[Node] = ()
) -> tuple[Node, ...]:
    """The forward intermediates that a gradient reads, constants aside, and `anew`, which it computes;
    of a several-result op, the parts that it reads.
    """
    known = set(forward.nodes).difference(anew)
    inner = known.difference(forward.inputs, forward.outputs)

    def is_part(node: Node) -> bool:
        return node.op is ops.proj and node.inputs[0] in inner and node not in known

    reached = postorder(results, stop=lambda n: n in known or is_part(n))
    return tuple(
        n for n in reached
        if is_part(n) or (n in inner and n.inputs and isinstance(n.type, TensorType))
    )  # fmt: skip


def worth_saving(results: Sequence[Node], forward: Graph) -> tuple[Node, ...]:
    """Forward intermediates read by the gradient whose recomputation is dear (not cheap elementwise
    work).
    """
    forward_nodes = set(forward.nodes) - set(forward.inputs) - set(forward.outputs)
    saved = []
    for node in frontier(results, forward):
        dear = any(
            m.op.has(traits.EXPENSIVE) or m.op.has(traits.COMPOSITE) or m.op.has(traits.CONTRACTION)
            or m.op.has(traits.RANDOM)
            for m in postorder([node]) if m in forward_nodes
        )  # fmt: skip
        if dear:
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


_programs = LRU(CACHE_SIZE)


def program_for(op: Any, attrs: tuple, specs: tuple) -> Program:
    """The cached program of a signature.

    Raises what the op's type rules raise (shape or dtype mismatch).
    """
    key = (op, exact(attrs), specs, get_default_dtype())
    program = _programs[key]
    if program is None:
        program = _programs.add(key, Program.of_op(op, attrs, specs))
    return program


def bind(graph: Graph, specs: tuple | None = None) -> Runner:
    """A graph on NumPy, for operand values of these specs (arrays if None); results never alias
    them.

    Heavy or long graphs go through the code generator.
    """
    from tracegrad.backends.numpy.straight import straight
    from tracegrad.passes.cleanup import DropMarkers
    from tracegrad.passes.decompose import Decompose

    if specs is not None and all(spec.__class__ is TensorType for spec in specs):
        specs = None
    if any(map(heavy, graph.nodes)) or len(graph.nodes) > LONG:
        executable = compile_for_numpy(graph)
        return executable if specs is None else partial(run_on_values, executable, specs)
    graph = Decompose(frozenset(numpy_backend.KERNELS) - SHORT).run(DropMarkers().run(graph))
    kinds = None if specs is None else tuple(map(argument_kind, specs))
    return straight(graph, kinds)


def argument_kind(spec: Any) -> str:
    return "" if spec is None else "number" if spec.__class__ is str else "array"


def run_on_values(executable: Any, specs: tuple, values: list[Any]) -> list[Array]:
    """Call with arrays made of operand values: Nones left out, numbers 0-d."""
    return executable([
        np.asarray(value, WEAK_DTYPE[spec].np) if spec.__class__ is str else value
        for value, spec in zip(values, specs)
        if spec is not None
    ])  # fmt: skip


def heavy(node: Node) -> bool:
    """Ops whose generated code is far faster than the plain kernel: windows, convolutions, several-
    result ops.
    """
    several = node.op.has(traits.MULTI) and node.op.name not in SHORT
    return several or "strides" in node.op.attrs


def compile_for_numpy(graph: Graph) -> Any:
    """Optimise and compile a graph for NumPy (eager gradients, heavy eager ops)."""
    from tracegrad.backends.optimise import optimise

    return numpy_backend.compile(optimise(graph, observers=checks(require_loc=True)))


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

    eager_only = stores = ""
    known = None

    def __init__(self, graph: Graph):
        self.graph = graph
        self.name = graph.name

    def emit_on(self, operands: tuple[Any, ...], attrs: tuple[Any, ...]) -> tuple[Node, ...]:
        nodes = [n.node if isinstance(n, Weak) else n for n in operands]
        return inline(self.graph, nodes)

    def pack(self, results: list[Any]) -> Any:
        return results
