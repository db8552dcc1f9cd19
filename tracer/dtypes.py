"""What users give for a dtype: one of ours, or a kind of Python's numbers."""

from __future__ import annotations

from typing import Any

from tracegrad.ir.types import DType, bool_, c128, f64, i64
from tracegrad.tracer.errors import ArgumentError
from tracegrad.tracer.locate import here

OF_PYTHON: dict[Any, DType] = {float: f64, int: i64, bool: bool_, complex: c128}


def as_dtype(dtype: Any) -> DType | None:
    """The dtype, or None. Raises ArgumentError for anything else."""
    if dtype is None or isinstance(dtype, DType):
        return dtype
    if isinstance(dtype, type) and dtype in OF_PYTHON:
        return OF_PYTHON[dtype]
    raise ArgumentError(
        f"dtype={dtype!r} is {type(dtype).__name__}, not a dtype",
        where=here(),
        fix="use tg.float32, tg.int64, ...",
    )
