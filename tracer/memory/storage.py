"""Who shares a buffer: storages, their aliases, and where the value of a tensor lives.

A plain tensor has no Storage object; one appears with its first alias (a view, `detach()`,
`.data`). Tensors of one storage are the base or views of it; those of one *family* also share
gradient history (`detach()` opens a new one).
"""

from __future__ import annotations

import sys
from pickle import PickleBuffer
from typing import Any
from weakref import ref

import numpy as np

from tracegrad.tracer.errors import LeakedTensorError
from tracegrad.tracer.locate import here
from tracegrad.tracer.memory.bundle import STATE_LOCK, value_in_xla
from tracegrad.tracer.tape.entries import Entry, Leaf, Part
from tracegrad.tracer.tensor import Tensor, bare, metadata_changes

ndarray = np.ndarray


class Storage:
    """The aliases of one buffer.

    entries   family -> tape entry of the base tensor in that family (none, or None: not tracked)
    captured  whether a compiled function has it as state, and so writes here
    jax       the value as a jax array, if a compiled run left it there; `array` is brought up to
              date on reading
    """

    __slots__ = (
        "_array",
        "jax",
        "_stale",
        "captured",
        "entries",
        "families",
        "_members",
        "_alias_entries",
        "_outside",
        "__weakref__",
    )

    def __init__(self, base: Any):
        self._array = base._data
        self.jax: Any = None
        self._stale = False
        self.captured = False
        self._outside: ref | None = None  # the array through which code outside looks at the buffer
        self.entries: dict[int, Entry | None] = {0: base._entry}
        self.families = 1
        self._members: list[ref] = []
        self._alias_entries: list[ref] = []
        self.add(base)

    @property
    def array(self) -> np.ndarray:
        """The base array: C-contiguous, unless it came by `from_numpy`."""
        if self._stale:
            self._refresh()
        return self._array

    @property
    def exported(self) -> bool:
        """Whether NumPy code outside may look at (and write) the buffer: then its address never
        changes.
        """
        return self._outside is not None and self._outside() is not None

    def export(self, array: np.ndarray) -> None:
        """Code outside looks at the buffer through `array` and views of it."""
        self._outside = ref(array)

    def array_for_outside(self) -> np.ndarray:
        """The base array as another object, which lives as long as any view of it: NumPy lets a view
        hold the array that owns the memory, but one made from a buffer owns nothing that it knows.
        """
        seen: np.ndarray | None = self._outside() if self._outside is not None else None
        if seen is None:
            base = self._array
            memory: Any = PickleBuffer(base.reshape(-1).view(np.uint8))  # of any dtype
            seen = np.ndarray(base.shape, base.dtype, memory, 0, base.strides)
            self.export(seen)
        return seen

    @property
    def odd_strides(self) -> tuple[int, ...] | None:
        """Strides of the base array in bytes, None if it is C-contiguous."""
        array = self._array  # a value that lies on a device has the same
        return None if array.flags.c_contiguous else array.strides

    def _refresh(self) -> None:
        from tracegrad.backends.jax import to_numpy

        with STATE_LOCK:
            value = to_numpy(self.jax)
            if self._array.flags.writeable:
                np.copyto(self._array, value)
            else:
                self._array = value.copy()
            self._stale = False
            if self.exported:
                self.jax = None  # who looks from outside may write there without our knowing

    def take_jax(self, value: Any) -> None:
        """A compiled run left the new value as a jax array."""
        self.jax = value
        self._stale = True
        if self.exported:
            self._refresh()
            return
        for member in self.members():
            member.__dict__.pop("_data", None)

    def make_writable(self) -> None:
        """A private, writable base array; aliases follow.

        Drops the jax copy, which is about to be old.
        """
        array = self.array
        self.jax = None
        if not array.flags.writeable:
            self._array, self._outside = array.copy(), None
            for member in self.members():
                member._data = self.derive(member._chain)

    def derive(self, chain: tuple) -> np.ndarray:
        array = self.array
        for step in chain:
            array = step.view(array)
        return array

    def base(self, family: int) -> Any:
        """The base as the tensors of a family see it: one that is there, or a new alias."""
        for member in self.members():
            if member._family == family and not member._chain:
                return member
        base = bare(Tensor)
        base._data, base._storage, base._family = self.array, self, family
        base._entry = self.entries.get(family)
        self.add(base)
        return base

    def add(self, tensor: Any) -> None:
        """A new alias; dead ones are dropped whenever the list has doubled."""
        members = self._members
        count = len(members)
        if count >= 16 and count & (count - 1) == 0:
            members[:] = [m for m in members if m() is not None]
        members.append(ref(tensor))
        if tensor._entry is not None:
            self.watch(tensor._entry)
        if tensor._const is not None:
            self.watch(tensor._const)

    def join(self, tensor: Any, chain: tuple) -> None:
        """The tensor, its array already here, is an alias from now on: with a family of its own, as
        what flows into another's gradient is not in its.
        """
        tensor._storage, tensor._chain, tensor._family = self, chain, self.families
        self.families += 1
        if not chain:
            self.entries[tensor._family] = tensor._entry
        self.add(tensor)

    def leave(self, tensor: Any) -> None:
        """The tensor lies elsewhere from now on."""
        self._members[:] = [m for m in self._members if m() is not tensor]

    def watch(self, entry: Entry | None) -> None:
        """Remember an entry whose value may lie in this buffer after its tensor has died."""
        if entry is None:
            return
        entries = self._alias_entries
        if len(entries) >= 16 and len(entries) & (len(entries) - 1) == 0:
            entries[:] = [e for e in entries if e() is not None]
        entries.append(ref(entry))

    def members(self) -> list[Any]:
        return [m for m in [member() for member in self._members] if m is not None]

    def alias_entries(self) -> list[Entry]:
        return [e for e in [entry() for entry in self._alias_entries] if e is not None]


