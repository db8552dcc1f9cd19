"""Parameter and Buffer: tensors that a Module registers when they are set as attributes."""

from __future__ import annotations

from typing import Any

from tracegrad.tracer import Tensor


class _Registered(Tensor):
    """A leaf on the storage of the tensor it is made from: both see each other's writes."""

    def __new__(cls, data: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        if data is None:
            return object.__new__(cls)
        if not isinstance(data, Tensor):
            raise TypeError(
                f"{cls.__name__} needs a Tensor, got {type(data).__name__}; "
                "wrap the values in tracegrad.tensor(...) first"
            )
        leaf = data.detach()
        leaf.__class__ = cls
        return leaf


class Parameter(_Registered):
    """A tensor that `Module.parameters()` lists; requires grad unless told otherwise."""

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True) -> None:
        if data is None:
            super().__init__()
        self.requires_grad = requires_grad

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()


class Buffer(_Registered):
    """A tensor that a Module registers as a buffer; `persistent` ones are part of `state_dict()`."""

    def __init__(self, data: Tensor | None = None, *, persistent: bool = True) -> None:
        if data is None:
            super().__init__()
        self.persistent = persistent
