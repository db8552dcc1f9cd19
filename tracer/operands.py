"""Operands that are neither tensors nor Python numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.tracer.errors import ArgumentError
from tracegrad.tracer.tensor import wrap


def as_tensor_operand(value: Any, name: str) -> Any:
    """An operand given as an array or NumPy number. Raises ArgumentError for anything else."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return wrap(value)
    number = getattr(value, "leaked", None)
    if number is not None:
        number()
    raise ArgumentError(
        f"{name}(): an operand is {type(value).__name__}, a tensor or a number is needed",
        fix="make it a tensor first: tg.tensor(value)",
    )
