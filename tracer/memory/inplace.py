"""In-place writes: one function, `write`, through which every `op_`, `x[...] = v` and `copy_` goes.

Eager, the real buffer is written (so NumPy aliases see it) after values that the tape still needs
have moved out; a tracked write rebases the history of the writer's family through its view chain,
and aliases re-derive from it. A write under no_grad, and what other families see, is data only:
gradient as if it were the old value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tracegrad.backends.numpy import quiet
from tracegrad.ir.types import TensorType, dtype_of
from tracegrad.tracer.creation.fitting import EXACT, check_fits, stored
from tracegrad.tracer.eager.program import program_for
from tracegrad.tracer.errors import ArgumentError, InPlaceError, ShapeError
from tracegrad.tracer.locate import here
from tracegrad.tracer.memory.bundle import value_in_xla
from tracegrad.tracer.memory.storage import Storage, protect_saved, storage_of, writable
from tracegrad.tracer.memory.views import IDENTITY, UNDER_NO_GRAD, WriteBack, view_entry
from tracegrad.tracer.state import get_mode
from tracegrad.tracer.tape.entries import Constant, Cut, Entry, Leaf
from tracegrad.tracer.tape.hooks import retain_of_new_value
from tracegrad.tracer.tensor import Tensor, metadata_changes, wrap


def write(target: Tensor, value: Tensor) -> Tensor:
    """Replace the target's elements by `value`: values, aliases and history.

    `value` has the same shape (a 0-d one will do if it has no history) and dtype.
    """
    mode = get_mode()
    if mode.trace is not None:
        mode.trace.write(target, value)
        return target
    if not (mode.grad and has_history(target, value)) and target._storage is None:
        protect_saved(target)
        writable(target)[...] = value._data
        return target
    base = target._storage.entries.get(target._family) if target._storage is not None else None
    tracked = mode.grad and (value._entry is not None or target._entry is not None)
    leaf = mode.grad and (isinstance(target._entry, Leaf) or isinstance(base, Leaf))
    check_allowed(target, leaf, mode.grad and (value._entry is not None or base is not None))
    new_entry = value._entry
    if tracked and new_entry is not None and not target._chain:
        # The written tensor has an entry of its own: `value` may be a leaf, or live on.
        new_entry = view_entry(IDENTITY, new_entry)
    array = value._data
    if target._storage is not None and np.may_share_memory(array, target._data):
        array = array.copy()
    protect_saved(target)
    writable(target)[...] = array
    if tracked:
        rebase(target, new_entry)
    return target


def has_history(target: Tensor, value: Any) -> bool:
    """Whether a write of `value` would change what gradients flow where."""
    if target._entry is not None or (isinstance(value, Tensor) and value._entry is not None):
        return True
    storage = target._storage
    return storage is not None and storage.entries.get(target._family) is not None


def check_allowed(target: Tensor, leaf: bool, tracked: bool) -> None:
    """Refuse what PyTorch refuses. Raises InPlaceError.

    leaf     whether gradients are on and the target, or what it is a view of, is a leaf that wants one
    tracked  whether gradients would flow through the write
    """
    traced = target._traced
    if any(step.repeats for step in (target._chain if traced is None else traced.chain)):
        raise InPlaceError(
            "in-place write on an expanded tensor (or overlapping windows)",
            why="several of its elements are one place in memory", fix="write on x.clone()",
        )  # fmt: skip
    if leaf:
        raise InPlaceError(
            "in-place write on a leaf that requires grad (or a view of one)",
            why="its gradient would have no meaning", fix="write under tg.no_grad(), or on a clone",
        )  # fmt: skip
    if tracked and target._unwritable:
        raise InPlaceError(
            "in-place write, with gradients, on a view that cannot take them", why=target._unwritable,
            fix="write through a view made by indexing or view() with gradients enabled",
        )  # fmt: skip


def written_back(chain: tuple, base: Any, value: Entry) -> Entry:
    """The entry of a base after `value` was written through the chain."""
    program = program_for(WriteBack(chain), (), (spec(base), spec(value)))
    return Entry(program, (base, value), base.shape, base.dtype)


def rebase(target: Tensor, entry: Entry | None) -> None:
    """The target's history is now `entry`; its family's other aliases follow."""
    storage = target._storage
    metadata_changes[0] += 1
    if entry is None and not target._chain:
        # Overwritten by a constant: still tracked, as in PyTorch, though no gradient reaches the
        # old value.
        entry = written_back((IDENTITY,), target._entry, Constant(target._data))
    if storage is None:
        target._entry = entry
        if target._retains_grad:
            retain_of_new_value(target)
        return
    family = target._family
    if target._chain:
        base = storage.entries.get(family) or Constant(storage.array)
        entry = written_back(target._chain, base, entry or Constant(target._data))
    rebase_family(storage, family, entry)


def rebase_family(storage: Storage, family: int, entry: Entry | None) -> None:
    """The history of the base is now `entry`; the family's views derive theirs from it."""
    metadata_changes[0] += 1
    storage.entries[family] = entry
    for member in storage.members():
        if member._family == family:
            derived = entry
            for step in member._chain:
                derived = view_entry(step, derived)  # type: ignore[arg-type]
            if member._unwritable is UNDER_NO_GRAD and derived is not None:
                derived = Cut(derived.shape, derived.dtype)
            member._entry = derived
            storage.watch(derived)
            if member._retains_grad:
                retain_of_new_value(member)


def spec(entry: Entry) -> TensorType:
    return TensorType(entry.shape, dtype_of(entry.dtype))


