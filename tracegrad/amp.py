"""`torch.amp` on a machine without CUDA: autocast for "cuda" warns and is off, as is GradScaler."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from tracegrad.names import public
from tracegrad.tracer.errors import UnsupportedError
from tracegrad.tracer.locate import here, warn

__all__ = ["GradScaler", "autocast"]


class autocast:
    """Context manager and decorator that leaves dtypes alone; refused for the CPU."""

    def __init__(
        self,
        device_type: Any = "cuda",
        dtype: Any = None,
        enabled: bool = True,
        cache_enabled: Any = None,
    ):
        if isinstance(device_type, bool):  # torch.cuda.amp.autocast(enabled)
            device_type, enabled = "cuda", device_type
        if enabled and str(device_type) == "cpu":
            raise UnsupportedError(
                "autocast on the CPU",
                where=here(),
                why="operations keep the dtypes of their operands",
                fix="cast the model and its inputs: model.to(tg.bfloat16); or give enabled=False",
            )
        if enabled:
            warn(f"autocast for {device_type!r} is off: eager tensors live on the CPU")

    def __enter__(self) -> autocast:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapped


class GradScaler:
    """Loss scaling, off (there is no float16 device): losses and steps pass through."""

    def __init__(self, device: Any = "cuda", *, enabled: bool = True, **ignored: Any):
        if enabled:
            warn("GradScaler is off: eager tensors live on the CPU")

    def is_enabled(self) -> bool:
        """False: there is nothing to scale."""
        return False

    def scale(self, outputs: Any) -> Any:
        """The outputs as they are."""
        return outputs

    def unscale_(self, optimizer: Any) -> None:
        """Nothing: gradients were not scaled."""

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """`optimizer.step()`."""
        return optimizer.step(*args, **kwargs)

    def update(self, new_scale: Any = None) -> None:
        """Nothing: the scale stays 1."""

    def get_scale(self) -> float:
        """1."""
        return 1.0

    def state_dict(self) -> dict[str, Any]:
        """Empty: there is no state."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing: there is no state."""


public(__name__)
