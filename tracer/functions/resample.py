"""Resizing images: interpolate, pixel shuffles, grid_sample."""

from __future__ import annotations

import math
from operator import index
from typing import Any

import numpy as np

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node
from tracegrad.ir.ops.build import full_like
from tracegrad.ir.ops.shape import take_range
from tracegrad.ir.types import f32, i64, u8
from tracegrad.tracer.dispatch import user_op
from tracegrad.tracer.errors import InvalidValueError, UnsupportedError
from tracegrad.tracer.functions.activations import clipped, floating
from tracegrad.tracer.functions.axes import moved, reshape
from tracegrad.tracer.functions.pooling import mean_axis
from tracegrad.tracer.functions.promotion import Operand, as_node, cast

MODES = {
    "nearest": None,
    "nearest-exact": None,
    "linear": 1,
    "bilinear": 2,
    "bicubic": 2,
    "trilinear": 3,
    "area": None,
}


@user_op
def interpolate_(
    input: Operand,
    /,
    *,
    size: Any,
    scale_factor: Any,
    mode: str,
    align_corners: bool,
    recompute: bool,
) -> Node:
    """Resize the spatial dimensions."""
    x = as_node(input)
    rank = x.ndim - 2
    if mode not in MODES or MODES[mode] not in (None, rank) or rank < 1:
        raise IRTypeError(f"interpolate(mode={mode!r}) of a tensor of shape {list(x.shape)}")
    if (size is None) == (scale_factor is None):
        raise IRTypeError("interpolate() needs either size or scale_factor")
    bytes_too = mode in ("nearest", "nearest-exact", "bilinear", "bicubic")
    if not (x.dtype.is_float or (x.dtype is u8 and bytes_too)):
        raise IRTypeError(
            f"interpolate(mode={mode!r}) does not take {x.dtype.public_name} tensors; cast to float"
        )
    if size is not None:
        target = (size,) * rank if isinstance(size, int) else tuple(map(index, size))
        factors: tuple[float | None, ...] = (None,) * rank
    else:
        given = (
            (scale_factor,) * rank
            if isinstance(scale_factor, (int, float))
            else tuple(scale_factor)
        )
        target = tuple(math.floor(n * f) for n, f in zip(x.shape[2:], given))
        factors = (None,) * rank if recompute else given
    if min(target) < 1 or 0 in x.shape[2:]:
        raise IRTypeError(
            f"interpolate() from {list(x.shape[2:])} to {list(target)}: sizes above 0"
        )
    blended = x.dtype is u8 and mode in ("bilinear", "bicubic")
    y = cast(x, f32) if blended else x
    for k, (count, factor) in reversed(list(enumerate(zip(target, factors)))):
        y = _resized(y, 2 + k, count, factor, mode, align_corners, whole=blended)
        if blended:  # every axis is rounded to whole bytes, as in PyTorch
            y = clipped(ops.floor(y + 0.5), 0.0, 255.0)
    return cast(y, x.dtype)


