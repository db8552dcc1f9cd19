"""Immutable constant arrays with value semantics: equal constants are one attribute value."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.exact import exact
from tracegrad.ir.types import DType, TensorType, dtype_of

Array = np.ndarray[Any, np.dtype[Any]]
_PYTHON_SCALARS = (float, int, bool, complex)
_KNOWN_SPLATS_KEPT = 4096
_known_splats: dict[Any, Const] = {}


class Const:
    """An array that never changes; equal when dtype, shape and bytes are (0.0 != -0.0, nan == nan).

    A splat (every element the same bytes) is stored as one element however large its shape; an
    empty array counts as a splat of zeros.
    """

    __slots__ = ("array", "dtype", "_is_splat", "__dict__")

    array: Array
    dtype: DType

    def __init__(self, array: Any):
        given = np.asarray(array)
        dtype = dtype_of(given.dtype)
        element = _common_element(given)
        if element is not None:
            self._init(np.broadcast_to(element, given.shape), dtype, True)
        else:
            copy = np.array(given, order="C", copy=True)
            copy.flags.writeable = False
            self._init(copy, dtype, False)

    def _init(self, array: Array, dtype: DType, is_splat: bool) -> None:
        for name, value in (("array", array), ("dtype", dtype), ("_is_splat", is_splat)):
            object.__setattr__(self, name, value)

    @classmethod
    def full(cls, shape: tuple[int, ...], dtype: DType, value: Any) -> Const:
        """`shape` filled with `value` as a `dtype`. Raises IRTypeError where it cannot be."""
        # Passes and gradients ask for the same few numbers again and again.
        shape = tuple(shape)
        if type(value) not in _PYTHON_SCALARS:
            return cls._full(shape, dtype, value)
        key = (shape, dtype, exact(value))
        const = _known_splats.get(key)
        if const is None:
            if len(_known_splats) >= _KNOWN_SPLATS_KEPT:
                _known_splats.clear()
            const = _known_splats[key] = cls._full(shape, dtype, value)
        return const

    @classmethod
    def _full(cls, shape: tuple[int, ...], dtype: DType, value: Any) -> Const:
        try:
            with np.errstate(all="ignore"):  # 1e300 as f32 is inf, and means it
                element = np.array(value, dtype=dtype.np)
        except (TypeError, ValueError, OverflowError) as error:
            raise IRTypeError(f"{value!r} is not a value of {dtype.name}: {error}") from None
        if element.shape != ():
            raise IRTypeError(f"a splat needs one scalar, not an array of shape {element.shape}")
        if 0 in shape:
            element = np.zeros((), dtype.np)
        const = cls.__new__(cls)
        const._init(np.broadcast_to(element, shape), dtype, True)
        return const

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a Const never changes; make a new one")

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    @cached_property
    def type(self) -> TensorType:
        return TensorType(self.shape, self.dtype)

    @property
    def is_splat(self) -> bool:
        return self._is_splat  # type: ignore[attr-defined,no-any-return]

    @cached_property
    def splat(self) -> bool | int | float | complex | None:
        """The one value of every element as a Python scalar; None when they differ."""
        if not self.is_splat:
            return None
        element = self.array.flat[0] if self.array.size else np.zeros((), self.dtype.np)[()]
        return _PYTHON_TYPE[self.dtype.category](element)  # type: ignore[no-any-return]

    @cached_property
    def digest(self) -> str:
        """Hex blake2b of the bytes that tell this constant from others (dtype, shape, values)."""
        import hashlib  # here, because it takes long to import

        hasher = hashlib.blake2b(digest_size=16)
        hasher.update(f"{self.dtype.name}{self.shape}{self.is_splat}".encode())
        hasher.update(self._bytes())
        return hasher.hexdigest()

    def _bytes(self) -> bytes:
        if self.is_splat:
            return self.array.flat[:1].tobytes()
        return self.array.tobytes()

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return (
            isinstance(other, Const)
            and self.dtype is other.dtype
            and self.shape == other.shape
            and self.is_splat == other.is_splat
            and self._bytes() == other._bytes()
        )

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.dtype.name, self.shape, self._bytes()))

    def __repr__(self) -> str:
        if self.is_splat:
            return f"Const({self.type} {self.splat!r})"
        return f"Const({self.type} {self.digest[:8]})"

    def __reduce__(self) -> tuple[Any, ...]:
        if self.is_splat:
            element = self.array.flat[0] if self.array.size else np.zeros((), self.dtype.np)[()]
            return Const.full, (self.shape, self.dtype, element)
        return Const, (self.array,)

    def __copy__(self) -> Const:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Const:
        return self


def _common_element(array: Array) -> Array | None:
    """A 0-d copy of the element that all are (compared as bytes), or None."""
    if array.size == 0:
        return np.zeros((), array.dtype)
    first = np.array(array.reshape(-1)[:1], copy=True)
    if array.size > 1:
        if 0 in array.strides and all(
            stride == 0 or size == 1 for stride, size in zip(array.strides, array.shape)
        ):
            return first.reshape(())
        bits = np.ascontiguousarray(array).reshape(-1).view(np.uint8).reshape(array.size, -1)
        if not (bits == first.view(np.uint8)).all():
            return None
    return first.reshape(())


_PYTHON_TYPE: dict[str, Any] = {"bool": bool, "int": int, "float": float, "complex": complex}
