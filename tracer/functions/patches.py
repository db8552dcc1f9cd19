"""Sliding patches of images as columns, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node
from tracegrad.ir.ops.shape import take_range
from tracegrad.ir.types import TensorType
from tracegrad.tracer.dispatch import user_op
from tracegrad.tracer.functions.axes import reshape
from tracegrad.tracer.functions.convolution import Ints, batched, sizes, unbatched
from tracegrad.tracer.functions.pooling import output_size
from tracegrad.tracer.functions.promotion import Operand


def _patch_positions(size: int, kernel: int, stride: int, pad: int, dilation: int) -> np.ndarray:
    """[windows, kernel]: positions in the padded input."""
    count = output_size(size, kernel, stride, pad, dilation, False)
    if count < 1:
        raise IRTypeError(f"a padded size of {size + 2 * pad} is smaller than the kernel's reach")
    return (np.arange(count)[:, None] * stride + np.arange(kernel) * dilation).astype(np.int64)


def _grid(
    spatial: Ints, kernel: Ints, strides: Ints, pads: Ints, dilation: Ints
) -> tuple[Node, Node]:
    """Row and column index of every element of every patch: [OH, KH, OW, KW]."""
    rows, columns = map(_patch_positions, spatial, kernel, strides, pads, dilation)
    shape = (*rows.shape, *columns.shape)
    return (
        ops.broadcast_to(ops.literal(rows), shape=shape, dims=(0, 1)),
        ops.broadcast_to(ops.literal(columns), shape=shape, dims=(2, 3)),
    )


@user_op(shown="unfold")
def unfold_image(
    input: Operand, /, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Node:
    """Sliding patches of [N, C, H, W] as columns: [N, C * KH * KW, positions]."""
    x, lacked = batched("unfold", input, 2)
    kernel, holes = sizes(kernel_size, 2, "kernel_size"), sizes(dilation, 2, "dilation")
    steps, pads = sizes(stride, 2, "stride"), sizes(padding, 2, "padding")
    grid = _grid(x.shape[2:], kernel, steps, pads, holes)
    around = (0, 0, *pads)
    padded = ops.pad(
        x, ops.splat(0, TensorType((), x.dtype)), low=around, high=around, interior=(0,) * 4
    )
    taken = ops.gather(padded, *grid, axes=(2, 3))  # [OH, KH, OW, KW, N, C]
    columns = ops.transpose(taken, perm=(4, 5, 1, 3, 0, 2))
    n, c, kh, kw, oh, ow = columns.shape
    return unbatched(reshape(columns, (n, c * kh * kw, oh * ow)), lacked)


@user_op(shown="fold")
def fold_image(
    input: Operand,
    /,
    output_size: Any,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
) -> Node:
    """The adjoint of unfold: columns [N, C * KH * KW, positions] summed into [N, C, H, W]."""
    x, lacked = batched("fold", input, 1)
    kernel, holes = sizes(kernel_size, 2, "kernel_size"), sizes(dilation, 2, "dilation")
    steps, pads = sizes(stride, 2, "stride"), sizes(padding, 2, "padding")
    size = sizes(output_size, 2, "output_size")
    rows, columns = _grid(size, kernel, steps, pads, holes)
    oh, kh, ow, kw = rows.shape
    channels = x.shape[1] // (kh * kw)
    if x.shape[1:] != (channels * kh * kw, oh * ow):
        raise IRTypeError(
            f"fold(): input {list(x.shape)} does not hold {oh} x {ow} patches of {kernel}"
        )
    parts = ops.transpose(
        reshape(x, (x.shape[0], channels, kh, kw, oh, ow)), perm=(4, 2, 5, 3, 0, 1)
    )
    whole = tuple(n + 2 * p for n, p in zip(size, pads))
    base = ops.splat(0, TensorType((x.shape[0], channels, *whole), x.dtype))
    image = ops.scatter(base, rows, columns, parts, axes=(2, 3), mode="add")
    for axis, (n, p) in enumerate(zip(size, pads), start=2):
        image = take_range(image, axis, p, p + n)
    return unbatched(image, lacked)
