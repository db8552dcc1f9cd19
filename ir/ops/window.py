"""Sums and maxima over sliding windows of the last axes, and how maxima send cotangents back."""

from __future__ import annotations

from math import prod

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node, Op
from tracegrad.ir.ops.base import register
from tracegrad.ir.ops.build import full, full_like
from tracegrad.ir.ops.contract import Ints, Pairs, dilated, out_size
from tracegrad.ir.types import TensorType


def _windows(
    x: TensorType, window: Ints, strides: Ints, padding: Pairs, dilation: Ints
) -> tuple[int, ...]:
    """Shape of the result: the leading axes of x, then the number of windows on each last axis."""
    rank = len(window)
    if not 1 <= rank <= x.ndim:
        raise IRTypeError(f"a window of {rank} axes does not fit {x}")
    for name, values in (("window", window), ("strides", strides), ("dilation", dilation)):
        if len(values) != rank or any(value < 1 for value in values):
            raise IRTypeError(f"{name} needs {rank} ints >= 1, not {values}")
    if len(padding) != rank or any(len(pair) != 2 for pair in padding):
        raise IRTypeError(f"padding needs {rank} (low, high) pairs, not {padding}")
    lead = x.ndim - rank
    sizes = (
        out_size(n, dilated(k, d), s, lo, hi)
        for n, k, s, (lo, hi), d in zip(x.shape[lead:], window, strides, padding, dilation)
    )
    return (*x.shape[:lead], *sizes)


# ---- window_sum(x; window, strides, padding), zeros outside ----


def _window_sum_type(x: TensorType, window: Ints, strides: Ints, padding: Pairs) -> TensorType:
    if x.dtype.is_bool:
        raise IRTypeError(f"needs numbers, not {x}")
    return x.with_shape(_windows(x, window, strides, padding, (1,) * len(window)))


def _window_sum_vjp(
    ct: Node, out: Node, x: Node, window: Ints, strides: Ints, padding: Pairs
) -> tuple[Node]:
    # windows i with i s <= p + lo < i s + k read x[p]: spread ct by s, then sum k neighbours
    if out.type.size == 0:
        return (full_like(x, 0),)
    lead = x.ndim - len(window)
    spread = ops.pad(
        ct,
        full((), ct.dtype, 0),
        low=(0,) * x.ndim,
        high=(0,) * x.ndim,
        interior=(0,) * lead + tuple(s - 1 for s in strides),
    )
    edges = []
    for n, k, m, (lo, _) in zip(x.shape[lead:], window, spread.shape[lead:], padding):
        low = k - 1 - lo
        edges.append((low, n + k - 1 - m - low))
    # what lies wholly in the padding is cut off, so that the sum below pads by no negative number
    cropped = ops.slice_(
        spread,
        start=(0,) * lead + tuple(max(-low, 0) for low, _ in edges),
        stop=spread.shape[:lead]
        + tuple(m - max(-high, 0) for m, (_, high) in zip(spread.shape[lead:], edges)),
        step=(1,) * x.ndim,
    )
    if cropped.type.size == 0:
        return (full_like(x, 0),)
    return (
        ops.window_sum(
            cropped,
            window=window,
            strides=(1,) * len(window),
            padding=tuple((max(low, 0), max(high, 0)) for low, high in edges),
        ),
    )


window_sum = register(
    Op(
        "window_sum",
        attrs=("window", "strides", "padding"),
        infer=_window_sum_type,
        vjp=_window_sum_vjp,
        flops=lambda node: float(node.type.size * prod(node.attrs["window"])),
    )
)


# ---- window_max(x; window, strides, padding, dilation), -inf outside, nan wins ----


def _window_max_type(
    x: TensorType, window: Ints, strides: Ints, padding: Pairs, dilation: Ints
) -> TensorType:
    if x.dtype.is_complex or x.dtype.is_bool:
        raise IRTypeError(f"needs ordered numbers, not {x}")
    return x.with_shape(_windows(x, window, strides, padding, dilation))


def _window_max_vjp(ct: Node, out: Node, x: Node, **windows: Ints | Pairs) -> tuple[Node]:
    # the cotangent goes to the first maximum, as in PyTorch
    return (ops.select_scatter(ct, x, **windows),)


WINDOW_ATTRS = ("window", "strides", "padding", "dilation")
_window_flops = lambda node: float(node.type.size * prod(node.attrs["window"]))

window_max = register(
    Op(
        "window_max",
        attrs=WINDOW_ATTRS,
        infer=_window_max_type,
        vjp=_window_max_vjp,
        flops=_window_flops,
    )
)


# ---- select_scatter(ct, x; ...): ct added at the position of each window's first maximum ----


def _select_scatter_type(
    ct: TensorType, x: TensorType, window: Ints, strides: Ints, padding: Pairs, dilation: Ints
) -> TensorType:
    expected = _window_max_type(x, window, strides, padding, dilation).shape
    if ct.shape != expected:
        raise IRTypeError(f"the windows of {x} yield shape {expected}, the first operand is {ct}")
    return x.with_dtype(ct.dtype)


def _select_scatter_vjp(
    ct: Node, out: Node, values: Node, x: Node, **windows: Ints | Pairs
) -> tuple[Node, None]:
    # linear in the values; constant in x, which only chooses positions
    return ops.select_gather(ct, x, **windows), None


select_scatter = register(
    Op(
        "select_scatter",
        attrs=WINDOW_ATTRS,
        infer=_select_scatter_type,
        vjp=_select_scatter_vjp,
        flops=lambda node: float(node.inputs[0].type.size * prod(node.attrs["window"])),
    )
)


# ---- select_gather(t, x; ...): t read at the position of each window's first maximum in x ----


def _select_gather_type(
    t: TensorType, x: TensorType, window: Ints, strides: Ints, padding: Pairs, dilation: Ints
) -> TensorType:
    if t.shape != x.shape:
        raise IRTypeError(f"shapes differ: {t} and {x}")
    return t.with_shape(_window_max_type(x, window, strides, padding, dilation).shape)


def _select_gather_vjp(
    ct: Node, out: Node, t: Node, x: Node, **windows: Ints | Pairs
) -> tuple[Node, None]:
    # the transpose of select_scatter and back
    return ops.select_scatter(ct, x, **windows), None


select_gather = register(
    Op(
        "select_gather",
        attrs=WINDOW_ATTRS,
        infer=_select_gather_type,
        vjp=_select_gather_vjp,
        flops=_window_flops,
    )
)
