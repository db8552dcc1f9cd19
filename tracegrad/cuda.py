"""`torch.cuda`'s questions, answered for eager tensors: there is no CUDA device. Compiled functions
reach accelerators by `tg.compile(step, backend="jax")`.
"""

from __future__ import annotations

from typing import Any

from tracegrad import amp
from tracegrad.names import public
from tracegrad.tracer.errors import DevicePlacementError
from tracegrad.tracer.locate import here

__all__ = [
    "amp",
    "current_device",
    "device_count",
    "empty_cache",
    "get_device_name",
    "is_available",
    "is_bf16_supported",
    "manual_seed",
    "manual_seed_all",
    "max_memory_allocated",
    "memory_allocated",
    "reset_peak_memory_stats",
    "synchronize",
]


def is_available() -> bool:
    """False: eager tensors live on the CPU."""
    return False


def device_count() -> int:
    """No devices."""
    return 0


def is_bf16_supported() -> bool:
    """False: there is no device."""
    return False


def current_device() -> int:
    """Raises DevicePlacementError: there is no device."""
    raise DevicePlacementError(
        "no CUDA device",
        where=here(),
        why="eager tensors live on the CPU",
        fix='ask tg.cuda.is_available() first; accelerators: tg.compile(step, backend="jax")',
    )


def get_device_name(device: Any = None) -> str:
    """Raises DevicePlacementError: there is no device."""
    return str(current_device())


def manual_seed(seed: int) -> None:
    """Nothing: there is one random stream, see `tg.manual_seed`."""


manual_seed_all = manual_seed


def empty_cache() -> None:
    """Nothing: there is no cache."""


def synchronize(device: Any = None) -> None:
    """Nothing: eager calls have finished when they return."""


def reset_peak_memory_stats(device: Any = None) -> None:
    """Nothing: there is no device memory."""


def memory_allocated(device: Any = None) -> int:
    """No bytes."""
    return 0


max_memory_allocated = memory_allocated

public(__name__)
