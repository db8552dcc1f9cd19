"""Pooling over windows of the last one, two or three dimensions, and sliding patches."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from operator import index
from typing import Any

import numpy as np

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node
from tracegrad.ir.ops.build import full_like, wide_dtype
from tracegrad.ir.types import i64
from tracegrad.tracer.dispatch import user_op
from tracegrad.tracer.functions.axes import moved, reshape
from tracegrad.tracer.functions.convolution import Ints, batched, sizes, unbatched
from tracegrad.tracer.functions.promotion import Operand, cast, expand, require_dtype, to_float
from tracegrad.tracer.functions.reductions import averaged


def output_size(
    size: int, kernel: int, stride: int, pad: int, dilation: int, ceil_mode: bool
) -> int:
    """Number of windows. With ceil_mode a last window may start inside the input or the left
    padding only.
    """
    room = size + 2 * pad - dilation * (kernel - 1) - 1
    if not ceil_mode:
        return room // stride + 1
    count = -(-room // stride) + 1
    return count - 1 if (count - 1) * stride >= size + pad else count


class Windows:
    """Parsed arguments of a pooling: the IR's attributes and the number of windows along every
    axis.
    """

    def __init__(
        self,
        name: str,
        x: Node,
        rank: int,
        kernel: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        ceil: bool,
    ):
        self.kernel = sizes(kernel, rank, "kernel_size")
        self.strides = self.kernel if stride in (None, ()) else sizes(stride, rank, "stride")
        self.pads = sizes(padding, rank, "padding")
        self.dilation = sizes(dilation, rank, "dilation")
        self.spatial = x.shape[2:]
        if any(2 * p > k for p, k in zip(self.pads, self.kernel)):
            raise IRTypeError(
                f"{name}(): padding {self.pads} must be at most half of kernel {self.kernel}"
            )
        self.counts = tuple(
            output_size(n, k, s, p, d, ceil)
            for n, k, s, p, d in zip(
                self.spatial, self.kernel, self.strides, self.pads, self.dilation
            )
        )
        if any(count < 1 for count in self.counts):
            raise IRTypeError(
                f"{name}(): input {list(x.shape)} is smaller than the kernel {self.kernel}"
            )
        # The high padding is what the last window reaches beyond the input, never negative.
        reach = [
            (c - 1) * s + d * (k - 1) + 1 - n - p
            for c, s, d, k, n, p in zip(
                self.counts, self.strides, self.dilation, self.kernel, self.spatial, self.pads
            )
        ]
        self.padding = tuple((p, max(r, 0)) for p, r in zip(self.pads, reach))


def _max_pool(
    rank: int,
    input: Operand,
    kernel: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
) -> tuple[Node, Windows, Node, bool]:
    x, lacked = batched(f"max_pool{rank}d", input, rank)
    windows = Windows(f"max_pool{rank}d", x, rank, kernel, stride, padding, dilation, ceil_mode)
    pooled = ops.window_max(
        x,
        window=windows.kernel,
        strides=windows.strides,
        padding=windows.padding,
        dilation=windows.dilation,
    )
    return pooled, windows, x, lacked


def _make_max_pool(rank: int) -> Any:
    def emit(
        input: Operand,
        /,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
    ) -> Node:
        pooled, _, _, lacked = _max_pool(
            rank, input, kernel_size, stride, padding, dilation, ceil_mode
        )
        return unbatched(pooled, lacked)

    emit.__name__ = emit.__qualname__ = f"max_pool{rank}d"
    emit.__doc__ = (
        f"The largest element of every window of the last {rank} dimensions; "
        "padding counts as -inf."
    )
    return user_op(emit)


def _make_max_pool_with_indices(rank: int) -> Any:
    def emit(
        input: Operand,
        /,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
    ) -> tuple[Node, Node]:
        pooled, w, x, lacked = _max_pool(
            rank, input, kernel_size, stride, padding, dilation, ceil_mode
        )
        count = int(np.prod(w.spatial))
        numbers = ops.broadcast_to(
            reshape(ops.iota(shape=(count,), axis=0, dtype=i64), w.spatial),
            shape=x.shape,
            dims=tuple(range(2, 2 + rank)),
        )
        index = ops.select_gather(
            numbers, x, window=w.kernel, strides=w.strides, padding=w.padding, dilation=w.dilation
        )
        return unbatched(pooled, lacked), unbatched(index, lacked)

    emit.__name__ = emit.__qualname__ = f"max_pool{rank}d_with_indices"
    emit.__doc__ = f"max_pool{rank}d, and the flat spatial index of every maximum."
    return user_op(emit)


max_pool1d, max_pool2d, max_pool3d = map(_make_max_pool, (1, 2, 3))
max_pool1d_with_indices, max_pool2d_with_indices, max_pool3d_with_indices = map(
    _make_max_pool_with_indices, (1, 2, 3)
)


def _avg_pool(
    rank: int,
    input: Operand,
    kernel: Any,
    stride: Any,
    padding: Any,
    ceil: bool,
    include_pad: bool,
    divisor: int | None,
) -> Node:
    name = f"avg_pool{rank}d"
    x, lacked = batched(name, input, rank)
    require_dtype(name, (x,), "f")
    w = Windows(name, x, rank, kernel, stride, padding, 1, ceil)
    total = ops.window_sum(x, window=w.kernel, strides=w.strides, padding=w.padding)
    if divisor is not None:
        if not divisor:
            raise IRTypeError(f"{name}(): divisor_override must not be 0")
        return unbatched(ops.div(total, full_like(total, float(divisor))), lacked)
    # A window that ceil_mode lets stick out counts only its part within input and padding.
    counts = np.ones((), np.float64)
    for n, k, s, p, c in zip(w.spatial, w.kernel, w.strides, w.pads, w.counts):
        start = np.arange(c) * s - p
        stop = np.minimum(start + k, n + p)
        if not include_pad:
            start, stop = np.maximum(start, 0), np.minimum(stop, n)
        counts = counts[..., None] * (stop - start)
    if (counts == counts.flat[0]).all():
        return unbatched(ops.div(total, full_like(total, float(counts.flat[0]))), lacked)
    table = cast(ops.literal(counts), x.dtype)
    spread = ops.broadcast_to(table, shape=total.shape, dims=tuple(range(2, 2 + rank)))
    return unbatched(ops.div(total, spread), lacked)


def _make_avg_pool(rank: int) -> Any:
    def emit(
        input: Operand, /, kernel_size: Any, stride: Any = None, padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> Node:  # fmt: skip
        return _avg_pool(
            rank,
            input,
            kernel_size,
            stride,
            padding,
            ceil_mode,
            count_include_pad,
            divisor_override,
        )

    emit.__name__ = emit.__qualname__ = f"avg_pool{rank}d"
    emit.__doc__ = (
        f"The mean of every window of the last {rank} dimensions; "
        "padding counts as 0 unless excluded."
    )
    return user_op(emit)


avg_pool1d, avg_pool2d, avg_pool3d = map(_make_avg_pool, (1, 2, 3))


@user_op
def lp_pool2d(
    input: Operand,
    /,
    norm_type: float,
    kernel_size: Any,
    stride: Any = None,
    ceil_mode: bool = False,
) -> Node:
    """(sum x**p) ** (1/p) of every window; one that sticks out counts as if it were whole."""
    x = to_float(input)
    kernel = sizes(kernel_size, 2, "kernel_size")
    powered = ops.pow_(x, full_like(x, float(norm_type)))
    mean = _avg_pool(2, powered, kernel, stride, 0, ceil_mode, True, None)
    return ops.pow_(mean * float(prod(kernel)), full_like(mean, 1.0 / norm_type))


# -------------------------------- adaptive: a given number of windows


def bounds(size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Start and stop of the windows that adaptive pooling uses: they cover, and may overlap."""
    k = np.arange(count)
    return k * size // count, -(-(k + 1) * size // count)


