"""One graph as ahead-of-time compiled XLA executables, called with a flat list of arrays."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from copy import copy
from typing import Any, NamedTuple

import jax
import numpy as np

from tracegrad.backends.base import BackendError, KernelError, Options
from tracegrad.backends.jax import flags, settings
from tracegrad.backends.jax.lowering import Lowerer
from tracegrad.backends.jax.sharding import input_shardings, jax_mesh, output_shardings
from tracegrad.ir.graph import Graph

# Where a graph rounds to fewer digits, XLA may not leave that out: eager and NumPy do not.
_OPTIONS: dict[str, Any] = {"xla_allow_excess_precision": False}
_WIDE = frozenset("qQlLdD")  # type characters of 64-bit (and complex128) NumPy arrays


class _Program(NamedTuple):
    """One compiled variant. Outputs: the graph's, then the code of what went wrong, if `flagged`.

    The code is read when the call ends (`at_end`) or at the next synchronisation.
    """

    lowered: Any
    compiled: Any
    flagged: bool
    at_end: bool


class JaxExecutable:
    """Call it with one array (NumPy or jax) per graph input; get one jax array per graph output.

    `donate=True` gives the buffers of `options.donate` away: those arrays are deleted, their memory
    holds the results. The caller makes sure that nobody else holds them (`arrays.may_donate`). A
    graph with `check` nodes never donates, so that a failed check leaves its inputs whole.
    `resident=True` says that all are concrete jax arrays, which spares a look at each.

    Raises CheckFailed when a `check` of the graph is false, KernelError when XLA refuses the
    arguments or fails; hazards of earlier calls (IndexOutOfRange, ...) at the next synchronisation,
    see `flags`.
    """

    backend = "jax"

    def __init__(self, graph: Graph, options: Options):
        self.graph = graph
        self.options = options
        self._lock = threading.Lock()
        self._mesh = None if options.mesh is None else jax_mesh(options.mesh)
        self._in_shardings = input_shardings(options, self._mesh, len(graph.inputs))
        self._donatable = _donatable(graph, options.donate)
        self._errors: list[BackendError] = []  # what the codes of its programs mean
        self._keeping = self._build((), self._errors)
        self._donating: _Program | None = None
        self._built: list[_Program] = []  # the donating one, for all that share it
        self._resident = {type(jax.numpy.zeros(()))}  # the class of concrete jax arrays

    def relabelled(self, graph: Graph) -> JaxExecutable:
        """This executable for an equal graph from other lines: it shares what XLA compiled."""
        other = copy(self)
        other.graph, other._errors = graph, []
        if self._errors:  # in the order that the program's codes count them
            with settings.lowering(self.options.matmul_precision, self.options.cache_dir):
                jax.eval_shape(other._program(other._errors), *other._types())
        return other

    def _types(self) -> list[Any]:
        return [jax.ShapeDtypeStruct(node.shape, node.dtype.np) for node in self.graph.inputs]

    def _program(self, errors: list[BackendError]) -> Callable[..., list[Any]]:
        """The graph as a function for jax to trace, which fills `errors`."""
        graph, at_end = self.graph, flags.read_at_end(self.graph)

        def program(*arrays: Any) -> list[Any]:
            scope = flags.Flags(errors, self.options.hazards)
            outputs = Lowerer(scope, self._mesh).run(graph, arrays)
            if scope.code is None:
                return outputs
            if not at_end:
                outputs = _keep_state(graph, arrays, outputs, scope.code)
            return [*outputs, scope.code]

        program.__name__ = program.__qualname__ = graph.name
        return program

    def _build(self, donate: tuple[int, ...], errors: list[BackendError]) -> _Program:
        program, types = self._program(errors), self._types()
        with settings.lowering(self.options.matmul_precision, self.options.cache_dir):
            keywords: dict[str, Any] = {}
            if self._in_shardings is not None:
                keywords["in_shardings"] = tuple(self._in_shardings)
            if self._mesh is not None:
                # Trace once for the number of flags: out_shardings must name every output.
                traced = jax.eval_shape(program, *types)
                errors.clear()
                keywords["out_shardings"] = output_shardings(
                    self.graph, self._in_shardings, self._mesh, len(traced)
                )
            lowered = jax.jit(program, donate_argnums=donate, **keywords).lower(*types)
            flagged = len(jax.tree.leaves(lowered.out_info)) > len(self.graph.outputs)
            compiled = lowered.compile(compiler_options=_OPTIONS)
            return _Program(lowered, compiled, flagged, flags.read_at_end(self.graph))

    def __call__(
        self, arrays: list[Any], donate: bool = False, resident: bool = False
    ) -> list[Any]:
        program = self._keeping
        if donate and self._donatable and not program.at_end:
            program = self._donating or self._build_donating()
        wide = False
        if not resident and {*map(type, arrays)} != self._resident:
            arrays, wide = _private(arrays)
        try:
            if wide:
                with jax.enable_x64(True):
                    results = program.compiled(*arrays)
            else:
                results = program.compiled(*arrays)
        except (TypeError, ValueError, RuntimeError) as error:
            results = self._retry(program, arrays, error)
        if program.flagged:
            settle = flags.raise_code if program.at_end else flags.defer
            settle(results.pop(), self._errors)
        return results

    def _build_donating(self) -> _Program:
        with self._lock:
            if not self._built:
                self._built.append(self._build(self._donatable, []))
            self._donating = self._built[0]
            return self._donating

    def _retry(self, program: _Program, arguments: list[Any], error: Exception) -> list[Any]:
        """The call again, every argument moved where the program wants it; else KernelError."""
        for node, name, array in zip(self.graph.inputs, self.graph.input_names, arguments):
            given = (tuple(np.shape(array)), getattr(array, "dtype", None))
            if given != (node.shape, node.dtype.np):
                raise KernelError(
                    f"input {name!r} of {self.graph.name!r} is {given[1]}{list(given[0])}, "
                    f"compiled for {node.type}"
                ) from error
        if len(arguments) != len(self.graph.inputs):
            raise KernelError(
                f"{self.graph.name!r} takes {len(self.graph.inputs)} arrays, got {len(arguments)}"
            ) from error
        deleted = [
            name
            for name, array in zip(self.graph.input_names, arguments)
            if isinstance(array, jax.Array) and array.is_deleted()
        ]
        if deleted or self._in_shardings is None:
            reason = (
                f"{', '.join(deleted[:4])} was donated to an earlier call" if deleted else error
            )
            raise KernelError(f"{self.graph.name!r} cannot run: {reason}") from error
        with jax.enable_x64(True):
            moved = jax.device_put(list(arguments), self._in_shardings)
            return program.compiled(*moved)

    @property
    def source(self) -> str:
        """The program as StableHLO text, before XLA optimises it."""
        return self._keeping.lowered.as_text()

    @property
    def optimised(self) -> str:
        """What XLA made of it, as HLO text."""
        return self._keeping.compiled.as_text()

    @property
    def history(self) -> list[tuple[str, Graph]]:
        """None: XLA's passes are on its own programs."""
        return []

    @property
    def memory(self) -> dict[str, int]:
        """Bytes by XLA's own account; empty where it gives none."""
        analysis = self._keeping.compiled.memory_analysis()
        if analysis is None:
            return {}
        return {
            "arguments": analysis.argument_size_in_bytes,
            "outputs": analysis.output_size_in_bytes,
            "temporaries": analysis.temp_size_in_bytes,
            "aliased": analysis.alias_size_in_bytes,
            "code": analysis.generated_code_size_in_bytes,
        }


