"""Graph -> one Python function of straight-line NumPy: the backend's fast path.

    fuse -> place and schedule (passes) -> write the text of every step -> lay out the arena -> exec

The text, not the graph, is shared between equal graphs; a line of it knows the step it belongs to,
so that an error names the user's line of the graph that was called.
"""

from __future__ import annotations

import builtins
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from typing import Any
from weakref import finalize

import numpy as np

from tracegrad.backends.base import (
    DEFAULT_OPTIONS,
    BackendError,
    KernelError,
    LinAlgError,
    Options,
)
from tracegrad.backends.checks import checks
from tracegrad.backends.numpy import (  # noqa: F401  (they register their emitters)
    codegen_contract,
    codegen_fast,
    codegen_fused,
    codegen_moves,
    codegen_reduce,
    codegen_structure,
    quiet,
)
from tracegrad.backends.numpy.codegen_elementwise import alias_positions
from tracegrad.backends.numpy.codegen_moves import emit_kernel
from tracegrad.backends.numpy.codegen_reduce import REDUCE
from tracegrad.backends.numpy.codegen_writer import EMITTERS, Writer
from tracegrad.backends.numpy.cores import Cores, cores_of
from tracegrad.backends.numpy.fast import blas
from tracegrad.backends.numpy.fast.pool import thread_count
from tracegrad.backends.numpy.loops import loop_of
from tracegrad.ir.fingerprint import labels
from tracegrad.ir.graph import Graph, Node
from tracegrad.ir.ops import OPS
from tracegrad.ir.ops.traits import ELEMENTWISE
from tracegrad.passes.accumulate import Accumulate
from tracegrad.passes.base import Pass, Pipeline
from tracegrad.passes.cleanup import DropFences
from tracegrad.passes.fuse import Fuse, FuseRules
from tracegrad.passes.join_pads import JoinPads
from tracegrad.passes.memory.place import Facts
from tracegrad.passes.memory.plan import (
    ALIGNMENT,
    MemoryPlan,
    assign_offsets,
    describe,
    lifetimes,
)
from tracegrad.passes.memory.schedule import schedule
from tracegrad.passes.observers import History

Array = np.ndarray[Any, Any]
Run = Callable[[Sequence[Array]], list[Array]]

PROGRAMS_KEPT = 256
SMALL_RESULT = 4096  # bytes below which alignment buys nothing
POISON = 0xFF  # nan in every float, -1 in every integer, not a bool


# ------------------------------------------------------------------ facts for the planner


def overwrites(node: Node) -> list[tuple[int, int]]:
    """Which operands each result may be written over; see passes.memory.place.Facts."""
    if node.op.has(ELEMENTWISE):
        return [(0, position) for position in alias_positions(node)]
    if node.op.name in ("update_slice", "scatter", "accumulate"):
        return [(0, 0)]
    if node.op.name == "fused":
        return loop_of(node.attrs["graph"]).overwrites()
    return []


def strided(node: Node) -> bool:
    return node.op.has(ELEMENTWISE) or node.op.name in _STRIDED


_STRIDED = frozenset({"matmul", "copy", "fused", "sdpa", "sdpa_backward"})
FACTS = Facts(overwrites, strided)

ELEMENTWISE_OPS = frozenset(EMITTERS) & frozenset(n for n, op in OPS.items() if op.has(ELEMENTWISE))
# Their code needs temporaries, or (the extremes) numbers as arrays: worth a loop even if alone.
TILED = frozenset(
    {"where", "rsqrt", "erf", "erfc", "erfinv", "lgamma", "digamma", "maximum", "minimum"}
)


def fuse_rules(tile_bytes: int) -> FuseRules:
    """Loops pay from half a tile of float32 on; below, whole arrays stay in the cache anyway."""
    return FuseRules(ELEMENTWISE_OPS, frozenset(REDUCE), alone=TILED, min_size=tile_bytes // 8)


# ------------------------------------------------------------------ programs


@dataclass(frozen=True, eq=False)
class GeneratedCode:
    """Generated code, shared by all graphs of one fingerprint.

    labels  of the graph that it was made for: lines and names in `source` and `memory` are its own
    steps_of_lines  for each line of `source` the index of the step it belongs to, -1 for none
    written  inputs whose arrays take new values
    holds_blas  BLAS is at one thread while it runs; see cores.py
    """

    labels: tuple[Any, ...]
    source: str
    filename: str
    namespace: dict[str, Any]
    memory: MemoryPlan
    steps_of_lines: tuple[int, ...]
    written: tuple[int, ...]
    holds_blas: bool
    idle: list[Run] = field(default_factory=list)  # bound, and not running now
    users: set[int] = field(default_factory=set)  # executables alive

    def forget(self, user: int) -> None:
        """Without executables the memory goes; the code may stay in the cache."""
        self.users.discard(user)
        if not self.users:
            self.idle.clear()

    def bind(self) -> Run:
        """A function with memory of its own."""
        size = self.memory.arena_bytes
        arena = aligned(size)
        run: Run = self.namespace["bind"](arena)
        return run


def aligned(size: int) -> Array:
    """`size` bytes that start at a multiple of 64."""
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]


