"""Eager backward: the tape reachable from the loss becomes a static graph.

A structure is keyed by its canonical numbering. The first sighting runs the gradient programs entry by entry; the
second turns the whole tape into IR, differentiates, optimises and compiles it for NumPy; from then on a backward is
one numbering, one lookup and one call. `create_graph=True` and hooks take the entry-by-entry path, recording.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from tracegrad.tracer.compiled_backward import compiled_for
from tracegrad.tracer.custom import CustomProgram
from tracegrad.tracer.dispatch import apply
from tracegrad.tracer.errors import GradientError
from tracegrad.tracer.locate import here
from tracegrad.tracer.program import GraphOp
from tracegrad.tracer.state import get_mode, no_grad
from tracegrad.tracer.tape import CONSTANT, FREED, LEAF, Entry, Leaf, Part, linearise, program_of
from tracegrad.tracer.tensor import Tensor, wrap

_hooks: weakref.WeakKeyDictionary[Entry, list[Any]] = weakref.WeakKeyDictionary()
_retained: weakref.WeakKeyDictionary[Entry, Any] = weakref.WeakKeyDictionary()


def backward(
    tensors: list[Tensor], gradients: list[Any], retain_graph: bool | None, create_graph: bool, inputs: Any = None
) -> None:  # fmt: skip
    """Accumulate gradients into the leaves' `.grad` (or into `inputs` only). See torch.autograd.backward."""
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
    """Gradients of `outputs` with respect to `inputs`, without touching `.grad`. See torch.autograd.grad."""
    trace = get_mode().trace
    if trace is not None:
        return trace.grad_of(outputs, inputs, cotangents, retain_graph, create_graph, allow_unused)  # type: ignore[no-any-return]
    for tensor in inputs:
        if tensor._entry is None:
            raise GradientError(
                "grad(): an input does not require grad", where=here(), fix="call x.requires_grad_() before using it"
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


def seeds(tensors: list[Tensor], gradients: list[Any], create_graph: bool) -> tuple[list[Entry], list[Any]]:
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
                f"the gradient's shape {tuple(gradient.shape)} is not the output's {array.shape}", where=here()
            )
        roots.append(tensor._entry)
        cotangents.append(gradient if create_graph else gradient._data.astype(array.dtype, copy=False))
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
    """`tensor.grad += gradient`, taking the fresh array when there is none yet."""
    if gradient.__class__ is np.ndarray:
        gradient = wrap(gradient)
    old = tensor._grad
    tensor._dropped_grad = None
    if old is None:
        tensor._grad = gradient
    elif create_graph:
        tensor._grad = old + gradient
    else:
        with no_grad():
            old.add_(gradient)


def run(
    order: list[Entry], number: dict[Entry, int], roots: list[Entry], cotangents: list[Any],
    targets: list[Entry], create_graph: bool,
) -> list[Any]:  # fmt: skip
    """Cotangents of `targets`."""
    if create_graph:
        return run_recording(order, roots, cotangents, targets)
    if not _hooks and not _retained:
        compiled = compiled_for(order, number, roots, targets)
        if compiled is not None:
            return compiled(order, cotangents)
    return run_interpreted(order, roots, cotangents, targets)


def wanted_entries(order: list[Entry], targets: list[Entry]) -> set[Entry]:
    """Entries through which a gradient can reach a target."""
    live = set(targets)
    for entry in order:
        for parent in entry.parents:
            if parent in live:
                live.add(entry)
                break
    return live


