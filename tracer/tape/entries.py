"""The autograd tape: what an eager operation leaves behind when gradients are wanted.

An entry holds the op, its parents, and only the values that gradients read: `parent.value` is set
by the consumer that needs it, so `add` keeps shapes alone. No IR node, no frame walk.

Note [The old value moves, the buffer stays]
An in-place write changes the real NumPy buffer, because `.numpy()` and `from_numpy` aliases must
see it. If an entry that is still reachable keeps a value in that buffer, the entry gets a copy of
the old value first. So a program that PyTorch stops with "modified by an inplace operation"
computes the right gradient here.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from tracegrad.ir.types import TensorType, dtype_of
from tracegrad.tracer.eager.program import Program, program_for


class Entry:
    """One recorded operation: the value it made is what `parents` were combined to by `kind`.

    kind     a Program, a QuickOp, or one of the markers below
    parents  entries, Python numbers (weak operands) or None, one per operand
    value    the array it made, if some gradient reads it
    saved    forward intermediates that the gradient program reads
    hooks    called with its gradient; see hooks.py
    """

    __slots__ = ("kind", "parents", "value", "shape", "dtype", "saved", "hooks", "__weakref__")
    parents: tuple
    value: Any  # an array; a list of arrays and None on the entry of a several-result op
    saved: Any
    hooks: list[Any]

    def __init__(self, kind: Any, parents: tuple, shape: tuple[int, ...], dtype: np.dtype):
        self.kind = kind
        self.parents = parents
        self.shape = shape
        self.dtype = dtype
        self.value = None


class Leaf(Entry):
    """A tensor that wants a gradient and has no history."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: Any):
        self.kind = LEAF
        self.parents = ()
        self.shape = tensor._data.shape
        self.dtype = tensor._data.dtype
        self.value = None
        self.tensor = weakref.ref(tensor)


class Constant(Entry):
    """A tensor without gradient that took part in a recorded operation."""

    __slots__ = ()

    def __init__(self, array: np.ndarray):
        self.kind = CONSTANT
        self.parents = ()
        self.shape = array.shape
        self.dtype = array.dtype
        self.value = None


class Part(Entry):
    """One result of a several-result op; `parents` is that op's entry."""

    __slots__ = ("index",)

    def __init__(self, whole: Entry, index: int, shape: tuple[int, ...], dtype: np.dtype):
        self.kind = PARTS[index]
        self.parents = (whole,)
        self.shape = shape
        self.dtype = dtype
        self.value = None
        self.index = index


class Cut(Entry):
    """Of a view made under no_grad whose base has been written with gradients since: it requires grad, as
    in PyTorch, and nothing says what its gradient would be.
    """

    __slots__ = ()

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype):
        super().__init__(FREED, (), shape, dtype)


class Marker:
    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return self.name


LEAF = Marker("leaf")
CONSTANT = Marker("constant")
FREED = Marker("freed")


class _Parts(dict):
    def __missing__(self, index: int) -> Marker:
        self[index] = marker = Marker(f"part {index}")
        return marker


PARTS = _Parts()  # so that equal structures have equal kinds


class QuickOp:
    """A hot op recorded without its program, which is found when gradients are asked for."""

    __slots__ = ("name", "op", "attrs")

    def __init__(self, name: str, op: Any, attrs: tuple = ()):
        self.name, self.op, self.attrs = name, op, attrs

    def __repr__(self) -> str:
        return self.name


def program_of(entry: Entry) -> Program:
    """The program that made `entry` (not for leaves, constants and parts)."""
    kind = entry.kind
    if kind.__class__ is not QuickOp:
        return kind
    return program_for(kind.op, kind.attrs, tuple(spec_of(parent) for parent in entry.parents))


def tracked(parent: Any) -> bool:
    """Whether an operand wants a gradient."""
    return isinstance(parent, Entry) and parent.kind is not CONSTANT


def spec_of(parent: Any) -> Any:
    if parent is None:
        return None
    if isinstance(parent, Entry):
        return TensorType(parent.shape, dtype_of(parent.dtype))
    return weak_category(parent)


def weak_category(number: Any) -> str:
    if isinstance(number, bool):
        return "bool"
    if isinstance(number, int):
        return "int"
    return "complex" if isinstance(number, complex) else "float"


class Tape:
    """What is reachable from some entries: `order` has parents first, `number` says where each stands."""

    def __init__(self, roots: list[Entry]):
        self.roots = roots
        self.order: list[Entry] = []
        self.number: dict[Entry, int] = {}
        order, number = self.order, self.number
        stack = list(roots)
        while stack:  # no recursion: a tape may be as deep as it is long
            entry = stack[-1]
            if entry in number:
                stack.pop()
                continue
            ready = True
            for parent in entry.parents:
                if isinstance(parent, Entry) and parent not in number:
                    stack.append(parent)
                    ready = False
            if ready:
                stack.pop()
                number[entry] = len(order)
                order.append(entry)

    def passed(self, targets: Iterable[Entry]) -> Iterator[Entry]:
        """Those whose gradients a walk to the targets asks for."""
        leads = set(targets)
        for entry in self.order:
            if any(parent in leads for parent in entry.parents):
                leads.add(entry)
                yield entry
