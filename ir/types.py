"""Types of values: what a node yields, known before anything runs.

A `TensorType` is a shape and a dtype; a `TupleType` is what an op with several results yields (its
parts are taken out by `proj`). DTypes are a closed set of interned objects, so `is` compares them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from tracegrad.ir.errors import IRTypeError

_NumpyDType = np.dtype[Any]


class DType:
    """One element type. `name` is its spelling in IR text, `np` the NumPy dtype that stores it,
    `public_name` what users know it by: "float32", "int64", "bool".

    `category` orders promotion as PyTorch does: bool < int < float < complex.
    """

    __slots__ = ("name", "np", "category", "public_name", "itemsize")
    np: _NumpyDType

    def __init__(self, name: str, numpy_dtype: _NumpyDType | None, category: str):
        self.name = name
        self.category = category
        self.public_name, self.itemsize = "bfloat16", 2
        if numpy_dtype is not None:
            self.np = numpy_dtype
            self.public_name, self.itemsize = numpy_dtype.name, numpy_dtype.itemsize

    @staticmethod
    def missing(name: str) -> AttributeError:
        """The error for a name that dtypes do not have; the tracer puts one here that explains more."""
        return AttributeError(f"a dtype has no attribute {name!r}", name=name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # Python and its tools ask; no user does
            raise AttributeError(f"a dtype has no attribute {name!r}", name=name)
        if name != "np":
            raise DType.missing(name)
        # NumPy has no bfloat16; the package that does takes its time to import.
        import ml_dtypes

        self.np = np.dtype(ml_dtypes.bfloat16)
        _BY_NUMPY[self.np] = self
        return self.np

    @property
    def is_float(self) -> bool:
        return self.category == "float"

    @property
    def is_complex(self) -> bool:
        return self.category == "complex"

    is_floating_point = is_float  # PyTorch's name

    @property
    def is_signed(self) -> bool:
        return not self.is_bool and not self.name.startswith("u")

    @property
    def is_inexact(self) -> bool:
        return self.category in ("float", "complex")

    @property
    def is_int(self) -> bool:
        return self.category == "int"

    @property
    def is_bool(self) -> bool:
        return self.category == "bool"

    def __repr__(self) -> str:
        return f"tracegrad.{self.public_name}"

    def __reduce__(self) -> tuple[Any, ...]:
        return dtype_named, (self.name,)


bool_ = DType("bool", np.dtype(np.bool_), "bool")
u8 = DType("u8", np.dtype(np.uint8), "int")
i8 = DType("i8", np.dtype(np.int8), "int")
i16 = DType("i16", np.dtype(np.int16), "int")
i32 = DType("i32", np.dtype(np.int32), "int")
i64 = DType("i64", np.dtype(np.int64), "int")
u32 = DType("u32", np.dtype(np.uint32), "int")
u64 = DType("u64", np.dtype(np.uint64), "int")
f16 = DType("f16", np.dtype(np.float16), "float")
bf16 = DType("bf16", None, "float")
f32 = DType("f32", np.dtype(np.float32), "float")
f64 = DType("f64", np.dtype(np.float64), "float")
c64 = DType("c64", np.dtype(np.complex64), "complex")
c128 = DType("c128", np.dtype(np.complex128), "complex")

DTYPES: tuple[DType, ...] = (
    bool_, u8, i8, i16, i32, i64, u32, u64, f16, bf16, f32, f64, c64, c128,
)  # fmt: skip
_BY_NAME = {dtype.name: dtype for dtype in DTYPES}
_BY_NUMPY = {dtype.np: dtype for dtype in DTYPES if dtype is not bf16}


def dtype_named(name: str) -> DType:
    """The dtype spelled `name` in IR text. Raises IRTypeError for an unknown name."""
    try:
        return _BY_NAME[name]
    except KeyError:
        raise IRTypeError(f"unknown dtype {name!r}; known: {', '.join(_BY_NAME)}") from None


def dtype_of(numpy_dtype: np.dtype[Any]) -> DType:
    """The dtype that stores as `numpy_dtype`. Raises IRTypeError for one the IR does not have."""
    try:
        return _BY_NUMPY[np.dtype(numpy_dtype)]
    except KeyError:
        if np.dtype(numpy_dtype) == bf16.np:
            return bf16
        raise IRTypeError(
            f"NumPy dtype {numpy_dtype!r} has no tensor dtype; known: {', '.join(_BY_NAME)}"
        ) from None


@dataclass(frozen=True)
class TensorType:
    """Shape and dtype of one tensor. All passes read shapes here and nowhere else."""

    shape: tuple[int, ...]
    dtype: DType

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:  # types are keys of many caches, so it is computed once
        return hash((self.shape, self.dtype))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @cached_property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def with_shape(self, shape: tuple[int, ...]) -> TensorType:
        return TensorType(tuple(shape), self.dtype)

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(self.shape, dtype)

    def __str__(self) -> str:
        return f"{self.dtype.name}[{','.join(map(str, self.shape))}]"

    __repr__ = __str__


@dataclass(frozen=True)
class TupleType:
    """Types of the parts of a several-result op; `proj(node, index=k)` takes part k."""

    parts: tuple[TensorType, ...]

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.parts))})"

    __repr__ = __str__


Type = TensorType | TupleType
