"""Padding."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node
from tracegrad.ir.ops.shape import take_range
from tracegrad.tracer.creation.fitting import check_fits
from tracegrad.tracer.dispatch import user_op
from tracegrad.tracer.functions.axes import moved
from tracegrad.tracer.functions.promotion import Operand, as_node, cast


@user_op
def pad(input: Operand, /, pad: Any, mode: str = "constant", value: Any = None) -> Node:
    """Padding (low, high) pairs, last dimension first: constant, reflect, replicate or circular.

    Negative numbers crop.
    """
    x = as_node(input)
    amounts = tuple(pad)
    if len(amounts) % 2 or len(amounts) // 2 > x.ndim:
        raise IRTypeError(
            f"pad {amounts} must be pairs for at most the {x.ndim} dimensions of {list(x.shape)}"
        )
    pairs = [(amounts[k], amounts[k + 1]) for k in range(0, len(amounts), 2)]
    if mode != "constant":
        if value is not None and value != 0:
            raise IRTypeError(f"pad(): mode {mode!r} takes no value, got {value}")
        for axis, (low, high) in zip(range(x.ndim - 1, -1, -1), pairs):
            x = _extended(x, axis, low, high, mode)
        return x
    for axis, (low, high) in zip(range(x.ndim - 1, -1, -1), pairs):
        size = x.shape[axis]
        if size + min(low, 0) + min(high, 0) < 0:
            raise IRTypeError(
                f"pad {amounts} crops more than dimension {axis} of {list(x.shape)} holds"
            )
        if low < 0 or high < 0:
            x = take_range(x, axis, max(-low, 0), size - max(-high, 0))
    lows = [0] * x.ndim
    highs = [0] * x.ndim
    for axis, (low, high) in zip(range(x.ndim - 1, -1, -1), pairs):
        lows[axis], highs[axis] = max(low, 0), max(high, 0)
    if not any(lows) and not any(highs):
        return x
    if value is not None:
        check_fits(value if isinstance(value, complex) else float(value), x.dtype)
    fill = cast(ops.literal(np.asarray(0 if value is None else value)), x.dtype)
    return ops.pad(x, fill, low=tuple(lows), high=tuple(highs), interior=(0,) * x.ndim)


def _extended(x: Node, axis: int, low: int, high: int, mode: str) -> Node:
    size = x.shape[axis]
    place = np.arange(-low, size + high)
    if mode == "reflect":
        if max(low, high) >= size:
            raise IRTypeError(
                f"reflect padding ({low}, {high}) must be below the size {size} of dimension {axis}"
            )
        place = (size - 1) - np.abs((size - 1) - np.abs(place))
    elif mode == "replicate":
        place = np.clip(place, 0, size - 1)
    elif mode == "circular":
        kept = size + min(low, 0) + min(high, 0)  # negative numbers crop before the rest goes round
        if max(low, high) > size or kept <= 0 < len(place):
            raise IRTypeError(
                f"circular padding ({low}, {high}) exceeds the size {size} of dimension {axis}"
            )
        first = max(-low, 0)
        place = first + (place - first) % kept
    else:
        raise IRTypeError(f"pad(): unknown mode {mode!r}; constant, reflect, replicate or circular")
    taken = ops.gather(x, ops.literal(place.astype(np.int64)), axes=(axis,))
    return moved(taken, 0, axis)
