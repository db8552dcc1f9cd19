"""What a walk without retain_graph drops, and so what cannot be walked again.

As in PyTorch: an operation whose gradient reads no value (a sum, an `add`, a view) has nothing to
drop, and may be part of many walks: `flat = weight.view(-1)` before a loop of training steps.
"""

from __future__ import annotations

from collections.abc import Iterable

from tracegrad.tracer.eager.program import Program
from tracegrad.tracer.tape.entries import (
    CONSTANT,
    FREED,
    LEAF,
    Entry,
    Part,
    Tape,
    program_of,
    tracked,
)


def gradient_reads(program: Program, wanted: tuple[bool, ...]) -> bool:
    """Whether the gradient of the operands `wanted` reads operands, results or intermediates."""
    vjp = program.vjp(wanted, tuple(type.dtype.is_inexact for type in program.types))
    return bool(vjp.needs_in or vjp.needs_out or vjp.saved)


def keepers(tape: Tape) -> tuple[int, ...]:
    """The numbers of the entries that keep something for their gradient."""
    return tuple(k for k, entry in enumerate(tape.order) if keeps(entry))


def keeps(entry: Entry) -> bool:
    if entry.kind is LEAF or entry.kind is CONSTANT:
        return False
    if entry.__class__ is Part:
        return keeps(entry.parents[0])
    program = program_of(entry)
    # The gradient of another kind is a user's function, or belongs to a call as a whole.
    return program.__class__ is not Program or gradient_reads(
        program, tuple(map(tracked, entry.parents))
    )


def drop(tape: Tape, keepers: Iterable[int], targets: Iterable[Entry] | None) -> None:
    """Drop what a second walk would read: of what a walk to the targets has passed, of everything if
    these are all leaves (None).
    """
    order = tape.order
    passed = None if targets is None else set(tape.passed(targets))
    for k in keepers:
        entry = order[k]
        if passed is None or entry in passed:
            entry.kind = FREED
            entry.parents = ()
            entry.value = entry.saved = None