def run_interpreted(order: list[Entry], roots: list[Entry], cotangents: list[Any], targets: list[Entry]) -> list[Any]:
    live = wanted_entries(order, targets)
    grads: dict[Entry, Any] = {}
    for root, cotangent in zip(roots, cotangents):
        grads[root] = cotangent if root not in grads else grads[root] + cotangent
    parts: dict[Entry, dict[int, Any]] = {}
    results: dict[Entry, Any] = {}
    wanted_targets = set(targets)
    for entry in reversed(order):
        ct = grads.pop(entry, None)
        if ct is not None and (_hooks or _retained):
            ct = run_hooks(entry, ct)
        if ct is not None and entry in wanted_targets:
            results[entry] = ct
        if entry not in live or entry.kind is LEAF or entry.kind is CONSTANT:
            continue
        if entry.__class__ is Part:
            if ct is not None:
                parts.setdefault(entry.parents[0], {})[entry.index] = ct  # type: ignore[attr-defined]
            continue
        received = parts.pop(entry, None)
        if received is None:
            if ct is None:
                continue
            received = {0: ct}
        for parent, gradient in entry_gradients(entry, received, live):
            before = grads.get(parent)
            grads[parent] = gradient if before is None else before + gradient
    return [None if t not in results else np.asarray(results[t]) for t in unaliased(targets, results)]


def entry_gradients(entry: Entry, received: dict[int, np.ndarray], live: set[Entry]) -> list[tuple[Entry, np.ndarray]]:
    """(parent, cotangent) of one entry for the cotangents of its outputs."""
    if entry.kind.__class__ is CustomProgram:
        found = entry.kind.gradients(received, False)
        return [(p, g) for p, g in zip(entry.parents, found) if g is not None and p in live]
    program = program_of(entry)
    vjp, arrays = vjp_of(entry, program, received, live)
    arrays += operand_values(entry, program, vjp.reads_in)
    arrays += output_values(entry, vjp.reads_out)
    arrays += saved_of(entry, vjp)
    outputs = vjp.run(arrays)
    return [(entry.parents[k], outputs[at]) for k, at in vjp.gradients.items() if entry.parents[k] in live]


def vjp_of(entry: Entry, program: Any, received: dict[int, Any], live: set[Entry]) -> tuple[Any, list[Any]]:
    """The gradient program and its cotangent arguments.

    An entry that kept intermediates uses the program that it was recorded with: all tracked operands wanted, all
    outputs given a cotangent (zeros where none arrived).
    """
    if saved(entry):
        wanted = tuple(tracked(parent) for parent in entry.parents)
        flags = tuple(t.dtype.is_inexact for t in program.types)
        arrays = [
            received[k] if k in received else np.zeros(t.shape, t.dtype.np)
            for k, t in enumerate(program.types) if flags[k]
        ]  # fmt: skip
        return program.vjp(wanted, flags), arrays
    wanted = tuple(parent in live for parent in entry.parents)
    flags = tuple(k in received for k in range(len(program.types)))
    return program.vjp(wanted, flags, save=False), [received[k] for k, has in enumerate(flags) if has]


def saved(entry: Entry) -> Any:
    return getattr(entry, "saved", None)


def saved_of(entry: Entry, vjp: Any) -> list[np.ndarray]:
    return list(entry.saved) if vjp.saved else []


def tracked(parent: Any) -> bool:
    return isinstance(parent, Entry) and parent.kind is not CONSTANT


def unaliased(targets: list[Entry], results: dict[Entry, Any]) -> list[Entry]:
    """Two leaves never share one gradient array (a later in-place accumulation would change both)."""
    seen: set[int] = set()
    for target in targets:
        array = results.get(target)
        if array is None:
            continue
        base = array if array.base is None else array.base
        if id(base) in seen or array.base is not None:
            results[target] = array.copy()
        else:
            seen.add(id(base))
    return targets


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


def run_hooks(entry: Entry, ct: Any) -> Any:
    recording = isinstance(ct, Tensor)
    for hook in _hooks.get(entry, ()):
        replaced = hook(ct if recording else wrap(ct))
        if replaced is not None:
            ct = replaced if recording else replaced._data
    keep = _retained.get(entry)
    tensor = keep() if keep is not None else None
    if tensor is not None:
        accumulate(tensor, ct if recording else np.array(ct), recording)
    return ct


