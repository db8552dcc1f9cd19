"""The call that comes again and again: plain tensors by position, as last time, to a steady step.

It goes from its arguments to the run without a `Call`: no key, no look-up, no plan. Whatever a
`Call` would look at is either looked at here too or excluded when the `Usual` is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracegrad.runtime.calls.signature import Call, is_plain, value_of
from tracegrad.runtime.paths.tree import Final, Specialisation
from tracegrad.tracer.memory.bundle import STATE_LOCK
from tracegrad.tracer.state import get_default_dtype
from tracegrad.tracer.tensor import Tensor

# (arguments, gradient mode) -> result, or None where a call is another one: nothing was done then.
Usual = Callable[[tuple[Any, ...], bool], Tensor | None]


def usual_call(specialisation: Specialisation, call: Call) -> Usual | None:
    """Calls like `call`, which found `specialisation`; None where more must be looked at for them."""
    root, args = specialisation.root, call.args
    if (
        not isinstance(root, Final) or root.plan.steady is None or root.plan.check is not None
        or root.plan.grad_left is not None
        or call.leaves is not args or not specialisation.aliasing.plain
        or not all(map(is_plain, args)) or repeats(args)
    ):  # fmt: skip
        return None
    steady, check = root.plan.steady, specialisation.check
    are_apart = specialisation.aliasing.is_apart_from
    grad, default, count = call.grad, get_default_dtype(), len(args)
    values = [value_of(tensor) for tensor in args]
    forms = [(value.shape, value.dtype) for value in values]

    def usual(given: tuple[Any, ...], given_grad: bool) -> Any:
        if given_grad is not grad or len(given) != count or get_default_dtype() is not default:
            return None
        for tensor, (shape, dtype) in zip(given, forms):
            if not is_plain(tensor):
                return None
            value = value_of(tensor)
            if value.dtype is not dtype or value.shape != shape:
                return None
        if count > 1 and repeats(given):
            return None
        if check() is not None or not are_apart(given):
            return None
        with STATE_LOCK:
            return steady(given)

    return usual


def repeats(tensors: tuple[Any, ...]) -> bool:
    """Whether one tensor comes twice."""
    return len({*map(id, tensors)}) < len(tensors)
