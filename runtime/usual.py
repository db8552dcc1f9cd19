"""The call that comes again and again: plain tensors by position, as last time, to a steady step.

Told from its arguments alone, without the key that other calls are looked up by.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracegrad.runtime.signature import VALUE_ALONE, Call
from tracegrad.tracer.state import get_default_dtype
from tracegrad.tracer.storage import STATE_LOCK
from tracegrad.tracer.tensor import Tensor, metadata_changes


def usual_call(
    specialisation: Any, call: Call
) -> Callable[[tuple[Any, ...], bool], Tensor | None] | None:
    """A function of (arguments, gradient mode) that makes the call, or returns None having done
    nothing: where anything is not as in `call`.

    None instead of it where calls like `call` need more to be looked at.
    """
    root, args = specialisation.root, call.args
    if (
        not root.final or root.plan.steady is None or root.plan.check is not None
        or call.leaves is not args or specialisation.gradients or specialisation.slots
        or any(specialisation.shared) or len({*map(id, args)}) < len(args)
        or not all(map(is_plain, args))
    ):  # fmt: skip
        return None
    steady, check = root.plan.steady, specialisation.check
    grad, default, count = call.grad, get_default_dtype(), len(args)
    forms = []
    for tensor in args:
        array = _value(tensor.__dict__)
        forms.append((array.shape, array.dtype))

    def usual(given: tuple[Any, ...], given_grad: bool) -> Any:
        if given_grad is not grad or len(given) != count or get_default_dtype() is not default:
            return None
        for tensor, (shape, dtype) in zip(given, forms):
            if tensor.__class__ is not Tensor:
                return None
            fields = tensor.__dict__
            if not fields.keys() <= VALUE_ALONE:
                return None
            array = fields["_data"] if "_data" in fields else fields["_jax"]
            if array.dtype is not dtype or array.shape != shape:
                return None
        if count > 1 and len({*map(id, given)}) < count:
            return None
        if check() is not None:
            return None
        captured = specialisation.captured
        if (
            specialisation.changes != metadata_changes[0] or not specialisation.apart
            or (captured and not captured.isdisjoint(map(id, given)))
        ):  # fmt: skip
            return None
        with STATE_LOCK:
            return steady(given)

    return usual


def is_plain(tensor: Any) -> bool:
    """Whether it is a tensor that has a value and nothing else."""
    return tensor.__class__ is Tensor and tensor.__dict__.keys() <= VALUE_ALONE


def _value(fields: dict[str, Any]) -> Any:
    return fields["_data"] if "_data" in fields else fields["_jax"]