def run_recording(order: list[Entry], roots: list[Entry], cotangents: list[Any], targets: list[Entry]) -> list[Any]:
    """The same walk on Tensors, each gradient program applied as an op and so recorded itself."""
    live = wanted_entries(order, targets)
    grads: dict[Entry, Any] = {}
    for root, cotangent in zip(roots, cotangents):
        grads[root] = cotangent if root not in grads else grads[root] + cotangent
    parts: dict[Entry, dict[int, Any]] = {}
    results: dict[Entry, Any] = {}
    wanted_targets = set(targets)
    for entry in reversed(order):
        ct = grads.pop(entry, None)
        if ct is not None:
            ct = run_hooks(entry, ct)
            if entry in wanted_targets:
                results[entry] = ct
        if entry not in live or entry.kind is LEAF or entry.kind is CONSTANT:
            continue
        if entry.__class__ is Part:
            if ct is not None:
                parts.setdefault(entry.parents[0], {})[entry.index] = ct  # type: ignore[attr-defined]
            continue
        received = parts.pop(entry, None)
        if received is None:
            if ct is None:
                continue
            received = {0: ct}
        if entry.kind.__class__ is CustomProgram:
            for parent, gradient in zip(entry.parents, entry.kind.gradients(received, True)):
                if gradient is not None and parent in live:
                    grads[parent] = gradient if parent not in grads else grads[parent] + gradient
            continue
        program = program_of(entry)
        wanted = tuple(parent in live for parent in entry.parents)
        flags = tuple(k in received for k in range(len(program.types)))
        vjp = program.vjp(wanted, flags, save=False)
        operands: list[Any] = [received[k] for k, has in enumerate(flags) if has]
        for k in vjp.reads_in:
            parent = entry.parents[k]
            operands.append(with_entry(parent.value, parent) if isinstance(parent, Entry) else parent)
        for k in vjp.reads_out:
            value = entry.value[k] if entry.value.__class__ is list else entry.value
            operands.append(with_entry(value, output_entry(entry, k, order)))
        outputs = apply(graph_op(vjp), tuple(operands))
        for k, position in vjp.gradients.items():
            parent = entry.parents[k]
            before = grads.get(parent)
            grads[parent] = outputs[position] if before is None else before + outputs[position]
    return [results.get(t) for t in targets]


_graph_ops: weakref.WeakKeyDictionary[Any, GraphOp] = weakref.WeakKeyDictionary()


def graph_op(vjp: Any) -> GraphOp:
    op = _graph_ops.get(vjp.graph)
    if op is None:
        op = _graph_ops[vjp.graph] = GraphOp(vjp.graph)
    return op


def output_entry(entry: Entry, index: int, order: list[Entry]) -> Entry:
    if entry.value.__class__ is not list:
        return entry
    for candidate in order:
        if candidate.__class__ is Part and candidate.parents[0] is entry and candidate.index == index:  # type: ignore[attr-defined]
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


def retain_grad(tensor: Tensor) -> None:
    if get_mode().trace is not None:
        get_mode().trace.retain_grad(tensor)  # type: ignore[union-attr]
    elif tensor._entry is not None and not isinstance(tensor._entry, Leaf):
        _retained[tensor._entry] = weakref.ref(tensor)
        tensor._retains_grad = True


class HookHandle:
    """Removes its hook when asked; a context manager too."""

    def __init__(self, hooks: list[Any], hook: Any):
        self._hooks, self._hook = hooks, hook

    def remove(self) -> None:
        if self._hook in self._hooks:
            self._hooks.remove(self._hook)

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


def register_hook(tensor: Tensor, hook: Any) -> HookHandle:
    if get_mode().trace is not None:
        return get_mode().trace.register_hook(tensor, hook)  # type: ignore[union-attr]
    if tensor._entry is None:
        raise GradientError("a hook needs a tensor that requires grad", where=here())
    hooks = _hooks.setdefault(tensor._entry, [])
    hooks.append(hook)
    return HookHandle(hooks, hook)
