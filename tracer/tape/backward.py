"""Eager backward: the tape reachable from the loss becomes a static graph.

A structure is keyed by its canonical numbering. The first sighting runs the gradient programs entry
by entry; the second turns the whole tape into IR, differentiates, optimises and compiles it for
NumPy; from then on a backward is one numbering, one lookup and one call. `create_graph=True` and
hooks take the entry-by-entry path, recording.
"""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any

import numpy as np

from tracegrad.tracer.state import get_mode, no_grad, set_grad_enabled
from tracegrad.tracer.tape.compiled import compiled_for
from tracegrad.tracer.tape.entries import FREED, LEAF, Cut, Entry, Tape
from tracegrad.tracer.tape.hooks import any_registered, hooks_of, registered, replaced, retained_by
from tracegrad.tracer.tape.kept import drop, keepers
from tracegrad.tracer.tape.refused import (
    checked_cotangent,
    no_gradient_wanted,
    not_used,
    refuse_between_results,
    through_a_cut_view,
    walked_before,
)
from tracegrad.tracer.tape.walk import entry_gradients, recorded_gradients, walk
from tracegrad.tracer.tensor import Tensor, wrap


def backward(
    tensors: list[Tensor], gradients: list[Any], retain_graph: bool | None, create_graph: bool, inputs: Any = None
) -> None:  # fmt: skip
    """Accumulate gradients into the leaves' `.grad` (or into `inputs` only).

    See torch.autograd.backward.
    """
    trace = get_mode().trace
    if trace is not None:
        trace.backward(tensors, gradients, retain_graph, create_graph, inputs)
        return
    if inputs is not None:
        targets = [inputs] if isinstance(inputs, Tensor) else list(inputs)
        retaining = [t._entry is not None and retained_by(t._entry) is t for t in targets]
        found = grad_of(tensors, targets, gradients, retain_graph, create_graph, allow_unused=True)
        for target, gradient, has_it in zip(targets, found, retaining):
            if gradient is not None and not has_it:
                accumulate(target, gradient, create_graph)
        return
    tape, cotangents = tape_behind(tensors, gradients, create_graph)
    leaves = [entry for entry in tape.order if entry.kind is LEAF]
    found = run(tape, cotangents, leaves, retain_graph, create_graph, to_all=True)
    for leaf, gradient in zip(leaves, found):
        tensor = leaf.tensor()  # type: ignore[attr-defined]
        if gradient is not None and tensor is not None:
            accumulate(tensor, gradient, create_graph)


def grad_of(
    outputs: list[Tensor], inputs: list[Tensor], cotangents: list[Any], retain_graph: bool | None,
    create_graph: bool, allow_unused: bool | None,
) -> list[Tensor | None]:  # fmt: skip
    """Gradients of `outputs` with respect to `inputs`, without touching `.grad`.

    See torch.autograd.grad.
    """
    trace = get_mode().trace
    if trace is not None:
        return trace.grad_of(outputs, inputs, cotangents, retain_graph, create_graph, allow_unused)
    for k, tensor in enumerate(inputs):
        if tensor._entry is None:
            raise no_gradient_wanted(k)
    tape, seeds = tape_behind(outputs, cotangents, create_graph)
    refuse_between_results(tape, [tensor._entry for tensor in inputs])
    targets = entries_of(inputs, tape)
    for k, entries in enumerate(targets):
        if not entries and not allow_unused:
            raise not_used(k)
    present = list(dict.fromkeys(entry for entries in targets for entry in entries))
    gradients = run(tape, seeds, present, retain_graph, create_graph)
    found = dict(zip(present, gradients))
    result = []
    for tensor, entries in zip(inputs, targets):
        parts = [found[entry] for entry in entries if found[entry] is not None]
        if not parts:
            zeros = None if allow_unused else wrap(np.zeros(tensor.shape, tensor._data.dtype))
            result.append(zeros)
        elif create_graph:
            with set_grad_enabled(True):
                result.append(reduce(add, parts))
        else:
            result.append(wrap(np.asarray(reduce(add, parts))))  # a sum of 0-d arrays is a number
    return result


def entries_of(tensors: list[Tensor], tape: Tape) -> list[list[Entry]]:
    """What stands for each tensor on the tape: for a leaf, several, where a write under no_grad left the
    value before it to what had read it.
    """
    leaves: dict[int, list[Entry]] = {}
    for entry in tape.order:
        if entry.kind is LEAF:
            leaves.setdefault(id(entry.tensor()), []).append(entry)  # type: ignore[attr-defined]
    found = []
    for tensor in tensors:
        own: Any = tensor._entry
        same = leaves.get(id(tensor), []) if own.kind is LEAF else []
        found.append([*same, own] if own in tape.number and own not in same else same)
    return found


