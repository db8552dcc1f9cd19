"""Padding layers: constants, zeros, mirror images, borders and periods around the last axes."""

from __future__ import annotations

from typing import Any

from tracegrad.nn import functional as F
from tracegrad.nn.module import Module
from tracegrad.tracer import Tensor


class _Pad(Module):
    _rank: int
    mode = "constant"
    value: float | None = None

    def __init__(self, padding: Any):
        super().__init__()
        both = 2 * self._rank
        self.padding = (padding,) * both if isinstance(padding, int) else tuple(padding)

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, self.mode, self.value)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    def __init__(self, padding: Any, value: float):
        super().__init__(padding)
        self.value = value

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class _ZeroPad(_Pad):
    value = 0.0


class _ReflectionPad(_Pad):
    mode = "reflect"


class _ReplicationPad(_Pad):
    mode = "replicate"


class _CircularPad(_Pad):
    mode = "circular"


class ConstantPad1d(_ConstantPad):
    """Pads [N, C, L] by a value."""

    _rank = 1


class ConstantPad2d(_ConstantPad):
    """Pads [N, C, H, W] by a value."""

    _rank = 2


class ConstantPad3d(_ConstantPad):
    """Pads [N, C, D, H, W] by a value."""

    _rank = 3


class ZeroPad1d(_ZeroPad):
    """Pads [N, C, L] by zeros."""

    _rank = 1


class ZeroPad2d(_ZeroPad):
    """Pads [N, C, H, W] by zeros."""

    _rank = 2


class ZeroPad3d(_ZeroPad):
    """Pads [N, C, D, H, W] by zeros."""

    _rank = 3


class ReflectionPad1d(_ReflectionPad):
    """Pads [N, C, L] by its mirror image, without its edge."""

    _rank = 1


class ReflectionPad2d(_ReflectionPad):
    """Pads [N, C, H, W] by its mirror image, without its edge."""

    _rank = 2


class ReflectionPad3d(_ReflectionPad):
    """Pads [N, C, D, H, W] by its mirror image, without its edge."""

    _rank = 3


class ReplicationPad1d(_ReplicationPad):
    """Pads [N, C, L] by its border."""

    _rank = 1


class ReplicationPad2d(_ReplicationPad):
    """Pads [N, C, H, W] by its border."""

    _rank = 2


class ReplicationPad3d(_ReplicationPad):
    """Pads [N, C, D, H, W] by its border."""

    _rank = 3


class CircularPad1d(_CircularPad):
    """Pads [N, C, L] as if it were periodic."""

    _rank = 1


class CircularPad2d(_CircularPad):
    """Pads [N, C, H, W] as if it were periodic."""

    _rank = 2


class CircularPad3d(_CircularPad):
    """Pads [N, C, D, H, W] as if it were periodic."""

    _rank = 3
