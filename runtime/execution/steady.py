"""The usual training step on XLA: it finds the state where the step before has left it.

Nothing has to be asked of each parameter then, so all that happens around the run is one function.
Python around a small step is slow out of proportion: XLA has just swept the caches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy import ndarray

from tracegrad.runtime.execution.plan import Plan
from tracegrad.runtime.paths.tree import Final
from tracegrad.tracer.tape.entries import FREED, Entry
from tracegrad.tracer.tensor import Tensor, bare


def steady_step(
    segment: Final, plan: Plan, for_xla: Callable[[Any], Any], outside: Callable[..., Any]
) -> Callable[[Sequence[Any]], Any] | None:
    """A function of the arguments' owners that runs and commits under the state lock, or returns
    None having done nothing.

    None instead of it where a step does more than to update captured tensors, drop gradients, draw
    random numbers and return one tensor.
    """
    updated, sources = plan.updated, segment.fetch
    if (
        updated is None or plan.programs or plan.single < 0 or plan.tried
        or plan.host or plan.switched or plan.kept or sources.storages or sources.imports
    ):  # fmt: skip
        return None
    executable, new_state, bundle = segment.lowered.executable, updated.outputs, updated.bundle
    arguments, others, get_state = sources.arguments, sources.outside, updated.state
    draws, unset, single, freed = plan.draws, plan.unset, plan.single, plan.freed

    def step(owners: Sequence[Any]) -> Any:
        if bundle.values is None:
            return None
        given = [for_xla(owners[k]) for k in arguments]
        read = [outside(*other) for other in others] if others else []
        if bundle.values is None:  # one of these was there
            return None
        resident = ndarray not in map(type, given) and ndarray not in map(type, read)
        outputs = executable([*given, *get_state(), *read], True, resident)
        bundle.values = new_state(outputs)
        for generator, count in draws:
            generator._count += count
        for fields, dropped_at in unset:
            fields["_grad"] = None
            fields["_dropped_grad"] = dropped_at
        result = bare(Tensor)
        result._jax = outputs[single]
        if freed is not None:
            result._entry = Entry(FREED, (), *freed)
        return result

    return step
