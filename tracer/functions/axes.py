"""Axes as users write them (negative, one or several, None for all) as the IR wants them."""

from __future__ import annotations

from typing import Any

from tracegrad.ir import ops
from tracegrad.ir.graph import Node
from tracegrad.tracer.errors import ArgumentError, OutOfRangeError


def axis_of(dim: int, ndim: int) -> int:
    """A non-negative axis. Raises OutOfRangeError."""
    if not hasattr(dim, "__index__"):
        raise ArgumentError(f"dim is an integer, not {dim!r}", fix="give the number of a dimension")
    limit = max(ndim, 1)
    if not -limit <= dim < limit:
        raise OutOfRangeError(
            f"dim {dim} is out of range: a tensor of {ndim} dimensions has dims -{limit} to "
            f"{limit - 1}"
        )
    return int(dim) % limit


def dimension_of(dim: int, ndim: int) -> int:
    """As `axis_of`, of a tensor that has dimensions: a 0-d one has nothing along `dim`."""
    if not ndim:
        raise OutOfRangeError(f"dim {dim} of a tensor of 0 dimensions")
    return axis_of(dim, ndim)


def axes_in_turn(dim: Any, ndim: int) -> tuple[int, ...]:
    """The axes of `dim`, an int or several, in the order given. Raises OutOfRangeError."""
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    return tuple(dimension_of(d, ndim) for d in dims)


def axes_of(dim: Any, ndim: int) -> tuple[int, ...]:
    """Sorted axes of `dim`: an int, several, or all for None or (). Raises OutOfRangeError."""
    if dim is None or dim == ():
        return tuple(range(ndim))
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    axes = sorted(axis_of(d, ndim) for d in dims)
    if len(set(axes)) < len(axes):
        raise OutOfRangeError(f"dim {dims} names one dimension twice")
    return tuple(a for a in axes if a < ndim)  # a 0-d tensor has dim 0 and no axis


def keep(reduced: Node, shape: tuple[int, ...], axes: tuple[int, ...], keepdim: bool) -> Node:
    """A reduction's result, with the reduced axes as 1 if `keepdim`."""
    if not keepdim:
        return reduced
    return reshape(reduced, tuple(1 if k in axes else n for k, n in enumerate(shape)))


def reshape(x: Node, shape: tuple[int, ...]) -> Node:
    return x if x.shape == tuple(shape) else ops.reshape(x, shape=tuple(shape))


def transpose(x: Node, perm: tuple[int, ...]) -> Node:
    return x if perm == tuple(range(x.ndim)) else ops.transpose(x, perm=perm)


def moved(x: Node, source: int, target: int) -> Node:
    """`x` with one axis moved, the others in order."""
    perm = [k for k in range(x.ndim) if k != source]
    perm.insert(target, source)
    return transpose(x, tuple(perm))