def fresh(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """A new array for the caller, aligned where it is large."""
    result = np.empty(shape, dtype)
    if result.nbytes < SMALL_RESULT or result.ctypes.data % ALIGNMENT == 0:
        return result
    return aligned(result.nbytes).view(dtype).reshape(shape)


def poison(block: Array) -> None:
    block.fill(POISON)


def numpy_passes(options: Options) -> tuple[Pass, ...]:
    """What this backend does to a graph, after the passes of every backend: it makes the loops."""
    return (
        DropFences(),
        JoinPads(),
        *([Accumulate()] if blas.gemms() else []),
        *([Fuse(fuse_rules(options.tile_bytes))] if options.fuse else []),
    )


def lowered(graph: Graph, options: Options) -> Graph:
    """What the planner sees."""
    return Pipeline(numpy_passes(options), checks()).run(graph)


def steps_of(graph: Graph, options: Options) -> list[Node]:
    """The steps of the program of `graph`, in order."""
    return schedule(lowered(graph, options), state_writes(graph, options), FACTS).steps


def build(graph: Graph, options: Options, cores: Cores | None) -> GeneratedCode:
    """The program of `graph`; `cores` are those of the program around it, if any."""
    writes = state_writes(graph, options)
    scheduled = schedule(lowered(graph, options), writes, FACTS)
    alive = lifetimes(scheduled, FACTS)
    inner = replace(options, donate=())
    cores = cores or cores_of(scheduled.steps, options.threads)
    w = Writer(
        scheduled.placed,
        options.tile_bytes,
        cores,
        lambda graph: compile(graph, inner, cores),
    )
    w.use("fresh", fresh)
    ending: dict[int, list[Any]] = {}
    if options.poison:
        w.use("poison", poison)
        for storage in alive.storages:
            ending.setdefault(storage.end, []).append(storage)
        for storage in alive.storages:
            w.call("poison", w.poison_view(storage))
    owners = [-1] * len(w.lines)
    for step, node in enumerate(scheduled.steps):
        w.step = step
        w.line(f"# {node.op.name} {node.type}  {node.loc}".replace("\n", " "))
        (EMITTERS.get(node.op.name) or emit_kernel)(w, node)
        for storage in ending.get(step, ()):
            w.call("poison", w.poison_view(storage))
        owners += [step] * (len(w.lines) - len(owners))
    storages = alive.storages + w.workspaces
    arena_bytes = assign_offsets(storages)
    plan = describe(alive, storages, arena_bytes, sum(w.plan_bytes.values()))
    source = w.text()
    filename = f"<tracegrad {next(_numbers)}>"
    code = builtins.compile(source, filename, "exec")
    exec(code, w.namespace)
    owners = [-1] * w.lines_before + owners
    written = tuple(writes.values())
    return GeneratedCode(
        labels(graph), source, filename, w.namespace, plan, tuple(owners), written, cores.held
    )


def state_writes(graph: Graph, options: Options) -> dict[int, int]:
    """Output position -> donated input that it is the new value of."""
    writes: dict[int, int] = {}
    for position, source in graph.updates.items():
        same = graph.inputs[source].type == graph.outputs[position].type
        if source in options.donate and same and source not in writes.values():
            writes[position] = source
    return writes


class NumpyExecutable:
    """A compiled graph. Calls may overlap in threads; each runs in an arena of its own.

    Results are fresh arrays, never views of the arguments or of each other. Only the new values of
    donated state are written into the array given, and that array is returned.
    """

    backend = "numpy"

    def __init__(self, program: GeneratedCode, graph: Graph, options: Options, cores: Cores | None):
        self._program = program
        self._graph, self._options, self._cores = graph, options, cores
        program.users.add(id(self))
        finalize(self, program.forget, id(self))

    def relabelled(self, graph: Graph) -> NumpyExecutable:
        """The executable of an equal graph from other lines."""
        return compile(graph, self._options)

    @cached_property
    def _explained(self) -> GeneratedCode:
        """The program as it reads with this graph's lines and names."""
        program = self._program
        if program.labels == labels(self._graph):
            return program
        return build(self._graph, self._options, self._cores)

    @property
    def source(self) -> str:
        """The Python that runs."""
        return self._explained.source

    @property
    def memory(self) -> MemoryPlan:
        return self._explained.memory

    @property
    def history(self) -> list[tuple[str, Graph]]:
        """What `lowered` did to the graph."""
        seen = History()
        Pipeline(numpy_passes(self._options), (seen,)).run(self._graph)
        return [(f"numpy/{name}", graph) for name, graph in seen.graphs[1:]]

    def __call__(self, arrays: Sequence[Array]) -> list[Array]:
        program = self._program
        for index in program.written:
            if not arrays[index].flags.c_contiguous:
                return self._through_copies(arrays)
        idle = program.idle
        try:
            run = idle.pop()
        except IndexError:
            run = program.bind()
        token = quiet.enter()
        if program.holds_blas:
            blas.hold()
        try:
            results = run(arrays)
        except Exception as error:
            idle.append(run)
            raise self._located(error, len(arrays)) from error
        finally:
            if program.holds_blas:
                blas.release()
            quiet.leave(token)
        # After Ctrl-C another thread may still write there: only then is the memory left behind.
        idle.append(run)
        return results

    def _through_copies(self, arrays: Sequence[Array]) -> list[Array]:
        """Generated code writes contiguous arrays; others are updated by way of a copy."""
        given = list(arrays)
        for index in self._program.written:
            given[index] = np.ascontiguousarray(arrays[index]).reshape(arrays[index].shape)
        results = self(given)
        for index in self._program.written:
            if given[index] is not arrays[index]:
                arrays[index][...] = given[index]
                results = [arrays[index] if r is given[index] else r for r in results]
        return results

    def _located(self, error: Exception, count: int) -> Exception:
        """`error` as a BackendError that names the op and the user's line."""
        if count != len(self._graph.inputs):
            return KernelError(
                f"graph {self._graph.name!r} takes {len(self._graph.inputs)} arrays, {count} given"
            )
        step = -1
        frame = error.__traceback__
        while frame is not None:
            if frame.tb_frame.f_code.co_filename == self._program.filename:
                step = self._program.steps_of_lines[frame.tb_lineno - 1]
            frame = frame.tb_next
        if step < 0 or (isinstance(error, BackendError) and error.loc is not None):
            return error
        # The lines of this graph, not of the equal one that was compiled first.
        node = steps_of(self._graph, self._options)[step]
        if isinstance(error, BackendError):
            return error.located(node.op.name, node.loc)
        if isinstance(error, np.linalg.LinAlgError):
            return LinAlgError(str(error), node.op.name, node.loc)
        described = ", ".join(str(operand.type) for operand in node.inputs)
        message = f"{type(error).__name__}: {error} (inputs: {described or 'none'})"
        return KernelError(message, node.op.name, node.loc)


_numbers = count(1)  # of generated texts
_programs: OrderedDict[tuple[Any, ...], GeneratedCode] = OrderedDict()
_programs_lock = threading.Lock()


def compile(
    graph: Graph, options: Options = DEFAULT_OPTIONS, cores: Cores | None = None
) -> NumpyExecutable:
    """Generated code for `graph`; equal graphs share it (the last PROGRAMS_KEPT are kept).

    `cores`: of the program that it is part of; None: chosen for it.
    """
    options = replace(options, donate=tuple(sorted(set(options.donate))))
    key = (graph.fingerprint(), inner_labels(graph), options, cores, thread_count())
    with _programs_lock:
        program = _programs.get(key)
        if program is not None:
            _programs.move_to_end(key)
    if program is None:
        program = build(graph, options, cores)
        with _programs_lock:
            program = _programs.setdefault(key, program)
            while len(_programs) > PROGRAMS_KEPT:
                _programs.popitem(last=False)
    return NumpyExecutable(program, graph, options, cores)


def inner_labels(graph: Graph) -> tuple[Any, ...]:
    """The labels of sub-graphs: their programs, which know their own lines, are part of the generated
    code, so it is shared only by graphs of the same lines inside.
    """
    values = (value for node in graph.nodes for value in node.attrs.values())
    return tuple(labels(value) for value in values if isinstance(value, Graph))
