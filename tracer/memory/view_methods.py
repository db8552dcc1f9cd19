"""The view functions users call: shapes and axes are resolved here, the aliasing is in views.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from math import prod
from typing import Any

from tracegrad.ir.types import DType
from tracegrad.tracer.errors import ArgumentError, InvalidValueError, OutOfRangeError, ShapeError
from tracegrad.tracer.locate import here
from tracegrad.tracer.memory.resolving import (
    Shape,
    Steps,
    axis_of,
    dimension_of,
    ints,
    remembered,
    resolve_shape,
)
from tracegrad.tracer.memory.views import (
    Expand,
    Pick,
    Reshape,
    Slice,
    Transpose,
    detach,
    layout_array,
    make_views,
    strides_of,
)
from tracegrad.tracer.state import get_mode
from tracegrad.tracer.tensor import Tensor


def by_shape(resolve: Callable[..., Steps]) -> Callable[..., Tensor]:
    """A view function, from the steps that it takes for an input of some shape."""

    @wraps(resolve)
    def function(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        steps = remembered(resolve, input, args, kwargs)
        return make_views(input, steps) if steps else input

    return function


def reshaping(input: Shape, *shape: Any) -> Steps:
    return (Reshape(resolve_shape(ints(shape), prod(input))),)


def by_name(given: tuple[Any, ...], named: Any) -> tuple[Any, ...]:
    """Varargs of which one sequence was given by its name."""
    if given:
        raise ArgumentError(f"{given} and {named} are given: it is one argument twice")
    return (named,)


def view(input: Tensor, *shape: Any, size: Any = None, dtype: DType | None = None) -> Tensor:
    """The same memory under another shape (or, given a dtype, other element type of equal size).

    Raises ShapeError when the strides do not allow it without a copy; `reshape` copies then.
    """
    if dtype is not None:
        shape = by_name(shape, dtype)
    if len(shape) == 1 and isinstance(shape[0], DType):
        from tracegrad.tracer.memory.strided_views import retyped

        return retyped(input, shape[0])
    steps = remembered(reshaping, input, shape if size is None else by_name(shape, size), {})
    if not can_view(input, steps):
        raise ShapeError(
            f"view{tuple(steps[0].shape)} of a tensor of shape {tuple(input.shape)} and strides {strides_of(input)}",  # type: ignore[attr-defined]
            where=here(), why="these strides cannot be one view of that shape", fix="use x.reshape(...)",
        )  # fmt: skip
    return make_views(input, steps)


def reshape(input: Tensor, *sizes: Any, shape: Any = None) -> Tensor:
    """A view of another shape where the strides allow it, else a copy."""
    steps = remembered(reshaping, input, sizes if shape is None else by_name(sizes, shape), {})
    return make_views(input if can_view(input, steps) else input.clone(), steps)


def can_view(input: Tensor, steps: Steps) -> bool:
    """Whether the one reshaping step needs no copy."""
    if input._traced is None and (input._storage is None or input._data.flags.c_contiguous):
        return True
    try:
        layout_array(input).reshape(steps[0].shape, copy=False)  # type: ignore[attr-defined]
    except ValueError:
        return False
    return True


def view_as(input: Tensor, other: Tensor) -> Tensor:
    """The same elements in the shape of `other`, as a view."""
    return view(input, *other.shape)


def reshape_as(input: Tensor, other: Tensor) -> Tensor:
    """The same elements in the shape of `other`: a view where strides allow, else a copy."""
    return reshape(input, *other.shape)


@by_shape
def permute(input: Shape, *order: Any, dims: Any = None) -> Steps:
    """The same memory with its axes in the order given, as varargs or as one sequence."""
    perm = tuple(
        axis_of(d, len(input)) for d in ints(order if dims is None else by_name(order, dims))
    )
    if sorted(perm) != list(range(len(input))):
        raise ShapeError(f"permute{perm} of a tensor of {len(input)} dimensions", where=here())
    return (Transpose(perm),)


@by_shape
def transpose(input: Shape, dim0: int, dim1: int) -> Steps:
    """The same memory with two axes exchanged."""
    a, b = axis_of(dim0, len(input)), axis_of(dim1, len(input))
    perm = list(range(len(input)))
    if perm:
        perm[a], perm[b] = perm[b], perm[a]
    return (Transpose(tuple(perm)),)


def swapaxes(input: Tensor, axis0: int, axis1: int) -> Tensor:
    """`transpose`, under NumPy's name."""
    return transpose(input, axis0, axis1)