def _private(arrays: list[Any]) -> tuple[list[Any], bool]:
    """NumPy arguments as copies that nobody can write: XLA reads asynchronously and in place.

    The second result says whether any is of a 64-bit dtype, which jax takes inside enable_x64 only.
    """
    result, wide = list(arrays), False
    for index, array in enumerate(arrays):
        if isinstance(array, np.ndarray | np.generic):
            result[index] = copied = np.array(array, copy=True, order="C")
            wide = wide or copied.dtype.char in _WIDE
    return result, wide


def _keep_state(graph: Graph, arrays: Any, outputs: list[Any], code: Any) -> list[Any]:
    """New values of state, or the old ones if the program ran into a hazard.

    The error comes later, when somebody waits; the state must not have moved by then.
    """
    kept = list(outputs)
    for position, source in graph.updates.items():
        if graph.inputs[source].type == graph.outputs[position].type:
            kept[position] = jax.lax.select(flags.clean(code), outputs[position], arrays[source])
    return kept


def _donatable(graph: Graph, wanted: tuple[int, ...]) -> tuple[int, ...]:
    """Those of the wanted inputs that an output can take over (jax warns about others)."""
    free = Counter(node.type for node in graph.outputs)
    chosen = []
    for index in wanted:
        type_ = graph.inputs[index].type
        if free[type_]:
            free[type_] -= 1
            chosen.append(index)
    return tuple(chosen)
