"""Graph -> optimised graph -> executable, once a program: passes' history, cache by fingerprint.

Equal programs from other lines share the executable's code; each has a history and lines of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakValueDictionary

from numpy import ndarray

from tracegrad.backends.base import Mesh, Options, backend_named
from tracegrad.backends.checks import checks
from tracegrad.backends.optimise import optimise
from tracegrad.ir import ops
from tracegrad.ir.fingerprint import labels
from tracegrad.ir.graph import Graph, Node
from tracegrad.ir.types import TupleType
from tracegrad.passes.hazards import dropped, may_raise
from tracegrad.passes.observers import History, Timing
from tracegrad.tracer.eager.program import LRU
from tracegrad.tracer.errors import ArgumentError, ShapeError

CACHE_SIZE = 256  # executables a compiled function keeps
LABELS_KEPT = 16  # histories that one of them has, each for other lines or names


@dataclass
class Lowered:
    """One compiled graph with everything that explains it."""

    graph: Graph  # as traced (segments: with their own inputs)
    final: Graph  # after every pass
    passed: list[tuple[str, Graph]]  # (name, graph after it) of these
    executable: Any
    passes: Timing
    timings: dict[str, float]

    @property
    def history(self) -> list[tuple[str, Graph]]:
        """The passes of every backend, and those of its own."""
        return [*self.passed, *self.executable.history]

    @property
    def source(self) -> str:
        """The program text that runs."""
        return self.executable.source  # type: ignore[no-any-return]

    @property
    def memory(self) -> Any:
        """What a run of it needs."""
        return self.executable.memory


def with_unread(graph: Graph, values: Sequence[Node]) -> Graph:
    """The graph with further outputs, which nobody reads."""
    count = len(values)
    return replace(
        graph,
        outputs=(*graph.outputs, *values),
        output_names=(*graph.output_names, *(f"unread{k}" for k in range(count))),
        output_roles=(*graph.output_roles, *["unread"] * count),
    )


def hands_on(graph: Graph) -> bool:
    """Whether it computes nothing: its outputs are values of earlier segments."""
    return len(graph.nodes) == len(graph.inputs) and {*graph.input_roles} <= {"import"}


class HandsOn:
    """What runs a graph that `hands_on`. Compiled only for who asks what it would be."""

    def __init__(self, graph: Graph, compiled: Callable[[], Any]):
        position = {node: k for k, node in enumerate(graph.inputs)}
        self._positions = [position[node] for node in graph.outputs]
        self._compiled = compiled

    def __call__(self, arrays: Sequence[Any], *how: bool) -> list[Any]:
        """Results are fresh arrays, as those of executables are; no one writes XLA's."""
        return [
            array.copy() if array.__class__ is ndarray else array
            for array in (arrays[k] for k in self._positions)
        ]

    @property
    def source(self) -> str:
        return self._compiled().source  # type: ignore[no-any-return]

    @property
    def memory(self) -> Any:
        return self._compiled().memory

    @property
    def history(self) -> list[tuple[str, Graph]]:
        return self._compiled().history  # type: ignore[no-any-return]


