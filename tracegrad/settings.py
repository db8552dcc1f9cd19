"""PyTorch's switches of the whole process, as far as they mean something here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tracegrad.backends.numpy.fast import blas, pool
from tracegrad.tracer.creation.tensors import check_device
from tracegrad.tracer.device import CPU, Device
from tracegrad.tracer.errors import ArgumentError
from tracegrad.tracer.locate import here
from tracegrad.tracer.printing import set_printoptions

accelerator = SimpleNamespace(
    is_available=lambda: False, device_count=lambda: 0, current_accelerator=lambda: None
)
_precision = ["highest"]


def get_num_threads() -> int:
    """Threads that NumPy code, eager or compiled, shares its loops among."""
    return pool.thread_count()


def set_num_threads(n: int) -> None:
    """Let NumPy code, eager or compiled, use `n` threads: tracegrad's own and those of NumPy's BLAS.

    What is compiled already keeps the number of parts that it shares its loops into.
    """
    if not isinstance(n, int) or n < 1:
        raise ArgumentError(f"set_num_threads({n!r}): a positive number is needed", where=here())
    pool.set_thread_count(n)
    blas.set_num_threads(n)


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Accepted: every operation here is deterministic."""


def are_deterministic_algorithms_enabled() -> bool:
    """True: every operation here is deterministic."""
    return True


def set_float32_matmul_precision(precision: str) -> None:
    """Accepted: "highest", "high" or "medium"; products are computed in float32 either way."""
    if precision not in ("highest", "high", "medium"):
        raise ArgumentError(
            f"unknown precision {precision!r}",
            where=here(),
            fix='use "highest", "high" or "medium"',
        )
    _precision[0] = precision


def get_float32_matmul_precision() -> str:
    """What `set_float32_matmul_precision` was given."""
    return _precision[0]


def get_default_device() -> Device:
    """The CPU."""
    return CPU


def set_default_device(device: Any) -> None:
    """Only the CPU. Raises DevicePlacementError otherwise."""
    check_device(device)


__all__ = [
    "accelerator",
    "are_deterministic_algorithms_enabled",
    "get_default_device",
    "get_float32_matmul_precision",
    "get_num_threads",
    "set_default_device",
    "set_float32_matmul_precision",
    "set_num_threads",
    "set_printoptions",
    "use_deterministic_algorithms",
]
