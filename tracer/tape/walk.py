"""The walk over the tape from roots to leaves: on arrays, or on Tensors (so recorded itself)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tracegrad.backends.base import BackendError
from tracegrad.ir.types import TensorType
from tracegrad.tracer.custom import CustomProgram
from tracegrad.tracer.dispatch import apply
from tracegrad.tracer.locate import here
from tracegrad.tracer.program import Program
from tracegrad.tracer.tape.entries import CONSTANT, LEAF, Entry, Part, program_of
from tracegrad.tracer.tensor import Tensor, wrap

# (entry, cotangents of its outputs by number, entries worth reaching) -> (parent, cotangent) pairs
Gradients = Callable[[Entry, dict[int, Any], set[Entry]], Iterable[tuple[Entry, Any]]]


def wanted_entries(order: list[Entry], targets: list[Entry]) -> set[Entry]:
    """Entries through which a gradient can reach a target."""
    live = set(targets)
    for entry in order:
        for parent in entry.parents:
            if parent in live:
                live.add(entry)
                break
    return live


def walk(
    order: list[Entry], roots: list[Entry], cotangents: list[Any], targets: list[Entry], gradients: Gradients,
    arrived: Callable[[Entry, Any], Any] | None = None,
) -> dict[Entry, Any]:  # fmt: skip
    """The cotangents that arrive at `targets`.

    `arrived` sees (and may replace) each complete one: hooks.
    """
    live = wanted_entries(order, targets)
    grads: dict[Entry, Any] = {}
    for root, cotangent in zip(roots, cotangents):
        grads[root] = cotangent if root not in grads else grads[root] + cotangent
    parts: dict[Entry, dict[int, Any]] = {}
    results: dict[Entry, Any] = {}
    wanted_targets = set(targets)
    for entry in reversed(order):
        ct = grads.pop(entry, None)
        if ct is not None and arrived is not None:
            ct = arrived(entry, ct)
        if ct is not None and entry in wanted_targets:
            results[entry] = ct
        if entry not in live or entry.kind is LEAF or entry.kind is CONSTANT:
            continue
        if entry.__class__ is Part:
            if ct is not None:
                parts.setdefault(entry.parents[0], {})[entry.index] = ct
            continue
        received = parts.pop(entry, None)
        if received is None:
            if ct is None:
                continue
            received = {0: ct}
        for parent, gradient in gradients(entry, received, live):
            before = grads.get(parent)
            grads[parent] = gradient if before is None else before + gradient
    return results


def entry_gradients(
    entry: Entry, received: dict[int, np.ndarray], live: set[Entry]
) -> list[tuple[Entry, np.ndarray]]:
    """(parent, cotangent) of one entry for the cotangents of its outputs."""
    if entry.kind.__class__ is CustomProgram:
        found = entry.kind.gradients(received, False)
        return [(p, g) for p, g in zip(entry.parents, found) if g is not None and p in live]
    program = program_of(entry)
    vjp, arrays = vjp_of(entry, program, received, live, zeros_of)
    arrays += operand_values(entry, program, vjp.reads_in)
    arrays += output_values(entry, vjp.reads_out)
    arrays += saved_of(entry, vjp)
    try:
        outputs = vjp.run(arrays)
    except BackendError as error:
        if program.__class__ is not Program:  # a compiled call knows the line of each op
            raise
        raise error.located(error.op, here()) from error.__cause__
    return [
        (entry.parents[k], outputs[at])
        for k, at in vjp.gradients.items()
        if entry.parents[k] in live
    ]


def zeros_of(type: TensorType) -> np.ndarray:
    return np.zeros(type.shape, type.dtype.np)


def vjp_of(
    entry: Entry,
    program: Any,
    received: dict[int, Any],
    live: set[Entry],
    zeros: Callable[[Any], Any],
) -> tuple[Any, list[Any]]:
    """The gradient program and its cotangent arguments.

    An entry that kept intermediates uses the program that it was recorded with: all tracked
    operands wanted, all outputs given a cotangent (zeros where none arrived).
    """
    if saved(entry):
        wanted = tuple(tracked(parent) for parent in entry.parents)
        flags = tuple(t.dtype.is_inexact for t in program.types)
        arrays = [
            received[k] if k in received else zeros(t)
            for k, t in enumerate(program.types) if flags[k]
        ]  # fmt: skip
        return program.vjp(wanted, flags), arrays
    wanted = tuple(parent in live for parent in entry.parents)
    flags = tuple(k in received for k in range(len(program.types)))
    return program.vjp(wanted, flags, save=False), [
        received[k] for k, has in enumerate(flags) if has
    ]


def saved(entry: Entry) -> Any:
    return getattr(entry, "saved", None)


def saved_of(entry: Entry, vjp: Any) -> list[np.ndarray]:
    return list(entry.saved) if vjp.saved else []


def tracked(parent: Any) -> bool:
    return isinstance(parent, Entry) and parent.kind is not CONSTANT


def operand_values(entry: Entry, program: Any, reads: tuple[int, ...]) -> list[np.ndarray]:
    from tracegrad.tracer.program import WEAK_DTYPE

    values = []
    for k in reads:
        parent = entry.parents[k]
        spec = program.specs[k]
        if spec.__class__ is str:
            values.append(np.asarray(parent, WEAK_DTYPE[spec].np))
        else:
            values.append(parent.value)
    return values


def output_values(entry: Entry, reads: tuple[int, ...]) -> list[np.ndarray]:
    value = entry.value
    return [value[k] if value.__class__ is list else value for k in reads]


def recorded_gradients(order: list[Entry]) -> Gradients:
    """Gradients of an entry as Tensors: its gradient program applied as an op, so recorded."""

    def gradients(
        entry: Entry, received: dict[int, Any], live: set[Entry]
    ) -> Iterable[tuple[Entry, Any]]:
        if entry.kind.__class__ is CustomProgram:
            found = entry.kind.gradients(received, True)
            return [(p, g) for p, g in zip(entry.parents, found) if g is not None and p in live]
        program = program_of(entry)
        wanted = tuple(parent in live for parent in entry.parents)
        flags = tuple(k in received for k in range(len(program.types)))
        vjp = program.vjp(wanted, flags, save=False)
        operands: list[Any] = [received[k] for k, has in enumerate(flags) if has]
        for k in vjp.reads_in:
            parent = entry.parents[k]
            operands.append(
                with_entry(parent.value, parent) if isinstance(parent, Entry) else parent
            )
        for k in vjp.reads_out:
            value = entry.value[k] if entry.value.__class__ is list else entry.value
            operands.append(with_entry(value, output_entry(entry, k, order)))
        outputs = apply(vjp.op, tuple(operands))
        return [(entry.parents[k], outputs[position]) for k, position in vjp.gradients.items()]

    return gradients


def output_entry(entry: Entry, index: int, order: list[Entry]) -> Entry:
    if entry.value.__class__ is not list:
        return entry
    for candidate in order:
        if (
            candidate.__class__ is Part
            and candidate.parents[0] is entry
            and candidate.index == index
        ):
            return candidate
    value = entry.value[index]
    return Part(entry, index, value.shape, value.dtype)


def with_entry(value: np.ndarray, entry: Entry) -> Tensor:
    tensor = wrap(value)
    if entry.kind is CONSTANT:
        tensor._const = entry  # type: ignore[assignment]
    else:
        tensor._entry = entry
    return tensor