class Compiler:
    """Compiles graphs for one backend and remembers them by fingerprint, that of the graph as it was
    traced and that of what the passes made of it.
    """

    def __init__(self, backend: str, options: dict[str, Any]):
        self.backend = backend
        self.options = options
        self._cache: LRU = LRU(CACHE_SIZE)
        self._executables: WeakValueDictionary[Any, Any] = WeakValueDictionary()
        self.compiles = 0
        self.seconds = 0.0

    def __call__(self, graph: Graph, donate: tuple[int, ...] = ()) -> Lowered:
        """The executable of `graph`; equal programs share one.

        Raises what passes and backends raise.
        """
        key = self.key(graph, donate)
        by_labels = self._cache.get(key)
        if by_labels is None:
            by_labels = self._cache.add(key, LRU(LABELS_KEPT))
        named = labels(graph)
        lowered = by_labels.get(named)
        if lowered is None:
            lowered = by_labels.add(named, self._lower(graph, donate))
            self.seconds += sum(lowered.timings.values())
        return lowered

    def key(self, graph: Graph, donate: tuple[int, ...] = ()) -> tuple[Any, ...]:
        """Equal for graphs that share an executable."""
        return (graph.fingerprint(), donate, *placement(graph, self.options).values())

    def _unread_errors(self, graph: Graph, final: Graph) -> Sequence[Node]:
        """What the passes have left out though it may raise; of nodes with several results, the first."""
        values = tuple(
            ops.proj(node, index=0) if isinstance(node.type, TupleType) else node
            for node in dropped(graph, final)
        )
        if not values:
            return ()
        # Most is ruled out as soon as its constants are known.
        alone = Graph(graph.inputs, values, graph.input_names, (), graph.input_roles)
        return values if may_raise(optimise(alone, self.backend)) else ()

    def _lower(self, graph: Graph, donate: tuple[int, ...]) -> Lowered:
        options = Options(donate=donate, **{**self.options, **placement(graph, self.options)})
        history, timing = History(), Timing()
        started = time.perf_counter()
        backend = backend_named(self.backend)
        final = optimise(graph, self.backend, (history, timing, *checks(require_loc=True)))
        if errors := self._unread_errors(graph, final):
            graph, history, timing = with_unread(graph, errors), History(), Timing()
            final = optimise(graph, self.backend, (history, timing, *checks(require_loc=True)))
        passed = time.perf_counter()
        key = self.key(final, donate)
        shared = self._executables.get(key)
        if hands_on(final):
            executable: Any = HandsOn(final, lambda: backend.compile(final, options))
        elif shared is None:
            executable = self._executables[key] = backend.compile(final, options)
            self.compiles += 1
        else:
            executable = self._executables[key] = shared.relabelled(final)
        done = time.perf_counter()
        return Lowered(
            graph,
            final,
            history.graphs or [("trace", graph)],
            executable,
            timing,
            {"passes": passed - started, self.backend: done - passed},
        )


def placement(graph: Graph, options: dict[str, Any]) -> dict[str, Any]:
    """`input_specs` are given per argument of the function; all else is replicated: its state, and
    what its gradient reads when that is a program of its own.
    """
    given = options.get("input_specs")
    if not given:
        return {}
    of_argument = {f"arg{k}": (k, spec) for k, spec in enumerate(given)}
    specs = []
    for name, role, node in zip(graph.input_names, graph.input_roles, graph.inputs):
        position, spec = of_argument.get(name, (-1, None)) if role == "argument" else (-1, None)
        if spec is not None:
            check_spec(position, tuple(spec), node.shape, options.get("mesh"))
        specs.append(None if spec is None else tuple(spec))
    return {"input_specs": tuple(specs)}


def check_spec(
    position: int, spec: tuple[str | None, ...], shape: tuple[int, ...], mesh: Mesh | None
) -> None:
    """Raise ArgumentError or ShapeError, in the user's words, where an argument cannot be cut so."""
    which = f"input_specs: {spec} for tensor argument {position} of shape {list(shape)}"
    axes = mesh.shape if mesh is not None else {}
    if unknown := [axis for axis in spec if axis is not None and axis not in axes]:
        raise ArgumentError(
            f"{which}: there is no mesh axis {unknown[0]!r}",
            fix=f"name one of {', '.join(map(repr, axes))}, or None"
            if axes
            else "give mesh=tg.Mesh.of(data=4), too",
        )
    if len(spec) > len(shape):
        raise ArgumentError(f"{which} has too many entries", fix="give one entry per dimension")
    for dim, axis in enumerate(spec):
        if axis is not None and shape[dim] % axes[axis]:
            raise ShapeError(
                f"{which}: dimension {dim} cannot be cut into {axes[axis]} equal parts",
                why=f"the mesh axis {axis!r} has {axes[axis]} devices, which hold parts of one shape",
                fix="pad the batch, or leave the last one of an epoch out: DataLoader(..., drop_last=True)",
            )
