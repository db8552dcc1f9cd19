"""What a compiled function tells about itself: graph, history, source, why, memory, dump."""

from __future__ import annotations

import inspect
import os
import statistics
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracegrad.ir.graph import Graph
from tracegrad.runtime.settings import Settings
from tracegrad.tracer.errors import ArgumentError, NothingCompiledError
from tracegrad.tracer.locate import here
from tracegrad.tracer.memory.bundle import value_in_xla
from tracegrad.tracer.tensor import Tensor
from tracegrad.tracer.trees import flatten_in_order

_SEE_LINES = "compile with fullgraph=True: the error shows the line and what to write instead"


class Given:
    """The arguments of a call, without keeping its tensors alive."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]):
        leaves, self._treedef = flatten_in_order((args, kwargs))
        self._leaves = [
            weakref.ref(x) if isinstance(x, Tensor) else (lambda x=x: x) for x in leaves
        ]

    def arguments(self) -> Any:
        """(args, kwargs). Raises ArgumentError if a tensor is gone."""
        leaves = [leaf() for leaf in self._leaves]
        gone = [
            kept for kept, leaf in zip(leaves, self._leaves)
            if kept is None and isinstance(leaf, weakref.ref)
        ]  # fmt: skip
        if gone:
            raise ArgumentError(
                "benchmark() without arguments, and those of the last recorded call are gone", where=here(),
                fix="give it the arguments of a call: step.benchmark(x, y)",
            )  # fmt: skip
        return self._treedef.unflatten(leaves)


@dataclass
class Event:
    """One recording: why it was made, and what it noticed that no replay repeats."""

    reason: str
    noticed: list[str]


class Inspection:
    """Mixin of CompiledFunction; reads its state, never changes it."""

    _last: Any
    _given: Given | None
    _events: list[Event]
    _compiler: Any
    _calls: int
    _python_calls: int
    _recordings: int
    _record_seconds: float
    _eager_reason: str
    function: Callable[..., Any]
    settings: Settings

    @property
    def name(self) -> str:
        """What errors and reports call it."""
        return self.settings.name

    @property
    def backend(self) -> str:
        """The backend: "numpy" or "jax"."""
        return self.settings.backend

    def _lowered(self) -> Any:
        if self._last is None:
            why, fix = "it has not been called yet", "call it once first"
            if self._eager_reason:
                why = f"it runs eagerly: {self._eager_reason}"
                fix = _SEE_LINES
            raise NothingCompiledError(f"{self.name} has no graph", why=why, fix=fix)
        from tracegrad.runtime.reports.path import taken

        return taken(self._last)

    @property
    def graph(self) -> Graph:
        """The optimised graph of the path taken last, with the questions that Python asked."""
        return self._lowered().final

    @property
    def history(self) -> list[tuple[str, Graph]]:
        """(pass name, graph after it), beginning with ("trace", the graph as recorded); after those of every
        backend, which end with `graph`, those of its own ("numpy/fuse": chains of operations as loops).
        """
        return list(self._lowered().history)

    @property
    def source(self) -> str:
        """The program text that runs: generated Python for NumPy, StableHLO for JAX."""
        return self._lowered().source

    def stats(self) -> dict[str, Any]:
        """Counts and seconds: calls, recordings, compiles (distinct executables), seconds.

        python_calls  those that the function itself answered, as an operation had failed in a `try`
        """
        return {
            "calls": self._calls,
            "recordings": self._recordings,
            "python_calls": self._python_calls,
            "compiles": self._compiler.compiles,
            "record_seconds": self._record_seconds,
            "compile_seconds": self._compiler.seconds,
            "backend": self.backend,
            "eager": bool(self._eager_reason),
        }

    def why(self) -> str:
        """One line a recording (the last 200): what was different from what was compiled before."""
        forgotten = self._recordings - len(self._events)
        lines = [
            line
            for k, event in enumerate(self._events, forgotten)
            for line in (f"recording {k}: {event.reason}", *(f"  {note}" for note in event.noticed))
        ]
        if self._python_calls:
            lines.append(
                f"ran as Python: {self._python_calls} calls, in which an operation in a `try` has failed"
            )
        if self._eager_reason:
            lines.append(f"eager: {self._eager_reason}")
        return "\n".join(lines) or f"{self.name} has not been called yet"

    def explain(self) -> str:
        """What was compiled, why, how long it took, how large it is, pass by pass; or why nothing is."""
        reasons = ["  why", *(f"    {line}" for line in self.why().splitlines())]
        if self._eager_reason and self._last is None:
            head = f"{self.name}: runs eagerly, nothing is compiled"
            return "\n".join([head, *reasons, "  fix", f"    {_SEE_LINES}"])
        lowered = self._lowered()
        before, after = lowered.graph, lowered.final
        backward = sum(any(v.startswith("vjp(") for v in n.loc.via) for n in before.nodes)
        stats = self.stats()
        lines = [
            f"{self.name}: compiled for {self.backend}"
            + (", but runs eagerly by now" if self._eager_reason else ""),
            f"  graph       {len(before.nodes)} nodes traced ({backward} of them backward), "
            f"{len(after.nodes)} after passes",
            *([f"  path        {lowered.describe()}"] if hasattr(lowered, "describe") else []),
            f"  inputs      {role_counts(after.input_roles)}",
            f"  outputs     {role_counts(after.output_roles)}",
            f"  time        {stats['record_seconds']:.3f} s recording and compiling, of it passes "
            f"{lowered.timings['passes']:.3f} s and {self.backend} {lowered.timings[self.backend]:.3f} s",
            f"  executables {stats['compiles']} for {stats['recordings']} recordings, {stats['calls']} calls",
            *reasons,
            "  passes",
            *(f"    {line}" for line in str(lowered.passes).splitlines()),
        ]
        return "\n".join(lines)

    def memory(self) -> Any:
        """The memory plan of the last path; NumPy: the peak, where it is and what lives there. Of a path
        of several programs, the plan of the one that needs most.
        """
        return self._lowered().memory

    def dump(self, directory: str | Path) -> Path:
        """Write everything about the path taken last into a directory; see docs/dump.md.

        Returns its path. Raises ArgumentError for what is no path.
        """
        from tracegrad.runtime.reports.dump import write_dump

        if not isinstance(directory, str | os.PathLike):
            raise ArgumentError(
                f"dump(): the directory is of type {type(directory).__name__}, a path is needed",
                fix='step.dump("dump")',
            )
        return write_dump(self, Path(directory))

    def benchmark(self, *args: Any, repeats: int = 20, **kwargs: Any) -> dict[str, float]:
        """Median seconds a call, eager and compiled in turn on the same arguments, and their ratio.

        Without arguments: on those of the last recorded call, while they are still there (raises
        ArgumentError when they are not, NothingCompiledError for a function with arguments that has
        not been called). The function really runs: a training step moves its parameters by
        2 * repeats + 1 steps.
        """
        function = self.function
        if not args and not kwargs:
            if self._given is not None:
                args, kwargs = self._given.arguments()
            elif takes_arguments(function):
                raise NothingCompiledError(
                    f"{self.name} has not been called yet, and benchmark() was given no arguments",
                    where=here(), fix="call it first, or give benchmark() the arguments of a call",
                )  # fmt: skip
        compiled: Any = self
        compiled(*args, **kwargs)
        times: dict[str, list[float]] = {"eager": [], "compiled": []}
        for _ in range(repeats):
            for name, run in (("eager", function), ("compiled", compiled)):
                started = time.perf_counter()
                block(run(*args, **kwargs))
                times[name].append(time.perf_counter() - started)
        eager, ours = statistics.median(times["eager"]), statistics.median(times["compiled"])
        return {"eager": eager, "compiled": ours, "speedup": eager / ours}


def takes_arguments(function: Any) -> bool:
    """Whether it cannot be called without."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # a callable of C, which does not say
        return False
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = (p for p in signature.parameters.values() if p.default is p.empty)
    return any(p.kind not in kinds for p in needed)


def block(value: Any) -> None:
    """Wait for an asynchronous result."""
    for leaf in flatten_in_order(value)[0]:
        array = value_in_xla(leaf) if isinstance(leaf, Tensor) else None
        if array is not None:
            array.block_until_ready()


def role_counts(roles: tuple[str, ...]) -> str:
    counts: dict[str, int] = {}
    for role in roles:
        kind = role.split(":")[0]
        counts[kind] = counts.get(kind, 0) + 1
    return ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "none"
