"""`x[...]` and `x[...] = v`: parsed once into view steps (slices, ints, None) and at most one
advanced index.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tracegrad.ir.types import bool_, i64, u8
from tracegrad.tracer import functions
from tracegrad.tracer.creation.fitting import check_fits, stored
from tracegrad.tracer.creation.tensors import as_tensor, tensor
from tracegrad.tracer.dispatch import apply
from tracegrad.tracer.eager.program import CACHE_SIZE, LRU
from tracegrad.tracer.errors import ArgumentError, OutOfRangeError, ShapeError, UnsupportedError
from tracegrad.tracer.locate import here
from tracegrad.tracer.memory.inplace import fill_, fitted, has_history, write
from tracegrad.tracer.memory.storage import protect_saved, writable
from tracegrad.tracer.memory.views import Pick, Reshape, Slice, ViewStep, make_views, shape_of
from tracegrad.tracer.state import get_mode
from tracegrad.tracer.tensor import Tensor, wrap

NUMBERS = frozenset((bool, int, float, complex))
ROWS = ((0,),)  # the attributes of `index` for x[tensor]


def getitem(self: Tensor, index: Any) -> Tensor:
    """A view for ints, slices, None and Ellipsis; a copy where a tensor, array or list takes part."""
    if isinstance(index, Tensor):
        if index.dim() and self.dim():
            if index.dtype is i64:
                return apply(functions.index, (self, index), ROWS)
            if index.dtype is bool_ and lone_mask_fits(self, index):
                return wrap(self._data[index._data])
    else:
        steps = basic_steps(self, index)
        if steps is not None:
            return make_views(self, steps)
    view, advanced = resolve(self, index)
    if not advanced:
        return view
    positions, indices = place(
        view, advanced, "reading x[mask]", "use tg.where(mask, x, other), or x * mask"
    )
    return apply(functions.index, (view, *indices), (positions,))


def setitem(self: Tensor, index: Any, value: Any) -> None:
    """Write through the view that `index` selects; repeated places in an advanced index: any one
    write wins.
    """
    if value.__class__ in NUMBERS and value.__class__ is not complex:
        check_fits(value, self.dtype, halves=False)
    steps = basic_steps(self, index)
    if steps is not None and store(self, steps, value):
        return
    view, advanced = resolve(self, index) if steps is None else (make_views(self, steps), [])
    if not isinstance(value, Tensor):
        if value.__class__ in NUMBERS:
            if not advanced:
                fill_(view, value)
                return
            value = as_tensor(value, dtype=self.dtype)  # rounded once
        else:
            value = as_tensor(value)
    if value.dtype is not self.dtype:
        value = value.to(self.dtype)
    while value.ndim > view.ndim and value.shape[0] == 1:
        value = value[0]
    if not advanced:
        write(view, fitted(view, value, "x[...] = value"))
        return
    if not value.ndim and (mask := lone_mask(view, advanced)) is not None:
        result = functions.masked_fill(view, mask, value)
        write(view, fitted(view, result, "x[mask] = value"))
        return
    positions, indices = place(
        view, advanced, "writing x[mask] = values", "use x.masked_scatter_(mask, values), or tg.where(mask, other, x)"
    )  # fmt: skip
    write(view, apply(functions.index_put_at, (view, value, *indices), (positions, False)))


def index_put(input: Tensor, indices: Any, values: Any, accumulate: bool = False) -> Tensor:
    """A copy with values stored at (added to) the places that a tuple of index tensors and masks
    names.
    """
    advanced, axis = [], 0
    for item in map(as_index, indices):
        if not isinstance(item, Tensor):
            raise ArgumentError(
                f"index_put() takes a tuple of tensors, one is {item!r}", fix="use x[...] = values"
            )
        advanced.append((axis, item))
        axis += consumes(item)
    positions, places = place(
        input, advanced, "index_put() at a mask", "use tg.where(mask, values, x)"
    )
    return apply(functions.index_put_at, (input, values, *places), (positions, accumulate))


def store(self: Tensor, steps: tuple[ViewStep, ...], value: Any) -> bool:
    """Write where no history is touched: the buffer, without a view. False if that is not so, or if
    something is wrong: `write` explains.
    """
    mode = get_mode()
    if mode.trace is not None or (mode.grad and has_history(self, value)):
        return False
    for step in self._chain:
        if step.repeats:
            return False
    dtype = self._data.dtype
    if isinstance(value, Tensor):
        new = value._data
        if new.dtype is not dtype:
            return False
    elif value.__class__ in NUMBERS and (value.__class__ is not complex or dtype.kind == "c"):
        new = stored(value, self.dtype)
    else:
        return False
    protect_saved(self)
    array = writable(self)
    for step in steps:
        array = step.view(array)
    try:
        array[...] = new
    except ValueError:  # shapes
        return False
    return True


def lone_mask_fits(self: Tensor, mask: Tensor) -> bool:
    """Whether `self[mask]` needs neither a trace nor a tape: no program for every count then."""
    mode = get_mode()
    plain = mode.trace is None and (self._entry is None or not mode.grad)
    return plain and mask.shape == self.shape[: mask.ndim]


def lone_mask(view: Tensor, advanced: list[tuple[int, Any]]) -> Tensor | None:
    """The mask, broadcast as `view` needs it, where it is all that is advanced, and fits."""
    axis, mask = advanced[0]
    if len(advanced) > 1 or mask.dtype is not bool_ or not mask.ndim:
        return None
    if mask.shape != view.shape[axis : axis + mask.ndim]:
        return None
    return mask.reshape(*mask.shape, *[1] * (view.ndim - axis - mask.ndim))


_basic = LRU(CACHE_SIZE)


def basic_steps(self: Tensor, index: Any) -> tuple[ViewStep, ...] | None:
    """The view steps of an index of plain ints, slices, None and Ellipsis, worked out once for
    equal ones; None for another index.
    """
    if index.__class__ is int:
        lookup_key: tuple[Any, ...] = (shape_of(self), index)
        return _basic[lookup_key] or _basic.add(lookup_key, parse(self, index)[0])
    key: list[Any] = [shape_of(self)]
    for item in index if index.__class__ is tuple else (index,):
        kind = item.__class__
        if kind is slice:
            start, stop, step = item.start, item.stop, item.step
            for bound in (start, stop, step):
                if bound is not None and bound.__class__ is not int:
                    return None
            item = (start, stop, step)
        elif kind is not int and item is not None and item is not Ellipsis:
            return None
        key.append(item)
    lookup_key = tuple(key)
    return _basic[lookup_key] or _basic.add(lookup_key, parse(self, index)[0])


def resolve(self: Tensor, index: Any) -> tuple[Tensor, list[tuple[int, Any]]]:
    """The view of the basic part, and (axis of that view, index) for every advanced item."""
    steps, advanced = parse(self, index)
    return make_views(self, steps) if steps else self, advanced


def parse(self: Tensor, index: Any) -> tuple[tuple[ViewStep, ...], list[tuple[int, Any]]]:
    """The view steps of the basic part, and (axis of that view, index) for every advanced item."""
    sizes = shape_of(self)
    ndim = len(sizes)
    items = [as_index(item) for item in items_of(index)]
    consumed = sum(consumes(item) for item in items if item is not None and item is not Ellipsis)
    ellipses = [k for k, item in enumerate(items) if item is Ellipsis]
    if len(ellipses) > 1 or consumed > ndim:
        raise OutOfRangeError(f"too many indices for a tensor of {ndim} dimensions")
    at = ellipses[0] if ellipses else len(items)
    items[at : at + len(ellipses)] = [slice(None)] * (ndim - consumed)

    start, stop, step = [0] * ndim, list(sizes), [1] * ndim
    shape: list[int] = []
    dropped: list[int] = []
    advanced: list[tuple[int, Any]] = []
    axis = 0
    for item in items:
        if item is None:
            shape.append(1)
            continue
        no_axis = isinstance(item, Tensor) and item.dtype is bool_ and not item.ndim
        if no_axis or isinstance(item, (bool, np.bool_)):
            raise UnsupportedError(
                "indexing with a bool of no dimensions",
                where=here(),
                fix="index with a tensor mask, or use None and slices",
            )
        size = sizes[axis] if axis < ndim else 0
        if isinstance(item, slice):
            start[axis], stop[axis], step[axis] = bounds(item, size)
            shape.append(-(-(stop[axis] - start[axis]) // step[axis]))
        elif isinstance(item, Tensor) and item.ndim:
            advanced.append((len(shape), item))
            used = consumes(item)
            shape += sizes[axis : axis + used]
            axis += used
            continue
        elif isinstance(item, Tensor) and get_mode().trace is not None:
            advanced.append((len(shape), item))  # a traced position: a gather, not a guard
            shape.append(size)
        else:
            if not hasattr(item, "__index__"):
                raise ArgumentError(
                    f"a tensor cannot be indexed by {type(item).__name__} {item!r}", where=here(),
                    fix="use integers, slices, None, ..., sequences of integers, or integer and bool tensors",
                )  # fmt: skip
            position = item.__index__()
            if not -size <= position < size:
                raise OutOfRangeError(
                    f"index {position} is out of range for dimension {axis} of size {size}"
                )
            start[axis], stop[axis] = position % size, position % size + 1
            dropped.append(axis)
        axis += 1
    steps: list[ViewStep] = []
    kept: tuple[int, ...] = sizes
    if stop != list(kept) or any(start) or any(s != 1 for s in step):
        kept = tuple(-(-(b - a) // c) for a, b, c in zip(start, stop, step))
        rest = tuple(size for axis, size in enumerate(kept) if axis not in dropped)
        if dropped and tuple(shape) == rest:
            return (Pick(tuple(start), tuple(stop), tuple(step), tuple(dropped)),), advanced
        steps.append(Slice(tuple(start), tuple(stop), tuple(step)))
    if tuple(shape) != kept or not (steps or advanced):
        steps.append(Reshape(tuple(shape)))
    return tuple(steps), advanced


def items_of(index: Any) -> list[Any]:
    """What stands between the brackets. A short list that holds more than numbers is read as a
    tuple, as PyTorch does.
    """
    if isinstance(index, tuple):
        return list(index)
    if is_sequence(index) and len(index) < 32:
        for item in index:
            if item is None or item is Ellipsis or isinstance(item, (Tensor, np.ndarray, slice)):
                return list(index)
            if is_sequence(item):
                return list(index)
    return [index]


def is_sequence(item: Any) -> bool:
    return isinstance(item, Sequence) and not isinstance(item, str)


def as_index(item: Any) -> Any:
    """Sequences and arrays as tensors; bytes are a mask, as in PyTorch."""
    if is_sequence(item):
        made = tensor(list(item))
        item = made if made.numel() else made.to(i64)
    elif isinstance(item, np.ndarray):
        item = as_tensor(item)
    return item.to(bool_) if isinstance(item, Tensor) and item.dtype is u8 else item


def consumes(item: Any) -> int:
    """How many axes an index item uses up."""
    if isinstance(item, Tensor) and item.dtype is bool_:
        return item.ndim
    return 0 if item is None else 1


def bounds(item: slice, size: int) -> tuple[int, int, int]:
    for end in (item.start, item.stop, item.step):
        if end is not None and not hasattr(end, "__index__"):
            raise ArgumentError(
                f"a slice with {end!r} in it, which is not an integer",
                where=here(),
                fix="x[int(a):int(b)]",
            )
    step = 1 if item.step is None else item.step.__index__()
    if step <= 0:
        raise ShapeError(
            "a slice step must be positive", where=here(), fix="use x.flip(dim) to reverse"
        )
    start, stop, step = slice(
        None if item.start is None else item.start.__index__(),
        None if item.stop is None else item.stop.__index__(), step,
    ).indices(size)  # fmt: skip
    return start, max(start, stop), step


def place(
    view: Tensor, advanced: list[tuple[int, Any]], what: str, instead: str
) -> tuple[tuple[int, ...], list[Any]]:
    """Axes of `view` that are indexed and integer indices for them; masks become positions.

    what, instead: for the error where a mask's positions are not known while recording.
    """
    positions: list[int] = []
    indices: list[Any] = []
    for axis, item in advanced:
        if item.dtype is bool_:
            if item.shape != view.shape[axis : axis + item.ndim]:
                raise OutOfRangeError(
                    f"a mask of shape {list(item.shape)} does not fit dimensions of {list(view.shape)}"
                )
            trace = get_mode().trace
            mask = item._data if trace is None else trace.constant_value(item)
            if mask is None:
                raise UnsupportedError(
                    f"{what} while recording", where=here(),
                    why="how many elements take part depends on the mask's values",
                    fix=f"{instead}; or compute it outside the compiled function",
                )  # fmt: skip
            for k, found in enumerate(np.nonzero(mask)):
                positions.append(axis + k)
                indices.append(found)
        else:
            dtype = item.dtype
            if not dtype.is_int:
                raise OutOfRangeError(f"an index tensor must be of integers or bools, got {dtype}")
            positions.append(axis)
            indices.append(item if dtype is i64 else item.to(i64))
    return tuple(positions), indices
