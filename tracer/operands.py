"""Operands that are neither tensors nor Python numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.tracer.errors import ArgumentError, InvalidValueError
from tracegrad.tracer.locate import here
from tracegrad.tracer.tensor import wrap


def as_tensor_operand(value: Any, name: str) -> Any:
    """An operand given as an array or NumPy number. Raises ArgumentError for anything else."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        check_bools(value, f"{name}()")
        return wrap(value)
    number = getattr(value, "leaked", None)
    if number is not None:
        number()
    raise ArgumentError(
        f"{name}(): an operand is {type(value).__name__}, a tensor or a number is needed",
        fix="make it a tensor first: tg.tensor(value)",
    )


def check_bools(array: np.ndarray, what: str) -> None:
    """Raises InvalidValueError for bools of other bytes than 0 and 1: kernels choose by their bits."""
    if array.dtype.kind == "b" and array.size and array.view(np.uint8).max() > 1:
        raise InvalidValueError(
            f"{what} of bools whose bytes are not all 0 or 1",
            where=here(),
            why="they are integers seen as bools",
            fix="compare them: values != 0",
        )