def storage_of(tensor: Any) -> Storage:
    """The tensor's storage, made now if it has none; its base array becomes C-contiguous first."""
    storage = tensor._storage
    if storage is None:
        with STATE_LOCK:  # a step in another thread may be replacing the value
            storage = tensor._storage or _new_storage(tensor)
    return storage


def _new_storage(tensor: Any) -> Storage:
    array = tensor._data
    if not array.flags.c_contiguous:
        tensor._data = np.ascontiguousarray(array)
    storage = tensor._storage = Storage(tensor)
    storage.jax = tensor.__dict__.pop("_jax", None)
    if tensor._captured:
        metadata_changes[0] += 1
    return storage


def settle(tensor: Any) -> None:
    """Drop the tensor's storage if all its other aliases are gone: alone, it needs none."""
    storage = tensor._storage
    if storage.captured or storage.exported or tensor._chain or len(storage.members()) != 1:
        return
    own = (tensor._entry, tensor._const)
    if any(entry.value is not None and entry not in own for entry in storage.alias_entries()):
        return  # a tape may need the old value: a write has to find it
    with STATE_LOCK:
        fields = tensor.__dict__
        if storage.jax is not None:
            fields.pop("_data", None)
            fields["_jax"] = storage.jax
        for name in ("_storage", "_family"):
            fields.pop(name, None)
    if tensor._captured:
        metadata_changes[0] += 1


def bring_here(tensor: Any) -> np.ndarray:
    """The NumPy array of a tensor whose value lives elsewhere."""
    traced = tensor._traced
    if traced is not None:
        raise LeakedTensorError(
            "a tensor recorded inside a compiled function is used outside its trace",
            where=here(),
            why=f"it was made at {traced.loc} while recording, and has no value of its own",
            fix=traced.trace.way_out,
        )
    with STATE_LOCK:  # what we hold from here on, a step in another thread does not donate
        storage, array = tensor._storage, value_in_xla(tensor)
    if storage is not None:
        result = tensor._data = storage.derive(tensor._chain)
        return result
    if array is None:
        raise AttributeError("_data")
    from tracegrad.backends.jax import to_numpy

    result = to_numpy(array)
    with STATE_LOCK:
        if tensor._jax is array:
            tensor._data = result
    return result


def writable(tensor: Any) -> np.ndarray:
    """The tensor's array, made private and writable if it is a read-only look at a jax array."""
    storage = tensor._storage
    if storage is not None:
        if storage.jax is not None or not tensor._data.flags.writeable:
            storage.make_writable()
        _leave_jax(tensor)
        return tensor._data
    array = tensor._data
    if not array.flags.writeable:
        array = tensor._data = array.copy()
    _leave_jax(tensor)
    return array


def _leave_jax(tensor: Any) -> None:
    if value_in_xla(tensor) is not None:
        del tensor._jax


def export(tensor: Any) -> np.ndarray:
    """The array for the user, sharing memory both ways from now on."""
    from tracegrad.tracer.state import get_mode

    trace = get_mode().trace
    if trace is not None:
        return trace.observe_array(tensor, "numpy()")
    storage = storage_of(tensor)
    writable(tensor)
    array = storage.array_for_outside()[...]
    for step in tensor._chain:
        array = step.view(array)
    return array


def protect_saved(owner: Any) -> None:
    """Before a tensor or storage gets another value: reachable entries that keep one in its buffer get
    a copy.

    See Note [The old value moves, the buffer stays] in tape/entries.py.
    """
    storage = owner if owner.__class__ is Storage else owner._storage
    if storage is None:
        if owner._entry is not None or owner._const is not None:
            _protect(owner)
        return
    for member in storage.members():
        _protect(member)
    for entry in storage.alias_entries():
        value = entry.value
        if value.__class__ is ndarray and np.may_share_memory(value, storage._array):
            entry.value = value.copy()


class _Holder:
    def __init__(self, held: Any):
        self.held = held


def _lone_count(holder: _Holder) -> int:
    held = holder.held
    return sys.getrefcount(held)


# What getrefcount says of an object that one attribute and one local variable hold (it varies with
# Python's version).
_LONE = _lone_count(_Holder(object()))


def _protect(tensor: Any) -> None:
    entry = tensor._const
    if entry is not None:
        if entry.value is not None and sys.getrefcount(entry) > _LONE:
            entry.value = entry.value.copy()
        tensor._const = None
    entry = tensor._entry
    if entry is None:
        return
    if entry.__class__ is Part:
        whole = entry.parents[0] if entry.parents else None
        values = whole.value if whole is not None else None
        if values.__class__ is list and values[entry.index] is not None:
            values[entry.index] = values[entry.index].copy()
    if entry.value is None:
        return
    storage = tensor._storage
    in_storage = storage is not None and storage.entries.get(tensor._family) is entry
    if isinstance(entry, Leaf) and sys.getrefcount(entry) <= _LONE + in_storage:
        entry.value = None  # that of another, the gradient of what made it may read: of tanh, say
        return
    entry.value = entry.value.copy()
    if isinstance(entry, Leaf):
        tensor._entry = Leaf(tensor)
    else:
        # Later readers save the new value; the old one stays with the old entry.
        from tracegrad.tracer.memory.views import IDENTITY, view_entry

        tensor._entry = view_entry(IDENTITY, entry)
    if tensor._storage is not None:
        if not tensor._chain:
            tensor._storage.entries[tensor._family] = tensor._entry
        tensor._storage.watch(tensor._entry)
