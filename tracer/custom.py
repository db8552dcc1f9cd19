"""`autograd.Function`: a forward and a backward of the user's own, eager and traced through.

Eager, the tape gets one entry whose gradient calls the user's `backward`. While recording, both run
on traced tensors: the forward's nodes are wrapped in a composite op whose VJP is the user's
backward, so higher passes see only IR.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.ir import loc as _loc
from tracegrad.ir import ops
from tracegrad.ir.graph import Node, emit
from tracegrad.ir.ops.custom import custom_op
from tracegrad.tracer.errors import ArgumentError, NotHere, ShapeError
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
        self._zeros_for_missing = True

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep tensors for `backward`, where they are `ctx.saved_tensors`."""
        self._saved = tensors

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        return self._saved

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        self._not_differentiable.update(map(id, tensors))

    mark_dirty = NotHere(
        "return a new tensor from `forward`, and copy_() it into the argument outside"
    )

    def set_materialize_grads(self, value: bool) -> None:
        """Whether `backward` gets zeros for outputs that no gradient reaches, not None."""
        self._zeros_for_missing = bool(value)


class Function:
    """Subclass with static `forward(ctx, *args)` and `backward(ctx, *cotangents)`; call
    `MyFunction.apply(*args)`.

    `backward` returns one cotangent (or None) per argument of `forward`. Where there is a static
    `setup_context(ctx, inputs, output)`, `forward(*args)` has no context.
    """

    @staticmethod
    def forward(ctx: Context, *args: Any) -> Any:
        raise NotImplementedError("an autograd.Function defines a static forward(ctx, *args)")

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep what `backward` needs of the arguments and the result of a `forward(*args)`."""
        raise NotImplementedError("a static setup_context(ctx, inputs, output) of your own")

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
            if cls.setup_context is Function.setup_context:
                result = cls.forward(ctx, *args)
            else:
                result = cls.forward(*args)  # type: ignore[arg-type]
                cls.setup_context(ctx, args, result)
        mode = get_mode()
        outputs = list(result) if isinstance(result, tuple) else [result]
        made_tensor = any(isinstance(o, Tensor) for o in outputs)
        if not any(needs) or not mode.grad or not made_tensor:
            return result
        outputs = [
            o.clone() if isinstance(o, Tensor) and any(o is a for a in args) else o for o in outputs
        ]
        if mode.trace is not None:
            made = record(cls, ctx, args, outputs, mode.trace)
        else:
            made = leave_entry(cls, ctx, args, outputs)
        return tuple(made) if isinstance(result, tuple) else made[0]


def call_backward(
    cls: type[Function], ctx: Context, args: tuple[Any, ...], cotangents: list[Tensor | None], create: bool
) -> list[Tensor | None]:  # fmt: skip
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
        return [as_gradient(cls, k, g, a) for k, (g, a) in enumerate(zip(found, args))]


def as_gradient(cls: type[Function], position: int, gradient: Any, argument: Any) -> Tensor | None:
    """What a user's backward returned for an argument, in its shape (summed where the argument would
    be broadcast) and dtype. Raises ArgumentError, ShapeError.
    """
    if gradient is None or not isinstance(argument, Tensor):
        return None
    what = f"{cls.__name__}.backward returned for argument {position} of forward"
    if not isinstance(gradient, Tensor):
        raise ArgumentError(
            f"{what} a {type(gradient).__name__}", fix="return a tensor, or None for no gradient"
        )
    if gradient.shape != argument.shape:
        try:
            gradient = gradient.sum_to_size(*argument.shape)
        except ShapeError:
            raise ShapeError(
                f"{what} a gradient of shape {list(gradient.shape)}, it has shape {list(argument.shape)}",
                fix="return a gradient of the argument's shape",
            ) from None
    return gradient if gradient.dtype is argument.dtype else gradient.to(argument.dtype)


class CustomProgram:
    """What the tape asks of an entry's kind, answered by Python."""

    def __init__(
        self, cls: type[Function], ctx: Context, args: tuple[Any, ...], outputs: list[Any]
    ):
        self.cls, self.ctx, self.args = cls, ctx, args
        self.zeros = [
            (o._data.shape, o._data.dtype) if isinstance(o, Tensor) else None for o in outputs
        ]
        self.name = f"{cls.__name__}Backward"

    def gradients(self, received: dict[int, Any], create: bool) -> list[Any]:
        """Cotangents (arrays, or Tensors under create) of the arguments from those of the outputs."""
        cotangents = []
        for k, zeros in enumerate(self.zeros):
            ct = received.get(k)
            if ct is None and zeros is not None and self.ctx._zeros_for_missing:
                ct = np.zeros(*zeros)
            cotangents.append(ct if ct is None or isinstance(ct, Tensor) else wrap(ct))
        found = call_backward(self.cls, self.ctx, self.args, cotangents, create)
        return [g if create or g is None else g._data for g in found]


def leave_entry(
    cls: type[Function], ctx: Context, args: tuple[Any, ...], outputs: list[Any]
) -> list[Any]:
    """The tape's entry of this one call; the tensors among `outputs` get their history."""
    program = CustomProgram(cls, ctx, args, outputs)
    parents = tuple(
        (a._entry if a._entry is not None else Constant(a._data)) if isinstance(a, Tensor) else None
        for a in args
    )
    arrays = {k: o._data for k, o in enumerate(outputs) if isinstance(o, Tensor)}
    whole = Entry(program, parents, (), next(iter(arrays.values())).dtype)
    for k, array in arrays.items():
        output = outputs[k]
        if output.dtype.is_inexact and id(output) not in ctx._not_differentiable:
            output._entry = Part(whole, k, array.shape, array.dtype)
    return outputs


def record(
    cls: type[Function], ctx: Context, args: tuple[Any, ...], outputs: list[Any], trace: Any
) -> list[Any]:
    """The op of this one call, with the user's backward as its VJP; see ir/ops/custom.py."""
    inputs = [trace.node_of(a) for a in args if isinstance(a, Tensor)]
    results = [trace.node_of(o) for o in outputs if isinstance(o, Tensor)]

    def cotangent(ct: Any, result: Node) -> Tensor | None:
        if ct is None and ctx._zeros_for_missing:
            ct = ops.splat(0, result.type)
        return None if ct is None else trace.fresh(ct)

    def vjp(ct: Any, out: Any, *operands: Any) -> tuple[Any, ...]:
        # The gradient may be asked for after the recording: the user's backward still runs as a
        # part of it.
        create = get_mode().grad
        token = set_mode(Mode(create, trace))
        try:
            given = map(cotangent, ct, results)
            cotangents = [next(given) if isinstance(o, Tensor) else None for o in outputs]
            if create:  # what the backward does with a cotangent is tracked as it is done
                trace.track_gradients([c._traced.node for c in cotangents if c is not None])
            found = call_backward(cls, ctx, args, cotangents, create)
            return (None,) * len(results) + tuple(
                None if gradient is None else trace.node_of(gradient)
                for gradient, argument in zip(found, args) if isinstance(argument, Tensor)
            )  # fmt: skip
        finally:
            reset_mode(token)

    with _loc.at(here()):
        whole = emit(custom_op(cls.__name__, vjp), *results, *inputs)
        parts = [ops.proj(whole, index=k) for k in range(len(results))]
        trace.mark_active(parts, inputs)
        made, rest = list(outputs), iter(parts)
        for k, output in enumerate(outputs):
            if isinstance(output, Tensor):
                part = next(rest)
                if id(output) in ctx._not_differentiable:
                    part = ops.detach(part)
                made[k] = trace.fresh(part)
        return made