def targets(value: Any, spatial: Ints, rank: int) -> Ints:
    """Output sizes; None keeps an axis."""
    given = (value,) * rank if value is None or isinstance(value, int) else tuple(value)
    if len(given) != rank or any(v is not None and v < 0 for v in given):
        raise IRTypeError(f"output_size {value} must be one size or {rank}, each 0 or more")
    return tuple(n if v is None else index(v) for v, n in zip(given, spatial))


def taken_windows(x: Node, axis: int, count: int) -> tuple[Node, np.ndarray]:
    """`count` windows of one axis as [count, width, rest], and how many elements each really has:
    shorter windows repeat their last element.
    """
    start, stop = bounds(x.shape[axis], count)
    width = int((stop - start).max())
    index = np.minimum(start[:, None] + np.arange(width), (stop - 1)[:, None])
    return ops.gather(x, ops.literal(index.astype(np.int64)), axes=(axis,)), stop - start


def mean_axis(x: Node, axis: int, count: int) -> Node:
    taken, lengths = taken_windows(x, axis, count)
    width = taken.shape[1]
    ones = (1,) * (taken.ndim - 2)
    if (lengths < width).any():
        inside = ops.literal((np.arange(width) < lengths[:, None]).reshape(count, width, *ones))
        taken = ops.where(expand(inside, taken.shape), taken, ops.zeros_like(taken))
    total = ops.sum_(cast(taken, wide_dtype(x.dtype)), axes=(1,))
    divisor = cast(ops.literal(lengths.astype(np.float64).reshape(count, *ones)), total.dtype)
    return moved(cast(ops.div(total, expand(divisor, total.shape)), x.dtype), 0, axis)


