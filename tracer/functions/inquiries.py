"""Questions about tensors and dtypes that need no values."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.ir.graph import placeholder
from tracegrad.ir.ops import literal
from tracegrad.ir.types import DType, TensorType
from tracegrad.tracer.dispatch import Weak
from tracegrad.tracer.dtypes import as_dtype
from tracegrad.tracer.errors import ArgumentError
from tracegrad.tracer.functions import promotion
from tracegrad.tracer.state import get_default_dtype


def is_tensor(obj: Any) -> bool:
    """Whether obj is a tensor."""
    from tracegrad.tracer.tensor import Tensor  # tensors come after functions

    return isinstance(obj, Tensor)


def is_floating_point(input: Any) -> bool:
    """Whether the dtype is floating."""
    return bool(input.dtype.is_float)


def is_complex(input: Any) -> bool:
    """Whether the dtype is complex."""
    return bool(input.dtype.is_complex)


def numel(input: Any) -> int:
    """Number of elements."""
    return int(input.numel())


def promote_types(type1: DType, type2: DType) -> DType:
    """The smallest dtype that both convert to."""
    return promotion.promote_types(type1, type2)


def can_cast(from_: DType, to: DType) -> bool:
    """Whether an in-place op may store from_ in to."""
    return promotion.can_cast(from_, to)


def result_type(tensor1: Any, tensor2: Any) -> DType:
    """The dtype of an operation on both, tensors or numbers."""

    def operand(value: Any) -> Any:
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, (bool, int, float, complex)):
            return Weak(literal(value), type(value).__name__)
        return placeholder(TensorType(tuple(value.shape), value.dtype))

    return promotion.result_dtype(operand(tensor1), operand(tensor2))


class finfo:
    """Limits of a floating dtype (the default one): bits, eps, max, min, tiny, resolution."""

    def __init__(self, dtype: DType | None = None):
        dtype = as_dtype(dtype) or get_default_dtype()
        if not dtype.is_inexact:
            raise ArgumentError(
                f"finfo() needs a floating dtype, not {dtype}", fix="iinfo() is of integers"
            )
        import ml_dtypes  # knows bfloat16's

        limits = ml_dtypes.finfo(dtype.np)
        self.dtype = dtype.public_name
        self.bits = int(limits.bits)
        self.eps, self.max, self.min = float(limits.eps), float(limits.max), float(limits.min)
        self.tiny = self.smallest_normal = float(limits.tiny)
        self.resolution = float(limits.resolution)

    def __repr__(self) -> str:
        limits = f"min={self.min:g}, max={self.max:g}, eps={self.eps:g}, tiny={self.tiny:g}"
        return f"finfo({limits}, dtype={self.dtype})"


class iinfo:
    """Limits of an integer dtype: bits, max, min."""

    def __init__(self, dtype: DType):
        known = as_dtype(dtype)
        if known is None or not known.is_int:
            raise ArgumentError(
                f"iinfo() needs an integer dtype, not {dtype}", fix="finfo() is of floats"
            )
        limits = np.iinfo(known.np)
        self.dtype = known.public_name
        self.bits, self.max, self.min = int(limits.bits), int(limits.max), int(limits.min)

    def __repr__(self) -> str:
        return f"iinfo(min={self.min}, max={self.max}, dtype={self.dtype})"


PLAIN = (
    is_tensor,
    is_floating_point,
    is_complex,
    numel,
    promote_types,
    can_cast,
    result_type,
    finfo,
    iinfo,
)
