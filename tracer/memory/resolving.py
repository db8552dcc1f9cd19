"""What users give to view functions, as axes, sizes and view steps; worked out once for equal calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod
from operator import index
from typing import Any

from numpy import ndarray

from tracegrad.tracer.eager.program import CACHE_SIZE, LRU
from tracegrad.tracer.errors import ArgumentError, OutOfRangeError, ShapeError
from tracegrad.tracer.locate import here
from tracegrad.tracer.memory.views import ViewStep, shape_of
from tracegrad.tracer.tensor import Tensor

Shape = tuple[int, ...]
Steps = tuple[ViewStep, ...]
_steps = LRU(CACHE_SIZE)


def remembered(resolve: Callable[..., Steps], input: Tensor, args: tuple, kwargs: dict) -> Steps:
    """`resolve(shape of input, *args, **kwargs)`, worked out once for equal plain arguments."""
    shape = shape_of(input)
    if not plain(args) or (kwargs and not plain(kwargs.values())):
        return resolve(shape, *args, **kwargs)
    key = (resolve, shape, args, *kwargs.items()) if kwargs else (resolve, shape, args)
    steps: Steps | None = _steps[key]
    if steps is None:
        steps = _steps.add(key, resolve(shape, *args, **kwargs))
    return steps


def plain(values: Iterable[Any]) -> bool:
    """Ints, None and tuples of ints: equal ones mean the same (not so for 1, True and 1.0)."""
    for value in values:
        if value.__class__ is not int and value is not None:
            if not isinstance(value, tuple):
                return False
            for v in value:
                if v.__class__ is not int:
                    return False
    return True


def ints(values: tuple[Any, ...]) -> tuple[int, ...]:
    """Sizes or axes given as varargs or as one sequence."""
    if len(values) == 1 and isinstance(values[0], (tuple, list)):
        values = tuple(values[0])
    try:
        return tuple(value if type(value) is int else index(value) for value in values)
    except TypeError:
        raise ArgumentError(
            f"sizes or dimensions {values}, not all of them integers", fix="give integers: n // 2"
        ) from None


def axis_of(dim: int, ndim: int, what: str = "dim") -> int:
    """A non-negative axis. Raises OutOfRangeError."""
    if not hasattr(dim, "__index__") or isinstance(dim, ndarray) and dim.ndim:
        raise ArgumentError(
            f"{what} is an integer, not {dim!r}", fix="give the number of a dimension"
        )
    limit = max(ndim, 1)
    if not -limit <= dim < limit:
        raise OutOfRangeError(f"{what} {dim} is out of range for a tensor of {ndim} dimensions")
    return dim % limit


def dimension_of(dim: int, ndim: int) -> int:
    """As `axis_of`, of a tensor that has dimensions: a 0-d one has nothing along `dim`."""
    if not ndim:
        raise OutOfRangeError(f"dim {dim} of a tensor of 0 dimensions")
    return axis_of(dim, ndim)


def resolve_shape(shape: tuple[int, ...], count: int) -> tuple[int, ...]:
    """`shape` with its one -1 filled in. Raises ShapeError when the element counts differ."""
    if shape.count(-1) == 1:
        known = prod(size for size in shape if size != -1)
        if known and count % known == 0:
            return tuple(count // known if size == -1 else size for size in shape)
    elif -1 not in shape and prod(shape) == count:
        return shape
    raise ShapeError(
        f"shape {list(shape)} does not hold {count} elements", where=here(),
        why=f"the product of its sizes must be {count}", fix="give one size as -1 to have it worked out",
    )  # fmt: skip
