"""Evenly spaced numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tracegrad.ir.types import i64
from tracegrad.tracer.creation.tensors import check_device, finish
from tracegrad.tracer.dtypes import as_dtype
from tracegrad.tracer.errors import ArgumentError, InvalidValueError
from tracegrad.tracer.locate import here
from tracegrad.tracer.state import get_default_dtype
from tracegrad.tracer.tensor import Tensor, wrap


def number_of(value: Any) -> Any:
    """A bound as a Python number: the size of a range depends on it."""
    if isinstance(value, Tensor):
        value = value.item()
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "_traced_number"):
        return float(value) if value.category == "float" else int(value)
    return value


def arange(start: Any = None, end: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None,
           requires_grad: bool = False) -> Tensor:  # fmt: skip
    """Numbers from start (0) up to, not including, end. int64 if all are ints, else float32.

    int64 cuts off the fractions of start, end and step; smaller integers only those of start and
    step, as in PyTorch.
    """
    check_device(device)
    dtype = as_dtype(dtype)
    if end is None:
        start, end = None, start
    start = 0 if start is None else start
    start, end, step = map(number_of, (start, end, step))
    if dtype is None:
        whole = all(isinstance(v, int) for v in (start, end, step))
        dtype = i64 if whole else get_default_dtype()
    finite = all(math.isfinite(v) for v in (start, end, step))
    if finite and dtype is i64:
        start, end, step = int(start), int(end), int(step)
    if not finite or step == 0 or (end - start) * step < 0 or dtype.is_bool:
        raise InvalidValueError(
            f"arange({start}, {end}, {step}): the step does not lead from start to end",
            where=here(),
            fix="give finite numbers, a step of the sign of end - start, and not 0, and no bool",
        )
    count = -((start - end) // step) if dtype is i64 else math.ceil((end - start) / step)
    if dtype.is_int:
        start, step = int(start), int(step)
    values = start + step * np.arange(count)
    return finish(wrap(values.astype(dtype.np)), requires_grad)


def linspace(start: Any, end: Any, steps: int, *, dtype: Any = None, device: Any = None,
             requires_grad: bool = False) -> Tensor:  # fmt: skip
    """`steps` evenly spaced numbers from start to end, both included."""
    check_device(device)
    dtype = as_dtype(dtype)
    if not hasattr(steps, "__index__"):
        raise ArgumentError(
            f"linspace(): steps is {steps!r}, not an integer", fix="give a number of values"
        )
    if steps < 0:
        raise InvalidValueError(
            f"linspace() of {steps} steps", fix="give a number that is not negative"
        )
    dtype = dtype or get_default_dtype()
    first, last = number_of(start), number_of(end)
    if dtype.is_float or dtype.is_complex:
        values = np.linspace(first, last, steps)
    else:
        values = _integers_between(math.trunc(first), math.trunc(last), steps)
    return finish(wrap(values.astype(dtype.np)), requires_grad)


def _integers_between(first: int, last: int, steps: int) -> np.ndarray:
    """`steps` numbers from first to last, whose fractions are then cut off.

    Counted from the nearer end and with exact products, as PyTorch's multiply-add: what is cut off
    depends on the last bit.
    """
    step = np.longdouble((last - first) / max(steps - 1, 1))
    places = np.arange(steps)
    values = np.where(
        places < max(steps // 2, 1), first + step * places, last - step * places[::-1]
    )
    return values.astype(np.float64)


FUNCTIONS = {"arange": arange, "linspace": linspace}
