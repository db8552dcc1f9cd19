"""Parameter and Buffer: tensors that a Module registers when they are set as attributes."""

from __future__ import annotations

import sys
from typing import Any

from tracegrad.tracer import Tensor
from tracegrad.tracer.errors import ArgumentError
from tracegrad.tracer.memory.copies import deep_without_grad


def is_plain(tensor: Tensor) -> bool:
    """Whether the tensor is a NumPy array with no alias, no history and no trace."""
    own = tensor.__dict__
    return own.keys() == {"_data"} or (own.keys() <= {"_data", "_const"} and tensor._const is None)


class _Probe:
    """Counts the references that a class call itself holds to a temporary argument."""

    count: int

    def __new__(cls, data: Any = None, *args: Any, **kwargs: Any) -> Any:
        probe = object.__new__(cls)
        probe.count = sys.getrefcount(data)
        return probe

    def __init__(self, data: Any = None) -> None:
        pass


_REFERENCES_OF_A_TEMPORARY: int = _Probe(object()).count


class _Registered(Tensor):
    """A leaf on the storage of the tensor it is made from: both see each other's writes."""

    def __new__(cls, data: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        if data is None:
            return object.__new__(cls)
        if not isinstance(data, Tensor):
            raise ArgumentError(
                f"{cls.__name__} needs a Tensor, got {type(data).__name__}; "
                "wrap the values in tracegrad.tensor(...) first"
            )
        if sys.getrefcount(data) <= _REFERENCES_OF_A_TEMPORARY and is_plain(data):
            # Nobody else holds it: take its memory over, rather than share it through a storage.
            leaf = object.__new__(cls)
            leaf._data = data._data
            return leaf
        leaf = data.detach()
        leaf.__class__ = cls
        return leaf


class Parameter(_Registered):
    """A tensor that `Module.parameters()` lists; requires grad unless told otherwise."""

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True) -> None:
        if data is None:
            super().__init__()
        self.requires_grad = requires_grad

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        return deep_without_grad(
            self, memo
        )  # a copied model starts without gradients, as in PyTorch

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()


class Buffer(_Registered):
    """A tensor that a Module registers as a buffer; if `persistent`, it is in `state_dict()`."""

    def __init__(self, data: Tensor | None = None, *, persistent: bool = True) -> None:
        if data is None:
            super().__init__()
        self.persistent = persistent
