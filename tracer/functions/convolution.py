"""Convolutions in one, two and three dimensions: NCHW images, OIHW filters, cross-correlation."""

from __future__ import annotations

from operator import index
from typing import Any

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node
from tracegrad.ir.ops.shape import reverse_axes
from tracegrad.tracer.dispatch import user_op
from tracegrad.tracer.functions.axes import reshape
from tracegrad.tracer.functions.promotion import Operand, as_node, require_same_dtype

Ints = tuple[int, ...]


def sizes(value: Any, rank: int, what: str) -> Ints:
    """One int for every spatial axis, or one for all. Raises IRTypeError otherwise."""
    given = (value,) if isinstance(value, int) else tuple(map(index, value))
    if len(given) not in (1, rank):
        raise IRTypeError(f"{what} {given} must be one int or {rank}")
    least = 0 if what.endswith("padding") else 1
    if min(given) < least:
        raise IRTypeError(f"{what} {value} must be {least} or more")
    return given * rank if len(given) == 1 else given


def with_bias(x: Node, bias: Operand | None) -> Node:
    """Add bias[C] on axis 1."""
    if bias is None:
        return x
    b = as_node(bias)
    if b.shape != (x.shape[1],):
        raise IRTypeError(
            f"bias of shape {list(b.shape)} does not fit {x.shape[1]} output channels"
        )
    return ops.add(x, ops.broadcast_to(b, shape=x.shape, dims=(1,)))


def batched(name: str, input: Operand, rank: int) -> tuple[Node, bool]:
    """The input with a batch axis, and whether it lacked one."""
    x = as_node(input)
    if x.ndim not in (rank + 1, rank + 2):
        raise IRTypeError(
            f"{name}() needs input of {rank + 2} dimensions (N, C, ..) or {rank + 1} (C, ..), "
            f"got {list(x.shape)}"
        )
    return (reshape(x, (1, *x.shape)), True) if x.ndim == rank + 1 else (x, False)


def unbatched(x: Node, lacked: bool) -> Node:
    return reshape(x, x.shape[1:]) if lacked else x


def padding_pairs(
    padding: Any, kernel: Ints, strides: Ints, dilation: Ints
) -> tuple[tuple[int, int], ...]:
    """(low, high) for every axis from an int, several, "valid" or "same".

    The odd one of "same" goes to the end.
    """
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    if padding == "same":
        if any(step != 1 for step in strides):
            raise IRTypeError('padding="same" needs stride 1')
        totals = [hole * (size - 1) for size, hole in zip(kernel, dilation)]
        return tuple((total // 2, total - total // 2) for total in totals)
    if isinstance(padding, str):
        raise IRTypeError(f'padding must be ints, "same" or "valid", not {padding!r}')
    return tuple((p, p) for p in sizes(padding, len(kernel), "padding"))


_AXES = {1: ("L", "K"), 2: ("H, W", "KH, KW"), 3: ("D, H, W", "KD, KH, KW")}  # input, kernel


def _make_conv(rank: int) -> Any:
    name, (space, window) = f"conv{rank}d", _AXES[rank]

    def emit(
        input: Operand,
        weight: Operand,
        bias: Operand | None = None,
        /,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Node:
        x, lacked = batched(name, input, rank)
        w = as_node(weight)
        require_same_dtype(name, x, w, None if bias is None else as_node(bias))
        if w.ndim != rank + 2 or x.shape[1] != w.shape[1] * groups or w.shape[0] % groups:
            raise IRTypeError(
                f"{name}(): input {list(x.shape)} has {x.shape[1]} channels, weight "
                f"{list(w.shape)} with groups={groups} takes "
                f"{w.shape[1] * groups if w.ndim == rank + 2 else '?'} "
                f"and gives {w.shape[0]} (a multiple of groups)"
            )
        steps, holes = sizes(stride, rank, "stride"), sizes(dilation, rank, "dilation")
        pairs = padding_pairs(padding, w.shape[2:], steps, holes)
        for size, kernel, hole, (low, high) in zip(x.shape[2:], w.shape[2:], holes, pairs):
            if size + low + high < hole * (kernel - 1) + 1:
                raise IRTypeError(
                    f"{name}(): the padded input size {size + low + high} is smaller than the "
                    f"kernel's reach {hole * (kernel - 1) + 1} (input {list(x.shape)}, weight "
                    f"{list(w.shape)})"
                )
        out = ops.conv(
            x,
            w,
            strides=steps,
            padding=pairs,
            lhs_dilation=(1,) * rank,
            rhs_dilation=holes,
            groups=groups,
        )
        return unbatched(with_bias(out, bias), lacked)

    emit.__name__ = emit.__qualname__ = name
    emit.__doc__ = (
        f"input[N, C, {space}] with weight[O, C / groups, {window}], bias[O]: cross-correlation."
    )
    return user_op(emit)


def _make_conv_transpose(rank: int) -> Any:
    """The adjoint of conv: the input spread by the stride, correlated with the flipped filter."""
    name, (space, window) = f"conv_transpose{rank}d", _AXES[rank]

    def emit(
        input: Operand,
        weight: Operand,
        bias: Operand | None = None,
        /,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Node:
        x, lacked = batched(name, input, rank)
        w = as_node(weight)
        require_same_dtype(name, x, w, None if bias is None else as_node(bias))
        if w.ndim != rank + 2 or x.shape[1] != w.shape[0] or w.shape[0] % groups:
            raise IRTypeError(
                f"{name}(): input {list(x.shape)} does not have the channels of weight "
                f"{list(w.shape)} (in, out, ..)"
            )
        steps, holes = sizes(stride, rank, "stride"), sizes(dilation, rank, "dilation")
        pads, extra = sizes(padding, rank, "padding"), sizes(output_padding, rank, "output_padding")
        if any(e >= max(s, h) for e, s, h in zip(extra, steps, holes)):
            raise IRTypeError(
                f"{name}(): output_padding {extra} must be smaller than stride or dilation"
            )
        inside, outside, kernel = w.shape[0], w.shape[1] * groups, w.shape[2:]
        grouped = reshape(
            reverse_axes(w, tuple(range(2, rank + 2))),
            (groups, inside // groups, w.shape[1], *kernel),
        )
        swapped = ops.transpose(grouped, perm=(0, 2, 1, *range(3, rank + 3)))
        reach = [hole * (size - 1) for size, hole in zip(kernel, holes)]
        shape = [
            (n - 1) * s + r + e + 1 - 2 * p
            for n, s, r, e, p in zip(x.shape[2:], steps, reach, extra, pads)
        ]
        if min(shape) < 1:
            raise IRTypeError(f"{name}(): the output would have the spatial shape {shape}")
        out = ops.conv(
            x,
            reshape(swapped, (outside, inside // groups, *kernel)),
            strides=(1,) * rank,
            padding=tuple((r - p, r - p + e) for r, p, e in zip(reach, pads, extra)),
            lhs_dilation=steps,
            rhs_dilation=holes,
            groups=groups,
        )
        return unbatched(with_bias(out, bias), lacked)

    emit.__name__ = emit.__qualname__ = name
    emit.__doc__ = (
        f"input[N, C, {space}] with weight[C, O / groups, {window}], bias[O]: the gradient of "
        f"conv{rank}d, as an upsampling."
    )
    return user_op(emit)


conv1d, conv2d, conv3d = map(_make_conv, (1, 2, 3))
conv_transpose1d, conv_transpose2d, conv_transpose3d = map(_make_conv_transpose, (1, 2, 3))