def interpolate(
    input: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Any:
    """[N, C, ..] resized to `size` or by `scale_factor`: nearest, nearest-exact, linear, bilinear,
    bicubic, trilinear or area."""
    if antialias:
        raise UnsupportedError(
            "interpolate(antialias=True)", fix="blur the input before it is reduced"
        )
    if align_corners is not None and mode in ("nearest", "nearest-exact", "area"):
        raise InvalidValueError(
            f"interpolate(mode={mode!r}, align_corners={align_corners})",
            why="it says where the corners lie that linear, bilinear, bicubic and trilinear modes blend",
            fix="leave align_corners away",
        )
    for name, given in (("size", size), ("scale_factor", scale_factor)):
        if isinstance(given, (tuple, list)) and len(given) != input.ndim - 2:
            raise InvalidValueError(
                f"interpolate({name}={tuple(given)}) of a tensor of shape {list(input.shape)}",
                why=f"its spatial dimensions are {list(input.shape[2:])}",
                fix=f"give one number, or one for each of them in {name}",
            )
    return interpolate_(
        input,
        size=size,
        scale_factor=scale_factor,
        mode=mode,
        align_corners=bool(align_corners),
        recompute=bool(recompute_scale_factor),
    )


def _taken(x: Node, axis: int, place: np.ndarray) -> Node:
    if x.shape[axis] == place.size and (place == np.arange(place.size)).all():
        return x
    return moved(ops.gather(x, ops.literal(place.astype(np.int64)), axes=(axis,)), 0, axis)


def _weighted(x: Node, axis: int, weight: np.ndarray) -> Node:
    column = cast(ops.literal(weight), x.dtype)
    return ops.mul(x, ops.broadcast_to(column, shape=x.shape, dims=(axis,)))


def _in_sixteen_bits(weights: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Weights as PyTorch has them for bytes: fixed-point numbers that fit 16 bits."""
    largest = max(weight.max(initial=0.0) for weight in weights)
    scale = 2.0 ** next(bits for bits in range(23) if 0.5 + largest * 2.0 ** (bits + 1) >= 2**15)
    return tuple(np.trunc(w * scale + np.copysign(0.5, w)) / scale for w in weights)


def _resized(
    x: Node, axis: int, count: int, factor: float | None, mode: str, align: bool, whole: bool
) -> Node:
    size = x.shape[axis]
    step = size / count if factor is None else 1.0 / factor  # of input per output element
    k = np.arange(count)
    if mode == "nearest":
        return _taken(
            x, axis, np.minimum(np.floor(k * np.float32(step)), size - 1).astype(np.int64)
        )
    if mode == "nearest-exact":
        return _taken(x, axis, np.minimum(np.floor((k + 0.5) * step), size - 1))
    if mode == "area":
        return x if count == size else mean_axis(x, axis, count)
    if align:
        place = k * ((size - 1) / (count - 1)) if count > 1 else np.zeros(1)
    else:
        place = (k + 0.5) * step - 0.5
        if mode != "bicubic":
            place = np.maximum(place, 0.0)
    if mode == "bicubic":
        return _cubic(x, axis, place, whole)
    low = np.minimum(np.floor(place), size - 1)
    share = place - low
    high = np.minimum(low + 1, size - 1)
    if not share.any():
        return _taken(x, axis, low)
    weights = (1 - share, share)
    near, far = _in_sixteen_bits(weights) if whole else weights
    return ops.add(
        _weighted(_taken(x, axis, low), axis, near),
        _weighted(_taken(x, axis, high), axis, far),
    )


def _cubic(x: Node, axis: int, place: np.ndarray, whole: bool) -> Node:
    """Cubic convolution with a = -0.75 (Keys 1981)."""
    a = -0.75
    low = np.floor(place)
    t = place - low

    def near(d: np.ndarray) -> np.ndarray:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: np.ndarray) -> np.ndarray:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    weights: tuple[np.ndarray, ...] = (far(t + 1), near(t), near(1 - t), far(2 - t))
    weights = _in_sixteen_bits(weights) if whole else weights
    total = None
    for offset, weight in zip((-1, 0, 1, 2), weights):
        at = np.clip(low + offset, 0, x.shape[axis] - 1)
        term = _weighted(_taken(x, axis, at), axis, weight)
        total = term if total is None else ops.add(total, term)
    assert total is not None
    return total


@user_op
def pixel_shuffle(input: Operand, /, upscale_factor: int) -> Node:
    """[.., C r r, H, W] as [.., C, H r, W r]."""
    x, r = as_node(input), upscale_factor
    *lead, c, h, w = _image("pixel_shuffle", x, r)
    if c % (r * r):
        raise IRTypeError(f"pixel_shuffle(): {c} channels are not a multiple of {r} * {r}")
    n = len(lead)
    split = reshape(x, (*lead, c // (r * r), r, r, h, w))
    turned = ops.transpose(split, perm=(*range(n + 1), n + 3, n + 1, n + 4, n + 2))
    return reshape(turned, (*lead, c // (r * r), h * r, w * r))


def _image(name: str, x: Node, factor: int) -> tuple[int, ...]:
    """The shape [.., C, H, W]."""
    if x.ndim < 3 or factor < 1:
        raise IRTypeError(
            f"{name}() needs [.., C, H, W] and a factor above 0, got {list(x.shape)} and {factor}"
        )
    return x.shape


@user_op
def pixel_unshuffle(input: Operand, /, downscale_factor: int) -> Node:
    """[.., C, H r, W r] as [.., C r r, H, W]."""
    x, r = as_node(input), downscale_factor
    *lead, c, h, w = _image("pixel_unshuffle", x, r)
    if h % r or w % r:
        raise IRTypeError(f"pixel_unshuffle(): {h} x {w} is not a multiple of {r}")
    n = len(lead)
    split = reshape(x, (*lead, c, h // r, r, w // r, r))
    turned = ops.transpose(split, perm=(*range(n + 1), n + 2, n + 4, n + 1, n + 3))
    return reshape(turned, (*lead, c * r * r, h // r, w // r))


@user_op
def channel_shuffle(input: Operand, /, groups: int) -> Node:
    """Channels of the groups interleaved."""
    x = as_node(input)
    if x.ndim < 3 or groups < 1 or x.shape[1] % groups:
        raise IRTypeError(f"channel_shuffle() of {list(x.shape)} into {groups} groups of channels")
    n, c, *rest = x.shape
    split = reshape(x, (n, groups, c // groups, *rest))
    return reshape(ops.transpose(split, perm=(0, 2, 1, *range(3, split.ndim))), x.shape)


@user_op
def affine_grid(theta: Operand, /, size: Any, align_corners: bool = False) -> Node:
    """Sampling positions [N, H, W, 2] of affine maps theta[N, 2, 3]."""
    t = floating("affine_grid", theta)
    if len(size) != 4 or t.shape != (size[0], 2, 3):
        raise IRTypeError(
            f"affine_grid() needs theta[N, 2, 3] and size (N, C, H, W), got {list(t.shape)} and {size}"
        )
    n, _, h, w = size
    lines = []
    for count in (h, w):
        line = np.linspace(-1, 1, count) if count > 1 else np.zeros(1)
        lines.append(line if align_corners else line * (count - 1) / count)
    rows, columns = np.meshgrid(*lines, indexing="ij")
    base = np.stack([columns, rows, np.ones_like(rows)], axis=-1).reshape(h * w, 3)
    points = ops.broadcast_to(cast(ops.literal(base), t.dtype), shape=(n, h * w, 3), dims=(1, 2))
    return reshape(ops.matmul(points, ops.transpose(t, perm=(0, 2, 1))), (n, h, w, 2))


@user_op
def grid_sample(
    input: Operand,
    grid: Operand,
    /,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
) -> Node:
    """input[N, C, H, W] read at grid[N, OH, OW, 2] (x, y in [-1, 1]): bilinear or nearest."""
    x, g = floating("grid_sample", input), floating("grid_sample", grid)
    fits = x.ndim == 4 and g.ndim == 4 and (g.shape[0], g.shape[3]) == (x.shape[0], 2)
    if not fits or mode not in ("bilinear", "nearest"):
        raise IRTypeError(f"grid_sample(mode={mode!r}) of {list(x.shape)} at {list(g.shape)}")
    if padding_mode not in ("zeros", "border"):
        raise IRTypeError(
            f'grid_sample(): padding_mode must be "zeros" or "border", not {padding_mode!r}'
        )
    n, _, h, w = x.shape
    shape = g.shape[:3]
    places = []
    for k, size in ((1, h), (0, w)):
        unit = reshape(_last(g, k), shape)
        place = (unit + 1) * ((size - 1) / 2) if align_corners else (unit + 1) * (size / 2) - 0.5
        places.append(clipped(place, 0.0, size - 1.0) if padding_mode == "border" else place)
    if mode == "nearest":
        return _corner(x, ops.round_(places[0]), ops.round_(places[1]), None)
    top, left = map(ops.floor, places)
    down, right = ops.sub(places[0], top), ops.sub(places[1], left)
    total = None
    for dy, wy in ((0.0, 1 - down), (1.0, down)):
        for dx, wx in ((0.0, 1 - right), (1.0, right)):
            term = _corner(x, top + dy, left + dx, ops.mul(wy, wx))
            total = term if total is None else ops.add(total, term)
    assert total is not None
    return total


def _last(x: Node, k: int) -> Node:
    return take_range(x, x.ndim - 1, k, k + 1)


def _corner(x: Node, row: Node, column: Node, weight: Node | None) -> Node:
    """x at integer-valued positions [N, OH, OW] as [N, C, OH, OW], times weight; 0 outside."""
    n, _, h, w = x.shape
    inside = None
    indices = []
    for place, size in ((row, h), (column, w)):
        fits = ops.and_(
            ops.le(ops.zeros_like(place), place), ops.le(place, full_like(place, size - 1.0))
        )
        inside = fits if inside is None else ops.and_(inside, fits)
        indices.append(ops.cast(clipped(place, 0.0, size - 1.0), dtype=i64))
    assert inside is not None
    sample = ops.iota(shape=row.shape, axis=0, dtype=i64)
    taken = ops.gather(x, sample, *indices, axes=(0, 2, 3))  # [N, OH, OW, C]
    factor = cast(inside, x.dtype)
    if weight is not None:
        factor = ops.mul(factor, weight)
    scaled = ops.mul(taken, ops.broadcast_to(factor, shape=taken.shape, dims=(0, 1, 2)))
    return ops.transpose(scaled, perm=(0, 3, 1, 2))


PLAIN = (interpolate,)