@by_shape
def movedim(input: Shape, source: Any, destination: Any) -> Steps:
    """Move axes to new places, the others keeping their order."""
    sources = [axis_of(d, len(input)) for d in ints((source,))]
    targets = [axis_of(d, len(input)) for d in ints((destination,))]
    if not len(sources) == len(targets) == len(set(sources)) == len(set(targets)):
        raise ShapeError(f"movedim: dimensions {source} to the places {destination}")
    if not input:
        return ()
    perm: list[Any] = [None] * len(input)
    for s, t in zip(sources, targets):
        perm[t] = s
    rest = iter(d for d in range(len(input)) if d not in sources)
    return (Transpose(tuple(next(rest) if p is None else p for p in perm)),)


@by_shape
def t(input: Shape) -> Steps:
    """Transpose of a matrix; tensors of fewer than two dimensions are returned as they are."""
    if len(input) > 2:
        raise ShapeError(f"t() needs at most 2 dimensions, got {len(input)}", where=here())
    return () if len(input) < 2 else (Transpose((1, 0)),)


@by_shape
def reversed_axes(input: Shape) -> Steps:
    """`x.T`."""
    return (Transpose(tuple(reversed(range(len(input))))),)


def matrix_transpose(input: Tensor) -> Tensor:
    """`x.mT`: the last two axes exchanged."""
    return transpose(input, -2, -1)


@by_shape
def expand(input: Shape, *sizes: Any, size: Any = None) -> Steps:
    """Dimensions of size 1 repeated without memory; -1 keeps a size.

    Writing in place is refused.
    """
    wanted = ints(sizes if size is None else by_name(sizes, size))
    offset = len(wanted) - len(input)
    shape = tuple(
        (input[k - offset] if n == -1 else n) if k >= offset else n for k, n in enumerate(wanted)
    )
    fits = offset >= 0 and all(a in (1, b) for a, b in zip(input, shape[offset:]))
    if not fits or -1 in shape:
        raise ShapeError(
            f"expand to {list(wanted)} of a tensor of shape {list(input)}", where=here()
        )
    # Nothing repeated: an ordinary view, which may be written through.
    return (Reshape(shape) if prod(shape) == prod(input) else Expand(shape),)


def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """The input broadcast to the shape of `other`, as a view."""
    return expand(input, *other.shape)


def broadcast_to(input: Tensor, size: Any) -> Tensor:
    """The input broadcast to `size`, as a view."""
    return expand(input, *ints((tuple(size),)))


@by_shape
def unsqueeze(input: Shape, dim: int) -> Steps:
    """Insert an axis of size 1."""
    k = axis_of(dim, len(input) + 1)
    return (Reshape((*input[:k], 1, *input[k:])),)


@by_shape
def squeeze(input: Shape, dim: Any = None) -> Steps:
    """Drop axes of size 1: all, or those named."""
    if dim is None:
        dropped = set(range(len(input)))
    else:
        dropped = {axis_of(d, len(input)) for d in ints((dim,))}
    shape = tuple(s for k, s in enumerate(input) if not (k in dropped and s == 1))
    return (Reshape(shape),)


