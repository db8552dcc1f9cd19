"""Shapes as users see them."""

from __future__ import annotations

from typing import Any

_item = tuple.__getitem__


class Size(tuple):
    """A shape: a tuple of ints that prints and counts as torch.Size does; so do its parts."""

    __slots__ = ()

    def numel(self) -> int:
        """Number of elements of such a tensor."""
        count = 1
        for size in self:
            count *= size
        return count

    def __getitem__(self, place: Any) -> Any:
        found = _item(self, place)
        return Size(found) if place.__class__ is slice else found

    def __add__(self, other: tuple[int, ...]) -> Size:  # type: ignore[override]
        return Size(tuple.__add__(self, other))

    def __repr__(self) -> str:
        return f"tracegrad.Size({list(self)})"
