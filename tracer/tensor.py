"""The Tensor: a NumPy array (or a jax array, or a traced value) with PyTorch's behaviour.

The fields of an instance, shared by tracer and runtime, with defaults so that making one sets one:
    _data     the NumPy array; absent while the value lives elsewhere (a jax array, a trace): then
              `__getattr__` brings it here or explains why it cannot
    _jax      the value as a jax array; `_given`, without a default: XLA got its array once (runtime/execution)
    _storage  the Storage shared with views (memory/storage.py), made when the first alias appears
    _chain    the view steps from its storage's base; `_family`: which history of the storage it
              has (0: the base's; `detach()` opens another)
    _traced   the traced value (trace/traced.py), for tensors born inside a trace
    _entry    tape entry if gradients are tracked, else None; `_const`: as an operand without one
    _grad     `.grad`; `_dropped_grad` says where a compiled step has kept it to itself
    _hooks, _post_hooks, _retains_grad: when a gradient arrives. _captured: a compiled function has
    it as state. _unwritable: why writes with gradients through this view are refused.

Methods are attached (methods/attach.py): hot operators from eager/quick.py, all others from `dispatch.apply`'s ops.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from tracegrad.ir.types import DType, dtype_of
from tracegrad.tracer.device import CPU, Device
from tracegrad.tracer.errors import (
    ArgumentError,
    DroppedGradientError,
    GradientError,
    MissingNameError,
    OutOfRangeError,
    ShapeError,
)
from tracegrad.tracer.size import Size
from tracegrad.tracer.state import get_default_dtype, get_mode
from tracegrad.tracer.tape.entries import Constant, Entry, Leaf

if TYPE_CHECKING:
    from tracegrad.tracer.methods.attached import Attached
else:
    Attached = object

known_dtype = cache(dtype_of)
known_size = lru_cache(4096)(Size)  # of plain tuples of ints

# How often any tensor changed what compiled calls take for granted (gradient status, `.data`): while
# it stands still, captured tensors need no look each.
metadata_changes = [0]


class Tensor(Attached):
    """An n-dimensional array of one dtype that records what is done to it."""

    _entry: Entry | None = None
    _const: Constant | None = None
    _storage: Any = None
    _chain: tuple = ()
    _family = 0
    _traced: Any = None
    _jax: Any = None
    _grad: Any = None
    _dropped_grad: Any = None
    _retains_grad = False
    _hooks: Any = None
    _post_hooks: Any = None
    _captured = False
    _unwritable = ""
    _data: np.ndarray

    def __new__(cls, *data: Any, **named: Any) -> Tensor:
        """Of integers: zeros of these sizes. Of a list or an array: its values, in the default dtype."""
        if not data and not named:
            return object.__new__(cls)
        from tracegrad.tracer.methods.legacy import make

        return make(cls, *data, **named)

    def __init__(self, *data: Any, **named: Any):
        if not self.__dict__:
            self._data = np.zeros(0, get_default_dtype().np)

    # -- where the value is ----------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        if name == "_data":
            from tracegrad.tracer.memory.storage import bring_here

            return bring_here(self)
        kind = type(self)
        if name.startswith("_"):  # Python and its tools ask; no user does
            raise AttributeError(f"{kind.__name__!r} object has no attribute {name!r}", name=name)
        raise MissingNameError(kind.__name__, name, dir(kind), "compose it from the methods it has")

    def _constant(self) -> Constant:
        """The tape entry of this tensor as an operand that wants no gradient."""
        entry = self._const
        if entry is None:
            entry = self._const = Constant(self._data)
            if self._storage is not None:
                self._storage.watch(entry)  # a write through an alias must find it when we are gone
        return entry

    # -- what it is ------------------------------------------------------------------------------

    @property
    def shape(self) -> Size:
        traced = self._traced
        if traced is not None:
            return Size(traced.shape)
        array = self._jax
        return known_size(array.shape if array is not None else self._data.shape)

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the size of one dimension."""
        if dim is None:
            return self.shape
        try:
            return self.shape[dim]
        except IndexError:
            raise OutOfRangeError(f"size({dim}) of a tensor with {self.ndim} dimensions") from None
        except TypeError:
            raise ArgumentError(f"size(): dim is {dim!r}, an integer is needed") from None

    @property
    def dtype(self) -> DType:
        traced = self._traced
        if traced is not None:
            return traced.dtype
        array = self._jax
        return known_dtype(array.dtype if array is not None else self._data.dtype)

    @property
    def ndim(self) -> int:
        return self.dim()

    def dim(self) -> int:
        """Number of dimensions."""
        if self._traced is None and self._jax is None:
            return self._data.ndim
        return len(self.shape)

    def numel(self) -> int:
        """Number of elements."""
        return self.shape.numel()

    nelement = numel

    def element_size(self) -> int:
        """Bytes of one element."""
        return self.dtype.itemsize

    def is_floating_point(self) -> bool:
        """Whether the dtype is a float (of any width)."""
        return self.dtype.is_float

    def is_complex(self) -> bool:
        """Whether the dtype is complex."""
        return self.dtype.is_complex

    @property
    def device(self) -> Device:
        return CPU

    def __len__(self) -> int:
        shape = self.shape
        if not shape:
            raise ArgumentError("len() of a 0-d tensor", fix="it has no dimensions; x.numel() is 1")
        return shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self.shape:
            raise ArgumentError("iteration over a 0-d tensor", fix="use x.item(), or x.reshape(1)")
        return iter([self[k] for k in range(self.shape[0])])

    __hash__ = object.__hash__  # by identity; in C, because optimisers look tensors up in dicts

    # -- gradients -------------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        traced = self._traced
        if traced is not None:
            return traced.tracked
        node = written_node(self)
        return self._entry is not None if node is None else get_mode().trace.is_tracked(node)  # type: ignore[union-attr]

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Start (or, on a leaf, stop) tracking operations on this tensor.

        Floating and complex dtypes only.
        """
        if self._traced is not None:
            self._traced.require_grad(bool(requires_grad))
            return self
        entry = self._entry
        if requires_grad:
            if entry is None:
                if not self.dtype.is_inexact:
                    raise GradientError(
                        f"only floating and complex tensors can require gradients, this one is {self.dtype}",
                        fix="cast it first: x.float()",
                    )
                self._data  # noqa: B018  (a leaf's shape is read from the array: bring it here)
                self._switch_leaf(Leaf(self))
        elif entry is not None:
            if not isinstance(entry, Leaf):
                from tracegrad.tracer.tape.refused import no_leaf

                raise no_leaf()
            self._switch_leaf(None)
        return self

    def _switch_leaf(self, entry: Leaf | None) -> None:
        before, trace = self._entry, get_mode().trace
        self._set_leaf(entry)
        if trace is not None:
            trace.leaf_changed(self, before)

    def _set_leaf(self, entry: Leaf | None) -> None:
        self._entry = entry
        metadata_changes[0] += 1
        if self._storage is not None and not self._chain:
            self._storage.entries[self._family] = entry

    @property
    def is_leaf(self) -> bool:
        if self._traced is not None:
            return self._traced.is_leaf
        node = written_node(self)
        if node is not None:
            return node not in get_mode().trace.active  # type: ignore[union-attr]
        return self._entry is None or isinstance(self._entry, Leaf)

    @property
    def grad_fn(self) -> Any:
        """Something true for a tensor with history (its tape entry), None for a leaf."""
        if self._traced is not None:
            return None if self._traced.is_leaf else self._traced.node
        return None if self.is_leaf else self._entry

    @property
    def grad(self) -> Tensor | None:
        """The accumulated gradient of a leaf: None, or a tensor of the same shape and dtype."""
        trace = get_mode().trace
        if trace is not None:
            return trace.read_grad(self)
        if self._dropped_grad is not None:
            raise DroppedGradientError(
                ".grad of this tensor was computed inside a compiled step, which did not keep it",
                why=f"the step clears it before reading it ({self._dropped_grad}), so it stays in the graph",
                fix="compile with tg.compile(step, keep_grads=True)",
            )
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            from tracegrad.tracer.tape.refused import check_stored_gradient

            check_stored_gradient(self, value)
        trace = get_mode().trace
        if trace is not None:
            trace.write_grad(self, value)
            return
        self._dropped_grad = None
        self._grad = value

    def backward(
        self, gradient: Tensor | None = None, retain_graph: bool | None = None, create_graph: bool = False,
        inputs: Any = None,
    ) -> None:  # fmt: skip
        """Add the gradient of this tensor with respect to every leaf to the leaf's `.grad`.

        gradient: cotangent of this tensor's shape and dtype; may be left out for a single element.
        Raises GradientError for a tensor without history, or one walked before (retain_graph).
        """
        from tracegrad.tracer.tape.backward import backward

        backward([self], [gradient], retain_graph, create_graph, inputs)

    def retain_grad(self) -> None:
        """Keep `.grad` of this non-leaf tensor in backward."""
        from tracegrad.tracer.tape.hooks import retain_grad

        retain_grad(self)

    def register_hook(self, hook: Any) -> Any:
        """Call `hook(gradient)` once it is known; a tensor that the hook returns replaces it."""
        from tracegrad.tracer.tape.hooks import register_hook

        return register_hook(self, hook)

    # -- Python's protocols ----------------------------------------------------------------------

    def item(self) -> Any:
        """The value of a one-element tensor as a Python number.

        While recording: a number that stays in the graph; branching on it makes a guard.
        """
        trace = get_mode().trace
        count = self._data.size if trace is None else self.numel()
        if count != 1:
            raise ShapeError(
                f"item() needs one element, this tensor has {count}",
                fix="reduce it first, for example x.sum().item()",
            )
        return self._data.item() if trace is None else trace.number_of(self)

    def tolist(self) -> Any:
        """Nested Python lists of numbers."""
        return self._observed_array("tolist()").tolist()

    def numpy(self, *, force: bool = False) -> np.ndarray:
        """The values as a NumPy array that shares memory with this tensor.

        Raises GradientError for a tensor that requires grad, unless under `no_grad` or with force=True.
        """
        if not force and self.requires_grad and get_mode().grad:
            raise GradientError(
                "numpy() on a tensor that requires grad",
                why="the array could be changed without the tape seeing it",
                fix="use x.detach().numpy(), or read it under no_grad",
            )
        from tracegrad.tracer.memory.storage import export

        return export(self)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            return array.astype(dtype)
        return array.copy() if copy else array

    def __array_wrap__(
        self, array: np.ndarray, context: Any = None, scalar: bool = False
    ) -> Tensor:
        """What NumPy's functions return for a tensor; truth values become uint8, as in PyTorch."""
        from tracegrad.tracer.creation.tensors import tensor

        return tensor(array.astype(np.uint8) if array.dtype == np.bool_ else array)

    __array_priority__ = 1000  # NumPy arrays on the left leave arithmetic to us

    def _observed_array(self, why: str) -> np.ndarray:
        """The value, where Python looks at all of it: while recording, a guard on its exact bits."""
        trace = get_mode().trace
        if trace is not None:
            return trace.observe_array(self, why)
        return self._data

    def _one(self, what: str) -> Any:
        if self.numel() != 1:
            raise ShapeError(
                f"{what} of a tensor with {self.numel()} elements is ambiguous",
                fix="use .any() or .all(), or reduce it to one element",
            )
        return self.item()

    def __bool__(self) -> bool:
        return bool(self._one("bool()"))

    def __float__(self) -> float:
        return float(self._one("float()"))

    def __int__(self) -> int:
        return int(self._one("int()"))

    def __complex__(self) -> complex:
        return complex(self._one("complex()"))

    def __index__(self) -> int:
        if self.dtype.is_inexact:
            raise ArgumentError(
                "only integer tensors of a single element can be used as an index",
                fix="cast it: int(x), or x.long()",
            )
        return int(self._one("index"))

    def __format__(self, spec: str) -> str:
        if not self.shape and spec:
            return format(self.item(), spec)
        return format(str(self), spec) if not spec else object.__format__(self, spec)

    def __repr__(self) -> str:
        from tracegrad.tracer.printing import tensor_repr

        return tensor_repr(self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        from tracegrad.tracer.creation.tensors import rebuild_tensor

        return rebuild_tensor, (np.array(self._data), self.requires_grad, type(self))


# A tensor without a value yet: `bare(Tensor)`. Unlike Tensor's own, it does not look at what it is to hold.
bare = object.__new__


def written_node(tensor: Tensor) -> Any:
    """The node of a real tensor that the current trace has written to: its history is there now."""
    trace = get_mode().trace
    return None if trace is None else trace.written_node(tensor)


def wrap(array: np.ndarray) -> Tensor:
    """A tensor that owns `array`."""
    tensor = bare(Tensor)
    tensor._data = array
    return tensor