def _max_axis(x: Node, axis: int, count: int) -> Node:
    taken, _ = taken_windows(x, axis, count)
    best = ops.argmax(taken, axis=1)
    one = ops.take_along(taken, reshape(best, (count, 1, *taken.shape[2:])), axis=1)
    return moved(reshape(one, (count, *taken.shape[2:])), 0, axis)


def _adaptive(
    rank: int,
    kind: str,
    input: Operand,
    output: Any,
    regular: Callable[..., Node],
    one_axis: Callable[..., Node],
) -> Node:
    name = f"adaptive_{kind}_pool{rank}d"
    x, lacked = batched(name, input, rank)
    require_dtype(name, (x,), "f")
    spatial = x.shape[2:]
    counts = targets(output, spatial, rank)
    if 0 in counts:
        return unbatched(ops.splat(0, x.type.with_shape((*x.shape[:2], *counts))), lacked)
    if all(n % c == 0 for n, c in zip(spatial, counts)):
        return unbatched(regular(x, tuple(n // c for n, c in zip(spatial, counts))), lacked)
    for k, count in enumerate(counts):
        if x.shape[2 + k] != count:
            x = one_axis(x, 2 + k, count)
    return unbatched(x, lacked)


def _split_windows(x: Node, kernel: Ints) -> tuple[Node, Ints]:
    """Non-overlapping windows as axes of their own, and which axes those are."""
    shape = x.shape[:2] + tuple(m for n, k in zip(x.shape[2:], kernel) for m in (n // k, k))
    return reshape(x, shape), tuple(range(3, 3 + 2 * len(kernel), 2))


def _regular_mean(x: Node, kernel: Ints) -> Node:
    windows, axes = _split_windows(x, kernel)
    return averaged(windows, axes)


def _regular_max(x: Node, kernel: Ints) -> Node:
    rank = len(kernel)
    return ops.window_max(
        x, window=kernel, strides=kernel, padding=((0, 0),) * rank, dilation=(1,) * rank
    )


def _make_adaptive(rank: int, kind: str) -> Any:
    regular, one_axis = (_regular_mean, mean_axis) if kind == "avg" else (_regular_max, _max_axis)

    def emit(input: Operand, /, output_size: Any) -> Node:
        return _adaptive(rank, kind, input, output_size, regular, one_axis)

    emit.__name__ = emit.__qualname__ = f"adaptive_{kind}_pool{rank}d"
    word = "mean" if kind == "avg" else "maximum"
    emit.__doc__ = f"The {word} of output_size windows that cover the last {rank} dimensions."
    return user_op(emit)


adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d = (
    _make_adaptive(r, "avg") for r in (1, 2, 3)
)
adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d = (
    _make_adaptive(r, "max") for r in (1, 2, 3)
)
