"""What happens when a gradient arrives: hooks on tensors, and `retain_grad()`.

Hooks of a leaf stand on the tensor, so they outlive every step that writes it; those of another
tensor stand on its tape entry.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from tracegrad.tracer.errors import GradientError, ShapeError
from tracegrad.tracer.state import get_mode
from tracegrad.tracer.tape.entries import Entry, Leaf
from tracegrad.tracer.tensor import Tensor, metadata_changes

Hook = Callable[[Tensor], Any]
# Is a backward to look? The hooks stand on the entries: one may hold its tensor, and so its entry.
_hooked_entries: weakref.WeakSet[Entry] = weakref.WeakSet()
_hooked_leaves: dict[int, weakref.ref] = {}  # tensors with hooks, by id
# Tensors with history that keep their gradient, by the entry of their value.
_retained: weakref.WeakKeyDictionary[Entry, weakref.ref[Tensor]] = weakref.WeakKeyDictionary()


class HookHandle:
    """Removes its hook when asked; a context manager too."""

    def __init__(self, hooks: list[Hook], hook: Hook):
        self._hooks, self._hook = hooks, hook

    def remove(self) -> None:
        metadata_changes[0] += 1
        if self._hook in self._hooks:
            self._hooks.remove(self._hook)

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


def register_hook(tensor: Tensor, hook: Hook) -> Any:
    """Call `hook(gradient)` when the tensor's gradient is known; a tensor it returns replaces it."""
    trace = get_mode().trace
    if trace is not None:
        return trace.register_hook(tensor, hook)
    if tensor._entry is None:
        raise GradientError(
            "a hook needs a tensor that requires grad", fix="call x.requires_grad_() first"
        )
    if not isinstance(tensor._entry, Leaf):
        entry = tensor._entry
        if entry not in _hooked_entries:
            _hooked_entries.add(entry)
            entry.hooks = []
        entry.hooks.append(hook)
        return HookHandle(entry.hooks, hook)
    key = id(tensor)
    if key not in _hooked_leaves:
        _hooked_leaves[key] = weakref.ref(tensor, lambda _: _hooked_leaves.pop(key, None))
    return _added(tensor, "_hooks", hook)


def register_post_accumulate_grad_hook(tensor: Tensor, hook: Hook) -> HookHandle:
    """Call `hook(tensor)` after backward has added to the leaf's `.grad`."""
    if get_mode().trace is not None:
        get_mode().trace.refuse(  # type: ignore[union-attr]
            "register_post_accumulate_grad_hook() inside a compiled function",
            "register it once, before calling the function",
        )
    if not isinstance(tensor._entry, Leaf):
        raise GradientError(
            "a post-accumulate hook needs a leaf that requires grad",
            fix="give a parameter, or x.detach().requires_grad_()",
        )
    return _added(tensor, "_post_hooks", hook)


def _added(tensor: Tensor, name: str, hook: Hook) -> HookHandle:
    metadata_changes[0] += 1
    if getattr(tensor, name) is None:
        setattr(tensor, name, [])
    hooks = getattr(tensor, name)
    hooks.append(hook)
    return HookHandle(hooks, hook)


def any_registered() -> bool:
    """Whether a backward may meet a hook, or a tensor that retains its gradient."""
    return bool(_hooked_entries or _hooked_leaves or _retained)


def registered() -> list[Entry]:
    """The entries, leaves aside, whose gradient somebody waits for."""
    return [*_hooked_entries, *_retained]


def hooks_of(entry: Entry) -> list[Hook]:
    """The hooks to call with the gradient of `entry`, in order."""
    if isinstance(entry, Leaf):
        tensor = entry.tensor()
        return list((tensor._hooks if tensor is not None else None) or ())
    return list(getattr(entry, "hooks", ()))


def retain_grad(tensor: Tensor) -> None:
    trace = get_mode().trace
    if trace is not None:
        trace.retain_grad(tensor)
    elif tensor._entry is not None and not isinstance(tensor._entry, Leaf):
        _retained[tensor._entry] = weakref.ref(tensor)
        tensor._retains_grad = True


def retained_by(entry: Entry) -> Tensor | None:
    """The tensor that keeps the gradient of `entry`."""
    keeper = _retained.get(entry)
    return None if keeper is None else keeper()


def retain_of_new_value(tensor: Tensor) -> None:
    """A tensor that retains its gradient was written: as in PyTorch, that of its new value."""
    for entry, keeper in list(_retained.items()):
        if keeper() is tensor:
            del _retained[entry]
    retain_grad(tensor)


def replaced(gradient: Tensor, hooks: list[Hook]) -> Tensor:
    """The gradient after the hooks. Raises GradientError, ShapeError for what cannot stand in."""
    for hook in hooks:
        result = hook(gradient)
        if result is None:
            continue
        if not isinstance(result, Tensor):
            raise GradientError(
                f"a hook returned {type(result).__name__}", fix="return None or a tensor"
            )
        if result.shape != gradient.shape or result.dtype is not gradient.dtype:
            raise ShapeError(
                f"a hook made {result.dtype.public_name} {list(result.shape)} of a gradient that is "
                f"{gradient.dtype.public_name} {list(gradient.shape)}",
                fix="return a tensor of the gradient's shape and dtype",
            )
        gradient = result
    return gradient
