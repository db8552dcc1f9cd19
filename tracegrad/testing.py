"""`torch.testing`: comparing tensors in tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.ir.types import bf16, c64, c128, f16, f32, f64
from tracegrad.tracer.creation.tensors import as_tensor
from tracegrad.tracer.tensor import Tensor

# (rtol, atol); integers and bools are compared exactly.
_TOLERANCES = {
    f16: (1e-3, 1e-5), bf16: (1.6e-2, 1e-5), f32: (1.3e-6, 1e-5), f64: (1e-7, 1e-7),
    c64: (1.3e-6, 1e-5), c128: (1e-7, 1e-7),
}  # fmt: skip


def _values(tensor: Tensor) -> np.ndarray:
    array = tensor.detach().numpy()
    return array.astype(np.float32) if tensor.dtype is bf16 else array


def _require(condition: bool, msg: Any, otherwise: str) -> None:
    """An assertion that `python -O` does not take away."""
    if not condition:
        raise AssertionError(msg or otherwise)


def assert_close(
    actual: Any, expected: Any, *, allow_subclasses: bool = True, rtol: float | None = None,
    atol: float | None = None, equal_nan: bool = False, check_device: bool = True,
    check_dtype: bool = True, check_layout: bool = True, check_stride: bool = False,
    msg: Any = None,
) -> None:  # fmt: skip
    """Raise AssertionError unless tensors (or sequences and dicts of them) are equal up to the
    tolerances of their dtype, with equal shapes and dtypes.
    """
    options = {"rtol": rtol, "atol": atol, "equal_nan": equal_nan, "check_dtype": check_dtype}
    if isinstance(expected, dict):
        same = isinstance(actual, dict) and actual.keys() == expected.keys()
        _require(same, msg, "keys differ")
        for key in expected:
            assert_close(actual[key], expected[key], msg=msg, **options)  # type: ignore[arg-type]
        return
    if isinstance(expected, (list, tuple)):
        same = isinstance(actual, (list, tuple)) and len(actual) == len(expected)
        _require(same, msg, "lengths differ")
        for a, b in zip(actual, expected):
            assert_close(a, b, msg=msg, **options)  # type: ignore[arg-type]
        return
    a, b = as_tensor(actual), as_tensor(expected)
    _require(a.shape == b.shape, msg, f"shapes differ: {list(a.shape)} and {list(b.shape)}")
    same = not check_dtype or a.dtype is b.dtype
    _require(same, msg, f"dtypes differ: {a.dtype} and {b.dtype}")
    if (rtol is None) != (atol is None):
        raise ValueError("give rtol and atol both, or neither")
    if rtol is None or atol is None:
        coarse = [_TOLERANCES.get(x.dtype, (0.0, 0.0)) for x in (a, b)]
        rtol, atol = (max(pair) for pair in zip(*coarse))
    np.testing.assert_allclose(
        _values(a), _values(b), rtol=rtol, atol=atol, equal_nan=equal_nan, err_msg=str(msg or "")
    )


__all__ = ["assert_close"]
