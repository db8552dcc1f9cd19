"""In-place methods that change a tensor's shape: the tensor becomes a view of what it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracegrad.tracer.errors import InPlaceError, UnsupportedError
from tracegrad.tracer.locate import here
from tracegrad.tracer.memory import view_methods
from tracegrad.tracer.state import enable_grad, get_mode
from tracegrad.tracer.tape.hooks import retain_of_new_value
from tracegrad.tracer.tensor import Tensor, metadata_changes


def become(tensor: Tensor, view: Callable[..., Tensor], args: tuple, kwargs: dict) -> Tensor:
    """Put the view of `tensor` in its place. Raises InPlaceError for a leaf that requires grad."""
    if tensor.requires_grad and tensor.is_leaf:
        raise InPlaceError(
            "the shape of a leaf that requires grad is changed in place",
            where=here(),
            why="its gradient would have the old shape",
            fix="make a view of it instead, without the underscore",
        )
    if tensor._traced is None and get_mode().trace is not None:
        raise UnsupportedError(
            "the shape of a tensor from outside is changed in place inside a compiled function",
            where=here(),
            why="only its elements are state of the graph",
            fix="make a view of it instead, without the underscore",
        )
    with enable_grad():  # the history goes on, whatever the mode
        new = view(tensor, *args, **kwargs)
    if new is tensor:
        return tensor
    if tensor._traced is not None:
        tensor._traced = new._traced
        return tensor
    metadata_changes[0] += 1
    tensor.__dict__.pop("_const", None)
    tensor._data, tensor._storage, tensor._chain = new._data, new._storage, new._chain
    tensor._entry = new._entry
    if tensor._retains_grad:
        retain_of_new_value(tensor)
    return tensor


def in_place_view(name: str) -> Callable[..., Tensor]:
    view: Any = view_methods.FUNCTIONS[name]

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return become(self, view, args, kwargs)

    method.__name__ = method.__qualname__ = f"{name}_"
    method.__doc__ = f"`{name}` in place: this tensor becomes the view."
    return method


METHODS = {
    f"{name}_": in_place_view(name)
    for name in ("unsqueeze", "squeeze", "t", "transpose", "swapaxes", "swapdims")
}
