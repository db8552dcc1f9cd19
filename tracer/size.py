"""Shapes as users see them."""

from __future__ import annotations


class Size(tuple):
    """A shape: a tuple of ints that prints and counts as torch.Size does."""

    __slots__ = ()

    def numel(self) -> int:
        """Number of elements of such a tensor."""
        count = 1
        for size in self:
            count *= size
        return count

    def __repr__(self) -> str:
        return f"tracegrad.Size({list(self)})"
