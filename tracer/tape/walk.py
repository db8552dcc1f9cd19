"""The walk over the tape from roots to leaves: on arrays, or on Tensors (so recorded itself)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tracegrad.backends.base import BackendError
from tracegrad.ir.types import TensorType
from tracegrad.tracer.custom import CustomProgram
from tracegrad.tracer.dispatch import apply
from tracegrad.tracer.eager.program import VJP, WEAK_DTYPE, Program
from tracegrad.tracer.locate import here
from tracegrad.tracer.tape.entries import CONSTANT, LEAF, Entry, Part, Tape, program_of, tracked
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
    tape: Tape, cotangents: list[Any], targets: list[Entry], gradients: Gradients,
    arrived: Callable[[Entry, Any], Any] | None = None,
) -> dict[Entry, Any]:  # fmt: skip
    """The cotangents that arrive at `targets`.

    `arrived` sees (and may replace) each complete one: hooks.
    """
    live = wanted_entries(tape.order, targets)
    grads: dict[Entry, Any] = {}
    for root, cotangent in zip(tape.roots, cotangents):
        grads[root] = cotangent if root not in grads else grads[root] + cotangent
    parts: dict[Entry, dict[int, Any]] = {}
    results: dict[Entry, Any] = {}
    wanted_targets = set(targets)
    for entry in reversed(tape.order):
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
        return custom_gradients(entry, received, live, recording=False)
    program = program_of(entry)
    vjp, arrays = vjp_of(entry, program, received, live, zeros_of)
    arrays += operand_values(entry, program, vjp.reads_in)
    arrays += [output_value(entry, k) for k in vjp.reads_out]
    if vjp.saved:
        arrays += entry.saved
    try:
        outputs = vjp.run(arrays)
    except BackendError as error:
        if program.__class__ is not Program:  # a compiled call knows the line of each op
            raise
        raise error.located(error.op, here()) from error.__cause__
    return to_parents(entry, vjp, outputs, live)


def recorded_gradients(tape: Tape) -> Gradients:
    """Gradients of an entry as Tensors: its gradient program applied as an op, so recorded."""
    parts = {(e.parents[0], e.index): e for e in tape.order if isinstance(e, Part)}

    def output(entry: Entry, k: int) -> Tensor:
        value = output_value(entry, k)
        if entry.value.__class__ is list:
            entry = parts.get((entry, k)) or Part(entry, k, value.shape, value.dtype)
        return with_entry(value, entry)

    def gradients(
        entry: Entry, received: dict[int, Any], live: set[Entry]
    ) -> list[tuple[Entry, Any]]:
        if entry.kind.__class__ is CustomProgram:
            return custom_gradients(entry, received, live, recording=True)
        vjp, operands = vjp_from_operands(entry, program_of(entry), received, live)
        for k in vjp.reads_in:
            parent = entry.parents[k]
            operands.append(
                with_entry(parent.value, parent) if isinstance(parent, Entry) else parent
            )
        operands += [output(entry, k) for k in vjp.reads_out]
        return to_parents(entry, vjp, apply(vjp.op, tuple(operands)), live)

    return gradients


def custom_gradients(
    entry: Entry, received: dict[int, Any], live: set[Entry], recording: bool
) -> list[tuple[Entry, Any]]:
    """Those of an autograd.Function: its backward runs."""
    found = entry.kind.gradients(received, recording)
    return [(p, g) for p, g in zip(entry.parents, found) if g is not None and p in live]


def to_parents(
    entry: Entry, vjp: VJP, outputs: Sequence[Any], live: set[Entry]
) -> list[tuple[Entry, Any]]:
    """The results of a gradient program with the parents that they are for."""
    pairs = [(entry.parents[k], outputs[at]) for k, at in vjp.gradients.items()]
    return [pair for pair in pairs if pair[0] in live]


def zeros_of(type: TensorType) -> np.ndarray:
    return np.zeros(type.shape, type.dtype.np)


def vjp_of(
    entry: Entry, program: Program, received: dict[int, Any], live: set[Entry], zeros: Callable[[Any], Any]
) -> tuple[VJP, list[Any]]:  # fmt: skip
    """The gradient program and its cotangent arguments.

    An entry that kept intermediates uses the program that it was recorded with: all tracked
    operands wanted, all outputs given a cotangent (zeros where none arrived).
    """
    if not getattr(entry, "saved", None):
        return vjp_from_operands(entry, program, received, live)
    wanted = tuple(tracked(parent) for parent in entry.parents)
    flags = tuple(type.dtype.is_inexact for type in program.types)
    given = [
        received[k] if k in received else zeros(type)
        for k, type in enumerate(program.types) if flags[k]
    ]  # fmt: skip
    arrived = tuple(has and k in received for k, has in enumerate(flags))
    return program.vjp_of_received(wanted, flags, arrived), given


def vjp_from_operands(
    entry: Entry, program: Program, received: dict[int, Any], live: set[Entry]
) -> tuple[VJP, list[Any]]:
    """As `vjp_of`, of no more than is asked for; it reads no intermediates."""
    wanted = tuple(parent in live for parent in entry.parents)
    flags = tuple(k in received for k in range(len(program.types)))
    given = [received[k] for k, has in enumerate(flags) if has]
    return program.vjp(wanted, flags, save=False), given


def operand_values(entry: Entry, program: Program, reads: tuple[int, ...]) -> list[np.ndarray]:
    values = []
    for k in reads:
        parent = entry.parents[k]
        spec = program.specs[k]
        if spec.__class__ is str:
            values.append(np.asarray(parent, WEAK_DTYPE[spec].np))
        else:
            values.append(parent.value)
    return values


def output_value(entry: Entry, k: int) -> np.ndarray:
    return entry.value[k] if entry.value.__class__ is list else entry.value


def with_entry(value: np.ndarray, entry: Entry) -> Tensor:
    tensor = wrap(value)
    if entry.kind is CONSTANT:
        tensor._const = entry  # type: ignore[assignment]
    else:
        tensor._entry = entry
    return tensor
