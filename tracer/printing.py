"""How tensors print: PyTorch's look, NumPy's number formatting."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.ir.types import TensorType, bool_, i64
from tracegrad.tracer.state import get_default_dtype, get_mode

_DEFAULT: dict[str, Any] = dict(precision=4, threshold=1000, edgeitems=3, max_line_width=80)
_PROFILES: dict[str, dict[str, Any]] = {
    "default": {},
    "short": dict(precision=2, edgeitems=2),
    "full": dict(threshold=2**62),
}
_options = dict(_DEFAULT)


def set_printoptions(
    precision: int | None = None, threshold: int | None = None, edgeitems: int | None = None,
    linewidth: int | None = None, profile: str | None = None, sci_mode: bool | None = None,
) -> None:  # fmt: skip
    """How tensors print. profile: "default", "short", "full"; sci_mode is left to NumPy."""
    if profile is not None:
        if profile not in _PROFILES:
            raise ValueError(f"unknown print profile {profile!r}; there are {', '.join(_PROFILES)}")
        _options.update(_DEFAULT | _PROFILES[profile])
    given = dict(
        precision=precision, threshold=threshold, edgeitems=edgeitems, max_line_width=linewidth
    )
    _options.update({name: value for name, value in given.items() if value is not None})


def tensor_repr(tensor: Any) -> str:
    """`tensor([...], dtype=..., grad_fn=<...>)`; while recording its type, never values.

    What is printed or returned then would be old news at the next call.
    """
    traced = tensor._traced
    if traced is not None:
        return f"tensor(<traced {traced.type}, made at {traced.loc}>)"
    if get_mode().trace is not None:
        return f"tensor(<{TensorType(tuple(tensor.shape), tensor.dtype)}, given to a recording>)"
    array = tensor._data
    shown = array.astype(np.float32) if array.dtype.name == "bfloat16" else array
    text = np.array2string(shown, separator=", ", prefix="tensor(", **_options)
    extra = []
    if not array.size and array.shape != (0,):
        extra.append(f"size={tuple(array.shape)}")
    if tensor.dtype not in (get_default_dtype(), i64, bool_):
        extra.append(f"dtype={tensor.dtype}")
    if tensor.requires_grad:
        kind = tensor._entry.kind
        extra.append(
            "requires_grad=True" if tensor.is_leaf
            else f"grad_fn=<{getattr(kind, 'name', None) or kind.op.name}>"
        )  # fmt: skip
    return f"tensor({', '.join([text, *extra])})"
