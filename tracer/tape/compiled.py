"""The second sighting of a tape's structure: tape -> IR -> gradient graph -> one NumPy executable.

The key numbers the tape canonically: kind, shape, dtype and parent numbers of every entry, the
roots and the targets. Python scalars are inputs, never part of the key. Bounded: see the two sizes
below.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from tracegrad.ir import loc as _loc
from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, Node, placeholder, postorder, substitute
from tracegrad.ir.types import TensorType, dtype_of
from tracegrad.tracer.custom import CustomProgram
from tracegrad.tracer.eager.program import LRU, WEAK_DTYPE, compile_for_numpy
from tracegrad.tracer.locate import here
from tracegrad.tracer.tape.entries import Entry, Tape, program_of, weak_category
from tracegrad.tracer.tape.kept import keepers
from tracegrad.tracer.tape.walk import to_parents, vjp_of, walk

COMPILED_SIZE = 256  # structures kept compiled
SEEN_SIZE = 4096  # structures remembered after one sighting (their hashes)

# Programs whose gradients cannot be part of a NumPy program: Python code, or another backend's.
OPAQUE_KINDS: set[type] = {CustomProgram}

_compiled = LRU(COMPILED_SIZE)
_seen = LRU(SEEN_SIZE)
_lock = threading.Lock()


def structure_key(tape: Tape, targets: list[Entry]) -> tuple:
    number = tape.number
    key: list[Any] = []
    append = key.append
    for entry in tape.order:
        append(entry.kind)
        append(entry.shape)
        append(entry.dtype)
        append(entry.value.__class__ is list)
        for parent in entry.parents:
            append(number[parent] if isinstance(parent, Entry) else parent.__class__)
    append(tuple([number[r] for r in tape.roots]))
    append(tuple([number[t] for t in targets]))
    return tuple(key)


def compiled_for(tape: Tape, targets: list[Entry]) -> Any:
    """The compiled gradient of this structure, or None at its first sighting."""
    if any(entry.kind.__class__ in OPAQUE_KINDS for entry in tape.order):
        return None
    key = structure_key(tape, targets)
    compiled = _compiled[key]
    if compiled is not None:
        return compiled
    mark = hash(key)
    with _lock:
        if _seen[mark] is None:
            _seen.add(mark, True)
            return None
    compiled = CompiledBackward(tape, targets)
    with _lock:
        return _compiled.add(key, compiled)


class CompiledBackward:
    """Call with the tape's entries in canonical order and the roots' cotangents."""

    def __init__(self, tape: Tape, targets: list[Entry]):
        inputs, found, self.reads = backward_graph(tape, targets)
        # A target that no gradient reaches has no output.
        self.present = tuple(node is not None for node in found)
        self.keepers = keepers(tape)
        self.run = compile_for_numpy(
            Graph(inputs, tuple(node for node in found if node is not None), name="backward")
        )

    def __call__(self, order: list[Entry], cotangents: list[Any]) -> list[Any]:
        arrays = list(cotangents)
        for kind, k, j, dtype in self.reads:
            entry = order[k]
            if kind == VALUE:
                arrays.append(entry.value)
            elif kind == PART:
                arrays.append(entry.value[j])
            elif kind == NUMBER:
                arrays.append(np.asarray(entry.parents[j], dtype))
            else:
                arrays.append(entry.saved[j])
        results = iter(self.run(arrays))
        return [next(results) if has else None for has in self.present]


class Reads:
    """Graph inputs for what a gradient reads of the tape, and where a call finds each.

    A place is (VALUE, entry, _, _): its value; (PART, entry, k, _): part k of a several-result value;
    (NUMBER, entry, k, dtype): the Python number that is its operand k; (KEPT, entry, k, _): a forward
    intermediate it kept.
    """

    def __init__(self, number: dict[Entry, int]):
        self._number = number
        self.nodes: dict[tuple, Node] = {}

    def _input(self, place: tuple, type: TensorType) -> Node:
        return self.nodes.get(place) or self.nodes.setdefault(place, placeholder(type))

    def value(self, entry: Entry) -> Node:
        type = TensorType(entry.shape, dtype_of(entry.dtype))
        return self._input((VALUE, self._number[entry], 0, None), type)

    def operand(self, entry: Entry, k: int) -> Node:
        parent = entry.parents[k]
        if isinstance(parent, Entry):
            return self.value(parent)
        dtype = WEAK_DTYPE[weak_category(parent)]
        return self._input((NUMBER, self._number[entry], k, dtype.np), TensorType((), dtype))

    def output(self, entry: Entry, k: int, type: TensorType) -> Node:
        if entry.value.__class__ is not list:
            return self.value(entry)
        return self._input((PART, self._number[entry], k, None), type)

    def kept(self, entry: Entry, k: int, type: TensorType) -> Node:
        return self._input((KEPT, self._number[entry], k, None), type)


VALUE, PART, NUMBER, KEPT = range(4)


def backward_graph(
    tape: Tape, targets: list[Entry]
) -> tuple[tuple[Node, ...], list[Node | None], list[tuple]]:
    """Inputs, the targets' gradients, and where each input after the cotangents is read from."""
    reads = Reads(tape.number)

    def gradients(
        entry: Entry, received: dict[int, Node], live: set[Entry]
    ) -> list[tuple[Entry, Node]]:
        program = program_of(entry)
        vjp, arguments = vjp_of(entry, program, received, live, lambda type: ops.splat(0, type))
        arguments += [reads.operand(entry, k) for k in vjp.reads_in]
        arguments += [reads.output(entry, k, program.types[k]) for k in vjp.reads_out]
        arguments += [reads.kept(entry, k, node.type) for k, node in enumerate(vjp.saved)]
        inputs = dict(zip(vjp.graph.inputs, arguments, strict=True))
        outputs = substitute(vjp.graph.outputs, inputs)
        return to_parents(entry, vjp, outputs, live)

    with _loc.at(here().through("backward")):
        seeds = [placeholder(TensorType(r.shape, dtype_of(r.dtype))) for r in tape.roots]
        arrived = walk(tape, seeds, targets, gradients)
    found = [arrived.get(target) for target in targets]
    used = set(postorder([node for node in found if node is not None]))
    read = [(place, node) for place, node in reads.nodes.items() if node in used]
    return (*seeds, *(node for _, node in read)), found, [place for place, _ in read]
