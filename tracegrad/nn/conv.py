"""Convolutions: Conv1d/2d/3d and ConvTranspose1d/2d/3d. Channels first, weights as in PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tracegrad as tg
from tracegrad.nn import functional as F
from tracegrad.nn import init
from tracegrad.nn.module import Module
from tracegrad.nn.parameter import Parameter
from tracegrad.tracer import Tensor
from tracegrad.tracer.errors import InvalidValueError


def ntuple(value: Any, count: int) -> tuple[int, ...]:
    """`value` repeated `count` times, or itself when it is a sequence already."""
    return (value,) * count if isinstance(value, int) else tuple(value)


_PAD_MODES = ("zeros", "reflect", "replicate", "circular")


class _Convolution(Module):
    """What convolutions and their transposes share; subclasses give the function of their rank."""

    _rank: int
    _convolve: Callable[..., Tensor]
    transposed = False

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
        padding: Any = 0, dilation: Any = 1, groups: int = 1, bias: bool = True,
        padding_mode: str = "zeros", device: Any = None, dtype: Any = None,
        output_padding: Any = 0,
    ):  # fmt: skip
        super().__init__()
        if groups <= 0:
            raise InvalidValueError("groups must be a positive integer")
        if in_channels % groups:
            raise InvalidValueError("in_channels must be divisible by groups")
        if out_channels % groups:
            raise InvalidValueError("out_channels must be divisible by groups")
        if padding_mode not in _PAD_MODES:
            raise InvalidValueError(
                f"padding_mode must be one of {set(_PAD_MODES)}, but got "
                f"padding_mode='{padding_mode}'"
            )
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise InvalidValueError(
                    f"Invalid padding string {padding!r}, should be one of {{'valid', 'same'}}"
                )
            if padding == "same" and any(s != 1 for s in ntuple(stride, self._rank)):
                raise InvalidValueError("padding='same' is not supported for strided convolutions")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = ntuple(kernel_size, self._rank)
        self.stride = ntuple(stride, self._rank)
        self.padding = padding if isinstance(padding, str) else ntuple(padding, self._rank)
        self.dilation = ntuple(dilation, self._rank)
        self.output_padding = ntuple(output_padding, self._rank)
        self.groups = groups
        self.padding_mode = padding_mode
        leading = (
            (in_channels, out_channels // groups)
            if self.transposed
            else (out_channels, in_channels // groups)
        )
        factory = {"device": device, "dtype": dtype}
        self.weight = Parameter(tg.empty(*leading, *self.kernel_size, **factory))
        if bias:
            self.bias = Parameter(tg.empty(out_channels, **factory))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values afresh: U(+-1/sqrt(fan_in)), weight and bias."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in = self.weight.shape[1] * math.prod(self.kernel_size)
            if fan_in:
                init.uniform_(self.bias, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))

    def extra_repr(self) -> str:
        text = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}"
        )
        if self.padding != (0,) * self._rank:
            text += f", padding={self.padding}"
        if self.dilation != (1,) * self._rank:
            text += f", dilation={self.dilation}"
        if self.output_padding != (0,) * self._rank:
            text += f", output_padding={self.output_padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return text


class _Conv(_Convolution):
    def forward(self, input: Tensor) -> Tensor:
        input, padding = self._padded(input)
        return self._convolve(
            input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )

    def _padded(self, input: Tensor) -> tuple[Tensor, Any]:
        """The input and the padding that is left for the convolution itself."""
        if self.padding_mode == "zeros":
            return input, self.padding
        return F.pad(input, self._pad_widths(), mode=self.padding_mode), 0

    def _pad_widths(self) -> list[int]:
        """(low, high) of each axis, last axis first, as `F.pad` takes them."""
        if self.padding == "valid":
            return [0] * (2 * self._rank)
        widths = []
        for axis in reversed(range(self._rank)):
            if self.padding == "same":
                total = self.dilation[axis] * (self.kernel_size[axis] - 1)
                widths += [total // 2, total - total // 2]
            else:
                widths += [self.padding[axis]] * 2  # type: ignore[list-item]
        return widths


class Conv1d(_Conv):
    """Cross-correlation over [N, C, L]; weight [out, in / groups, k]."""

    _rank = 1
    _convolve = staticmethod(F.conv1d)


class Conv2d(_Conv):
    """Cross-correlation over [N, C, H, W]; weight [out, in / groups, kh, kw]."""

    _rank = 2
    _convolve = staticmethod(F.conv2d)


class Conv3d(_Conv):
    """Cross-correlation over [N, C, D, H, W]; weight [out, in / groups, kd, kh, kw]."""

    _rank = 3
    _convolve = staticmethod(F.conv3d)


class _ConvTranspose(_Convolution):
    transposed = True

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
        padding: Any = 0, output_padding: Any = 0, groups: int = 1, bias: bool = True,
        dilation: Any = 1, padding_mode: str = "zeros", device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        if padding_mode != "zeros":
            raise InvalidValueError(
                f'Only "zeros" padding mode is supported for {type(self).__name__}'
            )
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            padding_mode, device, dtype, output_padding,
        )  # fmt: skip

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        return self._convolve(
            input, self.weight, self.bias, self.stride, self.padding,
            self._output_padding(input, output_size), self.groups, self.dilation,
        )  # fmt: skip

    def _output_padding(self, input: Tensor, output_size: Any) -> tuple[int, ...]:
        """The extra high-side rows that make the result `output_size`."""
        if output_size is None:
            return self.output_padding
        wanted = tuple(output_size)[-self._rank :]
        extra = []
        for axis, size in enumerate(tuple(input.shape)[-self._rank :]):
            least = (
                (size - 1) * self.stride[axis]
                - 2 * self.padding[axis]
                + self.dilation[axis] * (self.kernel_size[axis] - 1)
                + 1
            )
            most = least + self.stride[axis] - 1
            if not least <= wanted[axis] <= most:
                raise InvalidValueError(
                    f"requested an output size of {list(wanted)}, but axis {axis} can only be "
                    f"{least} to {most} for an input of {list(input.shape)}"
                )
            extra.append(wanted[axis] - least)
        return tuple(extra)


class ConvTranspose1d(_ConvTranspose):
    """Gradient of Conv1d with respect to its input; weight [in, out / groups, k]."""

    _rank = 1
    _convolve = staticmethod(F.conv_transpose1d)


class ConvTranspose2d(_ConvTranspose):
    """Gradient of Conv2d with respect to its input; weight [in, out / groups, kh, kw]."""

    _rank = 2
    _convolve = staticmethod(F.conv_transpose2d)


class ConvTranspose3d(_ConvTranspose):
    """Gradient of Conv3d with respect to its input; weight [in, out / groups, kd, kh, kw]."""

    _rank = 3
    _convolve = staticmethod(F.conv_transpose3d)
