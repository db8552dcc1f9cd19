"""Ordered hook lists and the handles that remove their entries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tracegrad.tracer import Observed
from tracegrad.tracer.tensor import metadata_changes


class RemovableHandle:
    """Returned when a hook is registered; `remove()` takes it out again. Also a context manager."""

    def __init__(self, hooks: Hooks, key: int):
        self._hooks = hooks
        self._key = key

    def remove(self) -> None:
        """Take the hook out; a second call does nothing."""
        self._hooks.entries.pop(self._key, None)
        metadata_changes[0] += 1

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


class Hooks(Observed):
    """Hooks in calling order, each with its `with_kwargs` flag."""

    # So a model's hundreds of empty lists cost a compiled call nothing.
    _changes_count_as_metadata = True

    def __init__(self) -> None:
        self.entries: dict[int, tuple[Callable[..., Any], bool]] = {}
        self._next = 0

    def add(self, hook: Callable[..., Any], with_kwargs: bool, prepend: bool) -> RemovableHandle:
        """Append (or prepend) a hook."""
        key = self._next
        self._next += 1
        metadata_changes[0] += 1
        self.entries[key] = (hook, with_kwargs)
        if prepend:
            rest = {k: v for k, v in self.entries.items() if k != key}
            self.entries = {key: self.entries[key], **rest}
        return RemovableHandle(self, key)

    def __iter__(self) -> Iterator[tuple[Callable[..., Any], bool]]:
        # A copy: a hook may remove itself while the list is walked.
        return iter(tuple(self.entries.values()))

    def __bool__(self) -> bool:
        return bool(self.entries)

    def __len__(self) -> int:
        return len(self.entries)