def tape_behind(
    tensors: list[Tensor], gradients: list[Any], create_graph: bool
) -> tuple[Tape, list[Any]]:
    """The tape from `tensors` on, and their cotangents: Tensors under create_graph, arrays otherwise."""
    cotangents: list[Any] = []
    for tensor, given in zip(tensors, gradients):
        gradient = checked_cotangent(tensor, tensor._entry is not None, given)
        if gradient is None:
            gradient = wrap(np.ones(tensor._data.shape, tensor._data.dtype))
        cotangents.append(gradient if create_graph else gradient._data)
    tape = Tape([tensor._entry for tensor in tensors])  # type: ignore[misc]
    for entry in tape.order:
        if entry.kind is FREED:
            raise through_a_cut_view() if entry.__class__ is Cut else walked_before()
    return tape, cotangents


def accumulate(tensor: Tensor, gradient: Any, create_graph: bool) -> None:
    """`tensor.grad += gradient`, taking the fresh array when there is none yet.

    What a compiled step has dropped stays so: without it the sum is unknown.
    """
    if gradient.__class__ is np.ndarray:
        gradient = wrap(gradient)
    old = tensor._grad
    if tensor._dropped_grad is not None:
        pass
    elif old is None:
        tensor._grad = gradient
    elif create_graph:
        with set_grad_enabled(True):
            tensor._grad = old + gradient
    else:
        with no_grad():
            old.add_(gradient)
    for hook in tensor._post_hooks or ():
        hook(tensor)


def run(
    tape: Tape, cotangents: list[Any], targets: list[Entry], retain_graph: bool | None, create_graph: bool,
    to_all: bool = False,
) -> list[Any]:  # fmt: skip
    """Cotangents of `targets`: Tensors under create_graph, arrays otherwise.

    to_all  whether these are all leaves
    """
    hooks = None
    if any_registered():
        hooks = run_hooks
        refuse_between_results(tape, registered())
    compiled = None if create_graph or hooks else compiled_for(tape, targets)
    if compiled is not None:
        found = compiled(tape.order, cotangents)
    else:
        found = cotangents_of(targets, tape, cotangents, create_graph, hooks)
    if not (create_graph if retain_graph is None else retain_graph):
        drop(
            tape,
            keepers(tape) if compiled is None else compiled.keepers,
            None if to_all else targets,
        )
    return found


def cotangents_of(
    targets: list[Entry], tape: Tape, cotangents: list[Any], create_graph: bool, hooks: Any
) -> list[Any]:
    """Entry by entry."""
    if create_graph:
        with set_grad_enabled(True):  # wherever it is asked for
            found = walk(tape, cotangents, targets, recorded_gradients(tape), hooks)
        given = set(map(id, cotangents))  # of a leaf that is itself the root
        gradients: list[Any] = [found.get(target) for target in targets]
        return [gradient.clone() if id(gradient) in given else gradient for gradient in gradients]
    found = walk(tape, cotangents, targets, entry_gradients, hooks)
    separate(targets, found, cotangents)
    return [found.get(target) for target in targets]


def separate(targets: list[Entry], results: dict[Entry, Any], given: list[np.ndarray]) -> None:
    """Two leaves never share one gradient array (a later in-place accumulation would change both),
    nor one with a cotangent that was given.
    """
    seen = {id(ct if ct.base is None else ct.base) for ct in given}
    for target in targets:
        array = results.get(target)
        if array is None:
            continue
        array = results[target] = np.asarray(array)  # sums of 0-d arrays are NumPy numbers
        base = array if array.base is None else array.base
        # A look at an XLA buffer stays: nobody can write there, and a write to it makes it private.
        of_numpy = array.base is not None and (
            isinstance(array.base, np.ndarray) or array.flags.writeable
        )
        if id(base) in seen or of_numpy:
            results[target] = array.copy()
        else:
            seen.add(id(base))


def run_hooks(entry: Entry, ct: Any) -> Any:
    recording = isinstance(ct, Tensor)
    hooks = hooks_of(entry)
    if hooks:
        gradient = replaced(ct if recording else wrap(ct), hooks)
        ct = gradient if recording else gradient._data
    tensor = retained_by(entry)
    if tensor is not None:
        accumulate(tensor, ct if recording else np.array(ct), recording)
    return ct