def flattening(input: Shape, start_dim: int, end_dim: int) -> Steps:
    if not input:
        return (Reshape((1,)),)
    a, b = axis_of(start_dim, len(input)), axis_of(end_dim, len(input))
    if a > b:
        raise ShapeError(
            f"flatten: start_dim {start_dim} comes after end_dim {end_dim}", where=here()
        )
    return () if a == b else (Reshape((*input[:a], prod(input[a : b + 1]), *input[b + 1 :])),)


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Axes start_dim..end_dim as one; a view where strides allow."""
    steps = remembered(flattening, input, (start_dim, end_dim), {})
    if not steps:
        return input
    return make_views(input if can_view(input, steps) else input.clone(), steps)


def ravel(input: Tensor) -> Tensor:
    """One dimension of all elements: a view where strides allow, else a copy."""
    return reshape(input, -1)


def unflatten(input: Tensor, dim: int, sizes: Any) -> Tensor:
    """One axis as several."""
    k = axis_of(dim, input.ndim)
    inner = resolve_shape(ints((tuple(sizes),)), input.shape[k])
    return view(input, *input.shape[:k], *inner, *input.shape[k + 1 :])


@by_shape
def narrow(input: Shape, dim: int, start: int, length: int) -> Steps:
    """`length` elements of one axis from `start`."""
    return (narrowing(input, dim, start, length),)


def narrowing(shape: Shape, dim: int, start: int, length: int) -> Slice:
    k = dimension_of(dim, len(shape))
    size = shape[k]
    start, length = ints((start, length))
    begin = start + (size if start < 0 else 0)
    if not (0 <= begin and begin + length <= size and length >= 0):
        raise ShapeError(
            f"narrow({dim}, {start}, {length}) of a dimension of size {size}", where=here()
        )
    low, high = [0] * len(shape), list(shape)
    low[k], high[k] = begin, begin + length
    return Slice(tuple(low), tuple(high), (1,) * len(shape))


@by_shape
def select(input: Shape, dim: int, index: int) -> Steps:
    """One position of an axis, the axis dropped."""
    k = dimension_of(dim, len(input))
    (index,) = ints((index,))
    if not -input[k] <= index < input[k]:
        raise OutOfRangeError(f"index {index} is out of range for dimension {k} of size {input[k]}")
    part = narrowing(input, k, index % input[k], 1)
    return (Pick(part.start, part.stop, part.step, (k,)),)


def unbinding(input: Shape, dim: int) -> Steps:
    k = dimension_of(dim, len(input))
    parts = [narrowing(input, k, place, 1) for place in range(input[k])]
    return tuple(Pick(part.start, part.stop, part.step, (k,)) for part in parts)


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """All positions of an axis."""
    return several(input, remembered(unbinding, input, (dim,), {}))


def splitting(input: Shape, split_size_or_sections: Any, dim: int) -> Steps:
    size = input[dimension_of(dim, len(input))]
    if isinstance(split_size_or_sections, int):
        step = split_size_or_sections
        if step <= 0:
            raise InvalidValueError(f"split into pieces of {step}", fix="give a size above 0")
        sections = [min(step, size - k) for k in range(0, size, step)] or [0]
    else:
        given = split_size_or_sections
        sections = list(ints(tuple(given) if hasattr(given, "__iter__") else (given,)))
    if sum(sections) != size:
        raise ShapeError(f"split into {sections} of a dimension of size {size}", where=here())
    pieces, start = [], 0
    for length in sections:
        pieces.append(narrowing(input, dim, start, length))
        start += length
    return tuple(pieces)


def split(
    input: Tensor, split_size_or_sections: Any = None, dim: int = 0, *, split_size: Any = None
) -> tuple[Tensor, ...]:
    """Pieces along an axis: of one size (the last may be smaller) or of the sizes given.

    split_size: PyTorch's name for the first argument of the method.
    """
    wanted = split_size if split_size_or_sections is None else split_size_or_sections
    if wanted is None:
        raise ArgumentError(
            "split() of no size", fix="give the size of a piece, or a list of sizes"
        )
    if hasattr(wanted, "__index__"):
        wanted = int(wanted)
    return several(input, remembered(splitting, input, (wanted, dim), {}))


def several(input: Tensor, steps: Steps) -> tuple[Tensor, ...]:
    """The views made by one call, a step each: PyTorch refuses writes with gradients through them,
    so code moves both ways.
    """
    views = tuple([make_views(input, (step,)) for step in steps])
    if get_mode().grad:
        for view in views:
            view._unwritable = (
                "it is one of several views made by one call (unbind, split or chunk)"
            )
    return views


def chunking(input: Shape, chunks: int, dim: int) -> Steps:
    if isinstance(chunks, (float, bool)):
        raise ArgumentError(
            f"chunk(): chunks is {chunks!r}, not an integer", fix="give an integer: n // 2"
        )
    if chunks <= 0:
        raise InvalidValueError(f"chunk into {chunks} pieces", fix="give a number above 0")
    size = input[dimension_of(dim, len(input))]
    return splitting(input, -(-size // chunks) or [0] * chunks, dim)


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` pieces of equal size along an axis."""
    return several(input, remembered(chunking, input, (chunks, dim), {}))


def is_contiguous(input: Tensor) -> bool:
    """Whether the elements lie in memory in row-major order without gaps."""
    return bool(layout_array(input).flags.c_contiguous)


def contiguous(input: Tensor) -> Tensor:
    """This tensor if its memory is in row-major order, else a copy that is."""
    return input if is_contiguous(input) else input.clone()


def stride(input: Tensor, dim: int | None = None) -> Any:
    """Elements to step over in memory for the next index, of all axes or of one."""
    strides = strides_of(input)
    return strides if dim is None else strides[dim]


def storage_offset(input: Tensor) -> int:
    """Elements of the underlying memory before the first of this tensor."""
    if input._storage is None:
        return 0
    trace = get_mode().trace
    if trace is not None:
        trace.place_seen(input)
    base = input._storage.array
    here_, there = input._data.__array_interface__["data"][0], base.__array_interface__["data"][0]
    return int((here_ - there) // base.itemsize)


FUNCTIONS = {
    f.__name__: f
    for f in (
        view, reshape, view_as, reshape_as, permute, transpose, swapaxes, movedim, t, expand, expand_as, broadcast_to,
        unsqueeze, squeeze, flatten, ravel, unflatten, narrow, select, unbind, split, chunk, is_contiguous,
        contiguous, stride, storage_offset, detach,
    )
}  # fmt: skip
FUNCTIONS["swapdims"] = transpose
FUNCTIONS["moveaxis"] = movedim
PROPERTIES = {"T": reversed_axes, "mT": matrix_transpose, "data": detach}
