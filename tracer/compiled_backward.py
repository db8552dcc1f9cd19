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
from tracegrad.tracer.locate import here
from tracegrad.tracer.program import LRU, WEAK_DTYPE, compile_for_numpy
from tracegrad.tracer.tape import CONSTANT, LEAF, Entry, Part, program_of, weak_category

COMPILED_SIZE = 256  # structures kept compiled
SEEN_SIZE = 4096  # structures remembered after one sighting (their hashes)

# Programs whose gradients cannot be part of a NumPy program: Python code, or another backend's.
OPAQUE_KINDS: set[type] = {CustomProgram}

_compiled = LRU(COMPILED_SIZE)
_seen = LRU(SEEN_SIZE)
_lock = threading.Lock()


def structure_key(
    order: list[Entry], number: dict[Entry, int], roots: list[Entry], targets: list[Entry]
) -> tuple:
    key: list[Any] = []
    append = key.append
    for entry in order:
        append(entry.kind)
        append(entry.shape)
        append(entry.dtype)
        append(entry.value.__class__ is list)
        for parent in entry.parents:
            append(number[parent] if isinstance(parent, Entry) else parent.__class__)
    append(tuple([number[r] for r in roots]))
    append(tuple([number[t] for t in targets]))
    return tuple(key)


def compiled_for(
    order: list[Entry], number: dict[Entry, int], roots: list[Entry], targets: list[Entry]
) -> Any:
    """The compiled gradient of this structure, or None at its first sighting."""
    if any(entry.kind.__class__ in OPAQUE_KINDS for entry in order):
        return None
    key = structure_key(order, number, roots, targets)
    compiled = _compiled[key]
    if compiled is not None:
        return compiled
    mark = hash(key)
    with _lock:
        if _seen[mark] is None:
            _seen.add(mark, True)
            return None
    compiled = CompiledBackward(order, number, roots, targets)
    with _lock:
        return _compiled.add(key, compiled)


class CompiledBackward:
    """Call with the tape's entries in canonical order and the roots' cotangents."""

    def __init__(
        self, order: list[Entry], number: dict[Entry, int], roots: list[Entry], targets: list[Entry]
    ):
        graph, self.reads = gradient_graph(order, number, roots, targets)
        # A target that no gradient reaches has no output; two equal outputs must be two arrays.
        self.present = tuple(node is not None for node in graph[1])
        built = Graph(graph[0], tuple(n for n in graph[1] if n is not None), name="backward")
        self.run = compile_for_numpy(built)

    def __call__(self, order: list[Entry], cotangents: list[Any]) -> list[Any]:
        arrays = list(cotangents)
        for kind, k, j, dtype in self.reads:
            entry = order[k]
            if kind == 0:
                arrays.append(entry.value)
            elif kind == 1:
                arrays.append(entry.value[j])
            elif kind == 2:
                arrays.append(np.asarray(entry.parents[j], dtype))
            else:
                arrays.append(entry.saved[j])
        results = iter(self.run(arrays))
        return [next(results) if has else None for has in self.present]


def gradient_graph(
    order: list[Entry], number: dict[Entry, int], roots: list[Entry], targets: list[Entry]
) -> tuple[tuple[tuple[Node, ...], list[Node | None]], list[tuple]]:
    """Inputs and gradient nodes, and where each input after the cotangents is read from.

    A read is (0, entry, _, _) its value, (1, entry, k, _) part k of a several-result value, (2,
    entry, k, dtype) the Python number that is its operand k, (3, entry, k, _) a forward
    intermediate it kept.
    """
    live = set(targets)
    for entry in order:
        if any(parent in live for parent in entry.parents):
            live.add(entry)
    with _loc.at(here().through("backward")):
        value: dict[tuple[int, int], Node] = {}
        for k, entry in enumerate(order):
            if entry.value.__class__ is list:
                continue
            value[k, 0] = placeholder(TensorType(entry.shape, dtype_of(entry.dtype)))
        numbers: dict[tuple[int, int], Node] = {}
        intermediates: dict[tuple[int, int], Node] = {}
        seeds = [placeholder(value[number[r], 0].type) for r in roots]
        grads: dict[int, Node] = {}
        parts: dict[int, dict[int, Node]] = {}

        def add(k: int, node: Node) -> None:
            grads[k] = node if k not in grads else ops.add(grads[k], node)

        for root, seed in zip(roots, seeds):
            add(number[root], seed)
        results: dict[int, Node] = {}
        wanted_targets = {number[t] for t in targets}
        for k in range(len(order) - 1, -1, -1):
            entry = order[k]
            ct = grads.pop(k, None)
            if ct is not None and k in wanted_targets:
                results[k] = ct
            if entry not in live or entry.kind is LEAF or entry.kind is CONSTANT:
                continue
            if isinstance(entry, Part):
                if ct is not None:
                    parts.setdefault(number[entry.parents[0]], {})[entry.index] = ct
                continue
            received = parts.pop(k, {} if ct is None else {0: ct})
            if not received:
                continue
            program = program_of(entry)
            kept = getattr(entry, "saved", None)
            if kept:  # the gradient program it was recorded with, see backward.vjp_of
                flags = tuple(t.dtype.is_inexact for t in program.types)
                wanted = tuple(
                    isinstance(p, Entry) and p.kind is not CONSTANT for p in entry.parents
                )
                vjp = program.vjp(wanted, flags)
                arguments = [
                    received[j] if j in received else ops.splat(0, t)
                    for j, t in enumerate(program.types) if flags[j]
                ]  # fmt: skip
            else:
                wanted = tuple(p in live for p in entry.parents)
                vjp = program.vjp(
                    wanted, tuple(j in received for j in range(len(program.types))), save=False
                )
                arguments = [received[j] for j in sorted(received)]
            for j in vjp.reads_in:
                parent = entry.parents[j]
                if isinstance(parent, Entry):
                    arguments.append(value[number[parent], 0])
                else:
                    dtype = WEAK_DTYPE[weak_category(parent)]
                    arguments.append(numbers.setdefault((k, j), placeholder(TensorType((), dtype))))
            for j in vjp.reads_out:
                if (k, 0) not in value or entry.value.__class__ is list:
                    node = value.get((k, j + 1)) or placeholder(program.types[j])
                    value[k, j + 1] = node
                    arguments.append(node)
                else:
                    arguments.append(value[k, 0])
            if vjp.saved:
                for j, node in enumerate(vjp.saved):
                    arguments.append(intermediates.setdefault((k, j), placeholder(node.type)))
            outputs = substitute(
                vjp.graph.outputs, dict(zip(vjp.graph.inputs, arguments, strict=True))
            )
            for j, position in vjp.gradients.items():
                if entry.parents[j] in live:
                    add(number[entry.parents[j]], outputs[position])
    found = [results.get(number[t]) for t in targets]
    used = set(postorder([n for n in found if n is not None]))
    inputs = list(seeds)
    reads: list[tuple] = []
    for (k, j), node in value.items():
        if node in used:
            inputs.append(node)
            reads.append((1, k, j - 1, None) if j else (0, k, 0, None))
    for (k, j), node in intermediates.items():
        if node in used:
            inputs.append(node)
            reads.append((3, k, j, None))
    for (k, j), node in numbers.items():
        if node in used:
            inputs.append(node)
            reads.append((2, k, j, node.dtype.np))
    return (tuple(inputs), found), reads
