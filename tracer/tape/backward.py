"""Eager backward: the tape reachable from the loss becomes a static graph.

A structure is keyed by its canonical numbering. The first sighting runs the gradient programs entry
by entry; the second turns the whole tape into IR, differentiates, optimises and compiles it for
NumPy; from then on a backward is one numbering, one lookup and one call. `create_graph=True` and
hooks take the entry-by-entry path, recording.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from tracegrad.tracer.errors import GradientError
from tracegrad.tracer.locate import here
from tracegrad.tracer.state import get_mode, no_grad
from tracegrad.tracer.tape.compiled import compiled_for
from tracegrad.tracer.tape.entries import CONSTANT, FREED, LEAF, Entry, Leaf, linearise
from tracegrad.tracer.tape.hooks import any_registered, hooks_of, replaced
from tracegrad.tracer.tape.walk import entry_gradients, recorded_gradients, walk
from tracegrad.tracer.tensor import Tensor, wrap

_retained: weakref.WeakKeyDictionary[Entry, Any] = weakref.WeakKeyDictionary()


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
        found = grad_of(tensors, targets, gradients, retain_graph, create_graph, allow_unused=True)
        for target, gradient in zip(targets, found):
            if gradient is not None:
                accumulate(target, gradient, create_graph)
        return
    roots, cotangents = seeds(tensors, gradients, create_graph)
    order, number = linearise(roots)
    check_alive(order)
    leaves = [e for e in order if e.kind is LEAF]
    found = run(order, number, roots, cotangents, leaves, create_graph)
    if not (create_graph if retain_graph is None else retain_graph):
        free(order)
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
    for tensor in inputs:
        if tensor._entry is None:
            raise GradientError(
                "grad(): an input does not require grad",
                where=here(),
                fix="call x.requires_grad_() before using it",
            )
    roots, seeds_ = seeds(outputs, cotangents, create_graph)
    targets = [t._entry for t in inputs]
    order, number = linearise(roots)
    check_alive(order)
    missing = [k for k, target in enumerate(targets) if target not in number]
    if missing and not allow_unused:
        raise GradientError(
            f"grad(): input {missing[0]} was not used to compute the outputs", where=here(),
            fix="pass allow_unused=True to get None for it",
        )  # fmt: skip
    present = [t for t in targets if t in number]
    found = dict(zip(map(id, present), run(order, number, roots, seeds_, present, create_graph)))
    if not (create_graph if retain_graph is None else retain_graph):
        free(order)
    result = []
    for tensor, target in zip(inputs, targets):
        gradient = found.get(id(target))
        if gradient is not None and gradient.__class__ is np.ndarray:
            gradient = wrap(gradient)
        elif gradient is None and not allow_unused:
            gradient = wrap(np.zeros(tensor.shape, tensor._data.dtype))
        result.append(gradient)
    return result


def seeds(
    tensors: list[Tensor], gradients: list[Any], create_graph: bool
) -> tuple[list[Entry], list[Any]]:
    """Entries to start from and their cotangents (Tensors under create_graph, arrays otherwise)."""
    roots, cotangents = [], []
    for tensor, gradient in zip(tensors, gradients):
        if tensor._entry is None:
            raise GradientError(
                "backward() on a tensor that does not require grad", where=here(),
                why="nothing it was computed from requires grad, or it was made under no_grad or detached",
                fix="call requires_grad_() on an input, or compute it outside no_grad",
            )  # fmt: skip
        array = tensor._data
        if gradient is None:
            if array.size != 1:
                raise GradientError(
                    f"backward() of a tensor with {array.size} elements needs a gradient", where=here(),
                    fix="reduce it to a scalar first, or pass gradient=tg.ones_like(x)",
                )  # fmt: skip
            gradient = wrap(np.ones(array.shape, array.dtype))
        elif tuple(gradient.shape) != array.shape:
            raise GradientError(
                f"the gradient's shape {tuple(gradient.shape)} is not the output's {array.shape}",
                where=here(),
            )
        roots.append(tensor._entry)
        cotangents.append(
            gradient if create_graph else gradient._data.astype(array.dtype, copy=False)
        )
    return roots, cotangents


def check_alive(order: list[Entry]) -> None:
    for entry in order:
        if entry.kind is FREED:
            raise GradientError(
                "backward through a graph a second time", where=here(),
                why="its saved values were freed after the first backward",
                fix="pass retain_graph=True to the first backward() or grad()",
            )  # fmt: skip


def free(order: list[Entry]) -> None:
    for entry in order:
        kind = entry.kind
        if kind is not LEAF and kind is not CONSTANT:
            entry.kind = FREED
            entry.parents = ()
            entry.value = None
            entry.saved = None


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
        tensor._grad = old + gradient
    else:
        with no_grad():
            old.add_(gradient)
    for hook in tensor._post_hooks or ():
        hook(tensor)


def run(
    order: list[Entry], number: dict[Entry, int], roots: list[Entry], cotangents: list[Any],
    targets: list[Entry], create_graph: bool,
) -> list[Any]:  # fmt: skip
    """Cotangents of `targets`: Tensors under create_graph, arrays otherwise."""
    hooks = run_hooks if any_registered() or _retained else None
    if create_graph:
        found = walk(order, roots, cotangents, targets, recorded_gradients(order), hooks)
        return [found.get(t) for t in targets]
    if hooks is None:
        compiled = compiled_for(order, number, roots, targets)
        if compiled is not None:
            return compiled(order, cotangents)
    found = walk(order, roots, cotangents, targets, entry_gradients, hooks)
    separate(targets, found, cotangents)
    return [found.get(t) for t in targets]


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
    keep = _retained.get(entry)
    tensor = keep() if keep is not None else None
    if tensor is not None:
        accumulate(tensor, ct if recording else np.array(ct), recording)
    return ct


def retain_grad(tensor: Tensor) -> None:
    if get_mode().trace is not None:
        get_mode().trace.retain_grad(tensor)  # type: ignore[union-attr]
    elif tensor._entry is not None and not isinstance(tensor._entry, Leaf):
        _retained[tensor._entry] = weakref.ref(tensor)
        tensor._retains_grad = True
