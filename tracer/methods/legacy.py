"""What `Tensor(...)`, `FloatTensor(...)` and `x.new(...)` make: a tensor of sizes, or of values."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from tracegrad.ir.types import DType
from tracegrad.tracer.creation.tensors import as_tensor, check_device, empty, tensor
from tracegrad.tracer.errors import ArgumentError
from tracegrad.tracer.size import Size
from tracegrad.tracer.state import get_default_dtype
from tracegrad.tracer.tensor import Tensor


def as_sizes(arguments: tuple[Any, ...]) -> tuple[int, ...] | None:
    """The arguments as integers, or None where one is not an integer (a bool is not)."""
    if any(isinstance(argument, (bool, np.bool_)) for argument in arguments):
        return None
    try:
        return tuple(map(operator.index, arguments))
    except TypeError:
        return None


def of_sizes_or_values(name: str, dtype: DType | None, arguments: tuple[Any, ...]) -> Tensor:
    """Integers are sizes (of zeros), as is one `Size`; one tensor is seen again, through a view; one
    array or sequence holds the values. dtype: None for the default, and for a tensor its own.
    """
    value = arguments[0] if len(arguments) == 1 else None
    wanted = dtype or get_default_dtype()
    if isinstance(value, Tensor):
        if dtype is not None and value.dtype is not dtype:
            raise ArgumentError(
                f"{name}() of a tensor of {value.dtype.public_name}",
                fix=f"cast it: x.to(tg.{dtype.public_name})",
            )
        return value.view_as(value)
    sizes = value if isinstance(value, Size) else as_sizes(arguments)
    if sizes is not None:
        return empty(*sizes, dtype=wanted)
    if isinstance(value, np.ndarray):
        return as_tensor(value, dtype=wanted)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tensor(list(value), dtype=wanted)
    given = ", ".join(type(argument).__name__ for argument in arguments)
    raise ArgumentError(
        f"{name}() of {given}",
        why="it takes sizes as integers, or one list, array or tensor of values",
        fix="use tg.tensor(value)",
    )


def make(
    kind: type[Tensor], *arguments: Any, data: Any = None, size: Any = None, device: Any = None
) -> Tensor:
    """What the class `kind`, called, gives: of the default dtype."""
    check_device(device)
    if data is not None:
        arguments = (data,)
    elif size is not None:
        arguments = (Size(size),)
    made = of_sizes_or_values(kind.__name__, None, arguments)
    if kind is not Tensor:
        made.__class__ = kind
    return made