def fitted(target: Tensor, value: Any, name: str) -> Tensor:
    """`value` with the target's dtype and shape.

    Raises ShapeError when an in-place op would change either.
    """
    if value.dtype is not target.dtype:
        from tracegrad.tracer.functions.promotion import can_cast

        if not can_cast(value.dtype, target.dtype):
            raise ShapeError(
                f"{name}: the result is {value.dtype}, it cannot be stored in a {target.dtype} tensor", where=here(),
                fix="use the op without the underscore, or cast the operand",
            )  # fmt: skip
        value = value.to(target.dtype)
    if value.shape != target.shape:
        try:
            value = value.expand(target.shape)
        except ShapeError:
            raise ShapeError(
                f"{name}: the result has shape {list(value.shape)}, the tensor written has {list(target.shape)}",
                where=here(), why="an in-place op cannot change the shape",
            ) from None  # fmt: skip
    return value


def in_place(name: str, function: Callable[..., Any]) -> Callable[..., Tensor]:
    """The `name_` method of an out-of-place function."""

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        value = function(self, *args, **kwargs)
        if get_mode().trace is None and is_like(value, self):
            return write(self, value)
        return write(self, fitted(self, value, name))

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"In-place `{name[:-1]}`."
    return method


def is_like(value: Tensor, target: Tensor) -> bool:
    """Whether two tensors with values of their own have one dtype and shape."""
    new, old = value._data, target._data
    return new.dtype is old.dtype and new.shape == old.shape


def quick_in_place(
    name: str, ufunc: Callable[..., Any], slow: Callable[..., Tensor]
) -> Callable[..., Tensor]:
    """In-place arithmetic on what has no history straight into the buffer: what optimisers do."""

    def method(self: Tensor, other: Any, *args: Any, **kwargs: Any) -> Tensor:
        mode = get_mode()
        if (
            mode.trace is None
            and not args
            and not (mode.grad and has_history(self, other))
            and not jax_behind(self)
        ):
            a = self._data if self._jax is None else writable(self)
            b = other._data if isinstance(other, Tensor) else other
            if b.__class__ is int and -EXACT <= b <= EXACT:
                b = float(b)
            alpha = kwargs.get("alpha") if len(kwargs) == 1 else None
            plain = b.__class__ is float or (
                b.__class__ is np.ndarray and b.dtype is a.dtype and b.ndim <= a.ndim
            )
            if (
                plain
                and a.dtype.char in "fd"  # 16-bit floats are computed with more digits
                and a.flags.writeable
                and (not kwargs or alpha.__class__ is float)
            ):
                if self._chain and any(step.repeats for step in self._chain):
                    return slow(self, other, **kwargs)
                protect_saved(self)
                token = quiet.enter()
                try:
                    ufunc(a, b if alpha is None else b * alpha, a)
                except ValueError:
                    return slow(self, other, **kwargs)
                finally:
                    quiet.leave(token)
                return self
        return slow(self, other, *args, **kwargs)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = slow.__doc__
    return method


def jax_behind(tensor: Tensor) -> bool:
    return tensor._storage is not None and tensor._storage.jax is not None


def copy_(self: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """Overwrite this tensor's elements with `src`, cast and broadcast to fit."""
    if isinstance(src, Tensor) and get_mode().trace is None and is_like(src, self):
        return write(self, src)
    from tracegrad.tracer.creation.tensors import as_tensor

    source = as_tensor(src)
    if source.dtype is not self.dtype:
        source = source.to(self.dtype)
    return write(self, fitted(self, source, "copy_"))


def zero_(self: Tensor) -> Tensor:
    """Set every element to zero."""
    if get_mode().trace is None:
        return write(self, wrap(np.zeros((), self._data.dtype)))
    return fill_(self, 0)


def fill_(self: Tensor, value: Any) -> Tensor:
    """Set every element to `value`."""
    if isinstance(value, Tensor):
        return copy_(self, value)
    if isinstance(value, complex) and not self.is_complex():
        raise ArgumentError(
            f"a complex number cannot be stored in a {self.dtype} tensor",
            where=here(),
            fix="give its real part",
        )
    if hasattr(value, "_traced_number") and get_mode().trace is None:
        value = float(value)
    check_fits(value, self.dtype, halves=self.numel() != 1)
    if get_mode().trace is None:
        return write(self, wrap(stored(value, self.dtype)))
    from tracegrad.tracer import functions

    return copy_(self, functions.full_like(self, value))


def set_data(self: Tensor, value: Tensor) -> None:
    """`tensor.data = other`: this tensor takes over the other's memory; its gradient status stays."""
    if not isinstance(value, Tensor):
        raise ArgumentError(
            f".data is set to {type(value).__name__}, a tensor is needed",
            fix="x.data = tg.tensor(value)",
        )
    trace = get_mode().trace
    if trace is not None:
        if self._traced is not None and not self.requires_grad:
            self._traced = trace.detach(value)._traced
            return
        if value.shape != self.shape or value.dtype is not self.dtype:
            trace.refuse(
                "x.data is replaced by another shape or dtype inside a compiled function",
                "make a new tensor, or do it outside",
                "of x itself only the elements are state of the graph",
            )
        trace.take_over(self, value)
        return
    storage, chain, array = storage_of(value), value._chain, value._data
    if self._storage is not None:
        self._storage.leave(self)
    metadata_changes[0] += 1
    value_in_xla(self)  # out of a bundle, which would write it back
    for name in ("_jax", "_const"):
        self.__dict__.pop(name, None)
    self._data = array
    if isinstance(self._entry, Leaf):
        self._entry = Leaf(self)
    storage.join(self, chain)
