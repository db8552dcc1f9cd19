"""`autograd.Function`: a forward and a backward of the user's own, eager and traced through.

Eager, the tape gets one entry whose gradient calls the user's `backward`. While recording, both run
on traced tensors: the forward's nodes are wrapped in a composite op whose VJP is the user's
backward, so higher passes see only IR.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.ir import loc as _loc
from tracegrad.ir.graph import emit
from tracegrad.ir.ops import proj
from tracegrad.ir.ops.custom import custom_op
from tracegrad.tracer.errors import ArgumentError
from tracegrad.tracer.locate import here
from tracegrad.tracer.state import Mode, enable_grad, get_mode, no_grad, reset_mode, set_mode
from tracegrad.tracer.tape.entries import Constant, Entry, Part
from tracegrad.tracer.tensor import Tensor, wrap


class Context:
    """What `forward` leaves for `backward`. Attributes of your own are kept too."""

    def __init__(self, needs_input_grad: tuple[bool, ...]):
        self.needs_input_grad = needs_input_grad
        self._saved: tuple[Any, ...] = ()
        self._not_differentiable: set[int] = set()

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep tensors for `backward`, where they are `ctx.saved_tensors`."""
        self._saved = tensors

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        return self._saved

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        self._not_differentiable.update(map(id, tensors))

    def set_materialize_grads(self, value: bool) -> None:
        """Accepted: missing cotangents are always given as zeros."""


class Function:
    """Subclass with static `forward(ctx, *args)` and `backward(ctx, *cotangents)`; call
    `MyFunction.apply(*args)`.

    `backward` returns one cotangent (or None) per argument of `forward`.
    """

    @staticmethod
    def forward(ctx: Context, *args: Any) -> Any:
        raise NotImplementedError("an autograd.Function defines a static forward(ctx, *args)")

    @staticmethod
    def backward(ctx: Context, *grad_outputs: Any) -> Any:
        raise NotImplementedError(
            "an autograd.Function defines a static backward(ctx, *grad_outputs)"
        )

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Run `forward` without recording it, and leave `backward` as its gradient."""
        needs = tuple(isinstance(a, Tensor) and a.requires_grad for a in args)
        ctx = Context(needs)
        with no_grad():
            result = cls.forward(ctx, *args)
        mode = get_mode()
        if not any(needs) or not mode.grad:
            return result
        outputs = list(result) if isinstance(result, tuple) else [result]
        outputs = [o.clone() if any(o is a for a in args) else o for o in outputs]
        if mode.trace is not None:
            made = record(cls, ctx, args, outputs, mode.trace)
        else:
            made = leave_entry(cls, ctx, args, outputs)
        return tuple(made) if isinstance(result, tuple) else made[0]


def call_backward(
    cls: type[Function], ctx: Context, args: tuple[Any, ...], cotangents: list[Tensor], create: bool
) -> list[Any]:
    """The user's backward, checked: one result per argument."""
    with enable_grad() if create else no_grad():
        found = cls.backward(ctx, *cotangents)
    found = list(found) if isinstance(found, tuple) else [found]
    while len(found) > len(args) and found[-1] is None:
        found.pop()
    if len(found) != len(args):
        raise ArgumentError(
            f"{cls.__name__}.backward returned {len(found)} gradients for {len(args)} arguments of forward",
            where=here(), fix="return one per argument, None where there is none",
        )  # fmt: skip
    return found


class CustomProgram:
    """What the tape asks of an entry's kind, answered by Python."""

    def __init__(
        self, cls: type[Function], ctx: Context, args: tuple[Any, ...], outputs: list[Tensor]
    ):
        self.cls, self.ctx, self.args = cls, ctx, args
        self.types = [o._data.shape for o in outputs]
        self.dtypes = [o._data.dtype for o in outputs]
        self.name = f"{cls.__name__}Backward"

    def gradients(self, received: dict[int, Any], create: bool) -> list[Any]:
        """Cotangents (arrays, or Tensors under create) of the arguments from those of the outputs."""
        cotangents = []
        for k, shape in enumerate(self.types):
            ct = received.get(k)
            if ct is None:
                ct = np.zeros(shape, self.dtypes[k])
            cotangents.append(ct if isinstance(ct, Tensor) else wrap(ct))
        found = call_backward(self.cls, self.ctx, self.args, cotangents, create)
        return [g if create or g is None else g._data for g in found]


def leave_entry(
    cls: type[Function], ctx: Context, args: tuple[Any, ...], outputs: list[Tensor]
) -> list[Tensor]:
    program = CustomProgram(cls, ctx, args, outputs)
    parents = tuple(
        (a._entry if a._entry is not None else Constant(a._data)) if isinstance(a, Tensor) else None
        for a in args
    )
    whole = Entry(program, parents, (), outputs[0]._data.dtype)
    whole.saved = None
    for k, output in enumerate(outputs):
        if output.dtype.is_inexact and id(output) not in ctx._not_differentiable:
            array = output._data
            output._entry = Part(whole, k, array.shape, array.dtype)
    return outputs


def record(
    cls: type[Function], ctx: Context, args: tuple[Any, ...], outputs: list[Tensor], trace: Any
) -> list[Tensor]:
    """The op of this one call, with the user's backward as its VJP; see ir/ops/custom.py."""
    tensors = [a for a in args if isinstance(a, Tensor)]
    inputs = [trace.node_of(a) for a in tensors]
    results = [trace.node_of(o) for o in outputs]
    count = len(results)
    types = tuple(n.type for n in results)

    def vjp(ct: Any, out: Any, *operands: Any) -> tuple[Any, ...]:
        from tracegrad.ir import ops

        # The gradient may be asked for after the recording: the user's backward still runs as a
        # part of it.
        token = set_mode(Mode(get_mode().grad, trace))
        try:
            cotangents = [c if c is not None else ops.splat(0, t) for c, t in zip(ct, types)]
            create = get_mode().grad
            if create:  # what the backward does with a cotangent is tracked as it is done
                trace.track_gradients(cotangents)
            found = call_backward(cls, ctx, args, [*map(trace.fresh, cotangents)], create)
            tensor_grads = [g for g, a in zip(found, args) if isinstance(a, Tensor)]
            return (None,) * count + tuple(
                None if g is None else trace.node_of(g) for g in tensor_grads
            )
        finally:
            reset_mode(token)

    with _loc.at(here()):
        whole = emit(custom_op(cls.__name__, vjp), *results, *inputs)
        parts = [proj(whole, index=k) for k in range(count)]
    trace.mark_active(parts, inputs)
    return [trace.fresh(p) for p in parts]
