"""What a call looks like: types of tensors, other arguments by value, gradient mode, shared memory."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from types import NoneType
from typing import Any
from zlib import crc32

import numpy as np

from tracegrad.runtime.calls.containers import PLAIN, Opened, paths
from tracegrad.runtime.calls.keys import value_key
from tracegrad.tracer.memory.storage import Storage
from tracegrad.tracer.state import get_default_dtype
from tracegrad.tracer.tape.entries import Leaf
from tracegrad.tracer.tensor import Tensor, bare, wrap
from tracegrad.tracer.trace.recording import Trace
from tracegrad.tracer.trees import accessors, flatten_in_order

_CHOICES = (int, np.integer, str, bytes, enum.Enum)  # values that mostly come again
CHOICES, VALUES = "the integers and names among the arguments", "the values of arguments"
# Fields of a tensor that has a value and nothing else: most arguments.
_VALUE_ALONE = frozenset({"_data", "_jax", "_given", "_captured"})


def is_plain(leaf: Any) -> bool:
    """Whether it is a tensor that has a value and nothing else."""
    return leaf.__class__ is Tensor and leaf.__dict__.keys() <= _VALUE_ALONE


def value_of(plain: Tensor) -> Any:
    """The array of a plain tensor, in NumPy or in XLA."""
    fields = plain.__dict__
    return fields["_data"] if "_data" in fields else fields["_jax"]


@dataclass(frozen=True)
class Signature:
    """Readable form of a call's key: (path in the arguments, description) pairs.

    choices  the paths of arguments that are numbers to choose by, and names: they mostly come again
    values   those of others that are no tensors: floats, arrays, objects
    """

    parts: tuple[tuple[str, str], ...]
    choices: frozenset[str] = frozenset()
    values: frozenset[str] = frozenset()

    def compared_with(self, earlier: list[Signature]) -> tuple[str, str]:
        """One sentence on what is new, empty for the first call; if it is arguments that are no tensors,
        which of them, else "".
        """
        if not earlier:
            return "", ""

        def distance(other: Signature) -> int:
            return len(set(self.parts) ^ set(other.parts))

        nearest = min(reversed(earlier), key=distance)
        before, now = dict(nearest.parts), dict(self.parts)
        names = [name for name in {**now, **before} if before.get(name) != now.get(name)]
        kind = ""
        if before.keys() == now.keys():
            if self.values.issuperset(names):
                kind = VALUES
            elif self.values.union(self.choices).issuperset(names):
                kind = CHOICES
        changes = [
            f"{name}: {before.get(name, 'absent')} -> {now.get(name, 'absent')}" for name in names
        ]
        return "; ".join(changes) or "an argument that looks the same is another one", kind


class Call:
    """One call's arguments, flattened once."""

    __slots__ = (
        "args",
        "kwargs",
        "grad",
        "leaves",
        "tensors",
        "owners",
        "behind",
        "key",
        "_treedef",
        "opened",
        "by_identity",
    )

    def __init__(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        grad: bool,
        by_memory: bool = False,
        by_identity: bool = False,
    ):
        self.args, self.kwargs, self.grad = args, kwargs, grad
        self.by_identity = by_identity
        self.opened: Opened | None = None  # containers of the user's, if there are any
        if not kwargs and all([isinstance(a, Tensor) for a in args]):
            leaves: Any = args
            self._treedef: Any = len(args)
        else:
            leaves, self._treedef = flatten_in_order((args, kwargs))
            if not by_identity and any([leaf.__class__ not in PLAIN for leaf in leaves]):
                opened = Opened(leaves)
                if opened.objects:
                    self.opened, leaves = opened, opened.leaves
        self.leaves = leaves
        self.tensors: list[Tensor] = []
        self.owners: list[Any] = []
        tensors, owners = self.tensors, self.owners
        # Storages of views that are given by value; what stands for such a view is its owner here.
        self.behind: list[Storage] = []
        parts: list[Any] = [self._treedef, grad, get_default_dtype()]
        if self.opened is not None:
            parts += self.opened.forms
        first: dict[int, int] = {}
        for leaf in leaves:
            if is_plain(leaf):
                array = value_of(leaf)
                position = first.setdefault(id(leaf), len(owners))
                tensors.append(leaf)
                owners.append(leaf)
                parts.append((array.shape, array.dtype, Tensor, NoneType, position))
                if position < len(owners) - 1:
                    parts.append(True)  # the same tensor again
            elif isinstance(leaf, Tensor):
                self._add_tensor(leaf, parts, first, by_memory)
            else:
                parts.append(type(leaf))
                parts.append(value_key(leaf))
        self.key = tuple(parts)

    def _add_tensor(
        self, leaf: Tensor, parts: list[Any], first: dict[int, int], by_memory: bool
    ) -> None:
        """A tensor with history, aliases, attributes of the user's, or of a class of its own.

        first  position of the first owner by its id, and of a view by value by the view's
        """
        tensors, owners = self.tensors, self.owners
        entry, storage = leaf._entry, leaf._storage
        if storage is None:
            owner: Any = leaf
        elif not by_memory and is_given_by_value(leaf):
            k = first.get(id(leaf))
            owner = by_value(leaf) if k is None else owners[k]
            first.setdefault(id(leaf), len(owners))
            self.behind.append(storage)
            if not leaf._data.flags.c_contiguous:
                parts.append(leaf._data.strides)
        else:
            owner = storage
        position = first.setdefault(id(owner), len(owners))
        tensors.append(leaf)
        owners.append(owner)
        holder = leaf if owner is storage else owner
        array = holder._jax if holder._jax is not None else holder._data
        parts.append((array.shape, array.dtype, leaf.__class__, entry.__class__, position))
        if entry is not None:
            parts.append(leaf._grad is None if leaf._dropped_grad is None else "dropped")
        if position < len(owners) - 1:
            parts.append(any(leaf is other for other in tensors[:-1]))
        if owner is storage:
            if leaf._chain or leaf._family:
                parts.append((leaf._chain, leaf._family, storage.array.shape))
            if (strides := storage.odd_strides) is not None:
                parts.append(strides)
        for name, value in leaf.__dict__.items():
            if name[0] != "_":  # the user's own attributes
                parts.append((name, type(value), value_key(value)))

    @property
    def signature(self) -> Signature:
        """For explanations only: not on the hot path."""
        if isinstance(self._treedef, int):
            names: Any = [f"argument {k}" for k in range(len(self.leaves))]
        else:
            given = flatten_in_order((self.args, self.kwargs))[0]
            names = [
                readable(accessor.codify("")) for accessor in accessors((self.args, self.kwargs))
            ]
            if self.opened is not None:
                inner = [paths(leaf, name) for leaf, name in zip(given, names)]
                names = [name for several in inner for name, _ in several]
        owner_of = {id(tensor): owner for tensor, owner in zip(self.tensors, self.owners)}
        parts = [(p, describe(leaf, owner_of.get(id(leaf)))) for p, leaf in zip(names, self.leaves)]
        parts.append(("gradient mode", "on" if self.grad else "off"))
        parts.append(("default dtype", get_default_dtype().public_name))
        others = [
            (p, leaf)
            for p, leaf in zip(names, self.leaves)
            if not isinstance(leaf, (Tensor, NoneType))
        ]
        choices = frozenset(p for p, leaf in others if isinstance(leaf, _CHOICES))
        values = frozenset(p for p, _ in others) - choices
        return Signature(tuple(parts), choices, values)

    def declare(self, trace: Trace) -> None:
        """Make the arguments inputs of the trace, in order."""
        for position, tensor in enumerate(self.tensors):
            owner = self.owners[position]
            if owner is tensor or owner is tensor._storage:
                trace.declare_argument(tensor, position)
            else:
                trace.declare_view(tensor, owner, position)


