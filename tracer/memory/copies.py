"""Copies of tensors: `copy.copy` on the same memory, `copy.deepcopy` with memory of its own."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np

from tracegrad.tracer.errors import GradientError
from tracegrad.tracer.locate import here
from tracegrad.tracer.memory.storage import Storage
from tracegrad.tracer.state import get_mode
from tracegrad.tracer.tape.entries import Leaf
from tracegrad.tracer.tensor import Tensor, wrap


def shallow(tensor: Tensor) -> Tensor:
    """A leaf on the same memory, as in PyTorch."""
    copy = tensor.detach()
    copy.__class__ = type(tensor)
    copy.__dict__.update(own_attributes(tensor))
    return copy.requires_grad_(tensor.requires_grad)


def deep(tensor: Tensor, memo: dict) -> Tensor:
    """A leaf with its own memory, and its own copy of the gradient."""
    copy = deep_without_grad(tensor, memo)
    if get_mode().trace is None:
        if tensor._grad is not None:
            copy._grad = deep(tensor._grad, memo)
        elif tensor._dropped_grad is not None:
            copy._dropped_grad = tensor._dropped_grad
    return copy


def deep_without_grad(tensor: Tensor, memo: dict) -> Any:
    """A leaf with its own memory; tensors that shared a storage share one again."""
    if id(tensor) in memo:
        return memo[id(tensor)]
    if not tensor.is_leaf:
        raise GradientError(
            "deepcopy of a tensor that has history",
            where=here(),
            fix="copy x.detach() or a leaf instead",
        )
    kind: Any = type(tensor)
    copy = kind.__new__(kind)
    memo[id(tensor)] = copy
    for name, value in own_attributes(tensor).items():
        copy.__dict__[name] = deepcopy(value, memo)
    trace = get_mode().trace
    if trace is not None:
        copy._traced = tensor.detach().clone()._traced
        if tensor.requires_grad:
            trace.require_grad(copy._traced, True)
        return copy
    storage, shared = tensor._storage, None
    if storage is not None and len(storage.members()) > 1:
        shared = memo.get(id(storage))
        if shared is None:
            shared = memo[id(storage)] = Storage(wrap(storage.array.copy()))
        copy._data = shared.derive(tensor._chain)
    else:
        copy._data = np.array(tensor._data)
    if tensor._entry is not None:
        copy._entry = Leaf(copy)
    if shared is not None:
        shared.join(copy, tensor._chain)
    return copy


def own_attributes(tensor: Tensor) -> dict[str, Any]:
    """The user's own attributes of a tensor."""
    return {name: value for name, value in tensor.__dict__.items() if name[0] != "_"}
