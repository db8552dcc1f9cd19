"""What must still hold of the tensors, gradients and hyper-parameters that a recording captured."""

from __future__ import annotations

from typing import Any

from tracegrad.runtime.watch.effects import Slot
from tracegrad.runtime.watch.facts import CallFact, HostFact, ItemFact, Place
from tracegrad.runtime.watch.sightings import Sightings
from tracegrad.tracer.locate import here
from tracegrad.tracer.tape.entries import Leaf
from tracegrad.tracer.tensor import Tensor
from tracegrad.tracer.trace.buffers import Input
from tracegrad.tracer.trace.recording import Trace


def add_tensor_facts(sightings: Sightings, trace: Trace, given: list[Tensor]) -> None:
    """Add them to the facts. `given`: the call's tensors; their `.grad` is part of its signature."""
    for fact in sightings.of_values():
        if id(fact.value) in trace.array_inputs:
            fact.snapshot = ("same", fact.value)  # its content is read at every call
    captured = {
        id(item.tensor): item
        for item in trace.inputs if item.kind == "state" and isinstance(item.tensor, Tensor)
    }  # fmt: skip
    arguments = set(map(id, given))
    # An argument that the function can also reach by itself: which of the two it used cannot be told.
    met = sightings.met | {id(value) for _, _, value in trace.noted}
    trace.touched_by_capture.update({id(t): t for t in given if id(t) in met})
    others = [t for t in sightings.tensors if id(t) not in captured and t._traced is None]
    for tensor in (*(item.tensor for item in captured.values()), *others):
        for name, value in list(tensor.__dict__.items()):
            if name[:1] != "_":  # the user's own attributes
                sightings.add(Place("item", tensor.__dict__, name), value, here())
    sightings.facts += [
        captured_fact(item.tensor, item, entry_before(trace, item.tensor))
        for item in captured.values()
    ]
    sightings.facts += [alias_fact(tensor) for tensor in trace.aliases.values()]
    sightings.facts += [
        seen_fact(tensor, entry_before(trace, tensor) is not None)
        for tensor in others if id(tensor) not in arguments
    ]  # fmt: skip
    for slot in trace.grads.values():
        if slot.found and slot.tensor._traced is None and id(slot.tensor) not in arguments:
            sightings.facts.append(grad_fact(slot.tensor))
    for holder, key, value in trace.noted:
        sightings.facts.append(ItemFact(holder, key, value))
    sightings.facts += [HostFact(guard) for guard in trace.host_guards]


def entry_before(trace: Trace, tensor: Tensor) -> Any:
    """What its history was before the recording, which may have called `requires_grad_()`."""
    _, entry = trace.switched.get(id(tensor), (tensor, tensor._entry))
    return entry


def captured_fact(tensor: Tensor, item: Input, entry: Any) -> CallFact:
    """Gradient status, shape, dtype and layout of a captured tensor."""
    key = ("captured", id(tensor))
    tracked = isinstance(entry, Leaf)
    if not tracked and entry is not None:  # a captured non-leaf: its history may be any
        return CallFact(
            lambda: tensor._entry is not None, lambda: f"{item.name}: no longer requires grad", key
        )
    shape, dtype = item.node.shape, item.node.dtype.np
    owner, strides = item.source, odd_strides(tensor)
    hooks = (tuple(tensor._hooks or ()), tuple(tensor._post_hooks or ()))

    def test() -> bool:
        if owner is not tensor:
            array = owner.array
        elif tensor._chain:
            return False  # its data was replaced by a view of something else
        else:
            array = tensor._data if tensor._jax is None else tensor._jax
        return (
            (tensor._entry is not None) is tracked
            and array.shape == shape
            and array.dtype == dtype
            and odd_strides(tensor) == strides
            and (tuple(tensor._hooks or ()), tuple(tensor._post_hooks or ())) == hooks
        )

    def text() -> str:
        return (
            f"{item.name}: captured as {item.node.type}, requires_grad={tracked}, with {len(hooks[0])} "
            "hooks; now it is not"
        )

    return CallFact(test, text, key)


def odd_strides(tensor: Tensor) -> tuple[int, ...] | None:
    return None if tensor._storage is None else tensor._storage.odd_strides


def alias_fact(tensor: Tensor) -> CallFact:
    """A captured tensor that may share memory with others: it lies where it lay."""
    storage, chain, family = tensor._storage, tensor._chain, tensor._family

    def test() -> bool:
        return tensor._storage is storage and tensor._chain == chain and tensor._family == family

    return CallFact(
        test, lambda: "the data of a captured tensor was replaced", ("captured", id(tensor))
    )


def seen_fact(tensor: Tensor, requires_grad: bool) -> CallFact:
    """What can be asked of a tensor whose value the graph does not use: its size, dtype, status and
    layout.
    """

    def status() -> tuple:
        return tuple(tensor.shape), tensor.dtype, tensor.requires_grad, odd_strides(tensor)

    before = tuple(tensor.shape), tensor.dtype, requires_grad, odd_strides(tensor)

    def text() -> str:
        return f"a tensor that was looked at: {before} when recorded, now {status()}"

    return CallFact(lambda: status() == before, text, ("captured", id(tensor)))


def grad_fact(tensor: Tensor) -> CallFact:
    """`.grad` of a captured tensor was read: it is the very object it was, or dropped as it was."""
    grad, dropped = tensor._grad, tensor._dropped_grad is not None

    def test() -> bool:
        return tensor._grad is grad and (tensor._dropped_grad is not None) is dropped

    def text() -> str:
        was = "a tensor" if grad is not None else "dropped" if dropped else "None"
        now = "None" if tensor._grad is None else "another tensor"
        now = now if tensor._dropped_grad is None else "dropped by a compiled step"
        return f".grad of a captured tensor: {was} when recorded, now {now}"

    return CallFact(test, text, ("grad", id(tensor)))


def read_gradients_by_name(sightings: Sightings, trace: Trace) -> None:
    """Let gradients found under `.grad` be whichever tensors stand there at a call.

    For steps that add to gradients which are made anew now and then (accumulation): by identity,
    each new one would cause a recording. Those that the function also holds otherwise stay as they
    are.
    """
    held = [id(fact.value) for fact in sightings.of_values()]
    held += [id(value) for _, _, value in trace.noted]
    held += [id(slot.tensor._grad) for slot in trace.grads.values()]
    for gradient in trace.grads.values():
        tensor = gradient.tensor
        found = tensor._grad
        item = next((i for i in trace.inputs if i.kind == "state" and i.source is found), None)
        if gradient.found != "tensor" or item is None or held.count(id(found)) != 1:
            continue
        if type(found) is not Tensor or found._entry is not None or found._storage is not None:
            continue
        place = Place("item", tensor.__dict__, "_grad")
        slot = trace.slots[id(found)] = Slot(place, found)
        item.kind, item.source, item.key = "slot", slot, ("slot", *place.key)
        replaced = (("captured", id(found)), ("grad", id(tensor)))
        sightings.facts = [f for f in sightings.facts if f.key not in replaced]
        sightings.facts.append(slot.fact())