def is_given_by_value(tensor: Tensor) -> bool:
    """Whether it is a view (or detached alias) without history: its elements are all that counts."""
    entry = tensor._entry
    if entry is None:
        return bool(tensor._chain or tensor._family)
    return entry.__class__ is Leaf and bool(tensor._chain)


def by_value(view: Tensor) -> Tensor:
    """A tensor of the view's elements in order, outside the view's storage."""
    storage, array = view._storage, view._data
    if storage.jax is not None and not storage.exported and not view._chain:
        tensor = bare(Tensor)
        tensor._jax = storage.jax
    else:
        tensor = wrap(array if array.flags.c_contiguous else array.copy())
    tensor._entry = view._entry
    return tensor


def describe(leaf: Any, owner: Any = None) -> str:
    """One argument, with its place in memory where the call's key has it: `owner` is its storage."""
    if isinstance(leaf, Tensor):
        text = f"{leaf.dtype.public_name}{list(leaf.shape)}"
        if leaf.requires_grad:
            text += ", requires grad"
        if not leaf._chain:
            return text
        if owner is leaf._storage:
            text += f", a view at element {leaf.storage_offset()} of {list(owner.array.shape)}"
        return text if leaf.is_contiguous() else f"{text}, strides {list(leaf.stride())}"
    if isinstance(leaf, np.ndarray):
        content = f", content #{crc32(leaf.tobytes()):08x}" if not leaf.dtype.hasobject else ""
        return f"a NumPy array, {leaf.dtype}{list(leaf.shape)}{content}"
    text = repr(leaf)
    return text if len(text) <= 60 else f"{type(leaf).__name__} {text[:40]}..."


def readable(path: str) -> str:
    """`[0][1]` -> "argument 1", `[1]['x']` -> "x", deeper ones keep their path."""
    if path.startswith("[0]["):
        position, _, rest = path[4:].partition("]")
        return f"argument {position}{rest}"
    if path.startswith("[1]["):
        name, _, rest = path[4:].partition("]")
        return name.strip("'\"") + rest
    return path
