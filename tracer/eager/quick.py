"""Hot operators: straight to NumPy when both operands are plain, equal-dtype arrays; `apply` for
everything else.

A quick op and its generic program compute the same thing (tests/tracer/test_quick.py compares
them); it only skips the signature lookup. What its gradient reads is derived from the program's VJP
once, never written by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tracegrad.backends.numpy import KERNELS, quiet
from tracegrad.backends.numpy.fast.extremes import relu
from tracegrad.ir.types import TensorType, f32
from tracegrad.tracer import functions
from tracegrad.tracer.creation.fitting import EXACT
from tracegrad.tracer.dispatch import UserOp, apply
from tracegrad.tracer.eager.program import program_for
from tracegrad.tracer.state import get_mode
from tracegrad.tracer.tape.entries import Entry, QuickOp
from tracegrad.tracer.tensor import Tensor, bare

ndarray = np.ndarray
AXES = [tuple(range(ndim)) for ndim in range(65)]  # as many as NumPy has
_enter, _leave = quiet.enter, quiet.leave


class Reads(dict):
    """wanted operands -> (reads first, reads second, reads output), derived on first use."""

    def __init__(self, quick: QuickOp, arity: int):
        super().__init__()
        self.quick, self.arity = quick, arity

    def __missing__(self, wanted: tuple[bool, ...]) -> tuple[bool, bool, bool]:
        square = TensorType((2, 2), f32)
        program = program_for(self.quick.op, self.quick.attrs, (square,) * self.arity)
        vjp = program.vjp(wanted, (True,))
        reads = (0 in vjp.reads_in, 1 in vjp.reads_in, bool(vjp.reads_out))
        self[wanted] = reads
        return reads


def binary(
    op: UserOp, ufunc: Callable[..., Any], kinds: str, product: bool = False
) -> tuple[Any, Any]:
    """(method, reflected method) for a ufunc-like op on dtypes whose NumPy kind is in `kinds`.

    product  it takes two vectors or two matrices, and no number
    """
    quick = QuickOp(op.name, op, op.default_attrs)
    attrs = quick.attrs
    reads = Reads(quick, 2)

    def with_number(
        tensor: Tensor, a: ndarray, number: float, grad: bool, number_first: bool
    ) -> Tensor:
        token = _enter()
        try:
            out = ufunc(number, a) if number_first else ufunc(a, number)
        finally:
            _leave(token)
        if out.__class__ is not ndarray:
            out = np.asarray(out)
        result = bare(Tensor)
        result._data = out
        entry = tensor._entry
        if entry is not None and grad:
            read = reads[not number_first, number_first]
            if read[number_first]:
                entry.value = a
            parents = (number, entry) if number_first else (entry, number)
            result._entry = made = Entry(quick, parents, out.shape, a.dtype)
            if read[2]:
                made.value = out
        return result

    def method(self: Tensor, other: Any) -> Any:
        mode = get_mode()
        if mode.trace is None:
            a = self._data
            dtype = a.dtype
            if other.__class__ is float or other.__class__ is int:
                if dtype.char in "fd" and not product:
                    return with_number(self, a, float(other), mode.grad, False)
            elif isinstance(other, Tensor):
                b = other._data
                if dtype is b.dtype and dtype.kind in kinds and (
                    not product or (a.ndim == b.ndim and 0 < a.ndim < 3 and a.shape[-1] == b.shape[0])
                ):  # fmt: skip
                    token = _enter()
                    try:
                        out = ufunc(a, b)
                    except ValueError:  # shapes: the program's type rule explains
                        return apply(op, (self, other), attrs)
                    finally:
                        _leave(token)
                    if out.__class__ is not ndarray:
                        out = np.asarray(out)
                    result = bare(Tensor)
                    result._data = out
                    first, second = self._entry, other._entry
                    if (first is not None or second is not None) and mode.grad:
                        read = reads[first is not None, second is not None]
                        if first is None:
                            first = self._const or self._constant()
                        if second is None:
                            second = other._const or other._constant()
                        if read[0]:
                            first.value = a
                        if read[1]:
                            second.value = b
                        result._entry = made = Entry(quick, (first, second), out.shape, dtype)
                        if read[2]:
                            made.value = out
                    return result
        if not is_operand(other):
            return NotImplemented
        return apply(op, (self, other), attrs)

    def reflected(self: Tensor, other: Any) -> Any:
        mode = get_mode()
        if (
            (other.__class__ is float or other.__class__ is int)
            and mode.trace is None
            and not product
        ):
            a = self._data
            if a.dtype.char in "fd":
                return with_number(self, a, float(other), mode.grad, True)
        if not is_operand(other):
            return NotImplemented
        return apply(op, (other, self), attrs)

    method.__name__ = method.__qualname__ = op.name
    method.__doc__ = op.__doc__
    return method, reflected


def is_operand(value: Any) -> bool:
    return isinstance(
        value, (Tensor, bool, int, float, complex, np.ndarray, np.generic)
    ) or hasattr(value, "_traced_number")


def comparison(op: UserOp, ufunc: Callable[..., Any]) -> Any:
    """A comparison, which has no gradient, of two tensors of one dtype or a float one and a number."""
    attrs = op.default_attrs

    def method(self: Tensor, other: Any) -> Any:
        if get_mode().trace is None:
            a = self._data
            kind = a.dtype.kind
            if isinstance(other, Tensor):
                b: Any = other._data
                plain = b.dtype is a.dtype and kind in "fiu"
            else:
                b = other
                plain = kind == "f" and (
                    b.__class__ is float or (b.__class__ is int and -EXACT <= b <= EXACT)
                )
            if plain:
                token = _enter()
                try:
                    out = ufunc(a, b)
                except ValueError:  # shapes: the program's type rule explains
                    return apply(op, (self, other), attrs)
                finally:
                    _leave(token)
                result = bare(Tensor)
                result._data = out if out.__class__ is ndarray else np.asarray(out)
                return result
        return apply(op, (self, other), attrs)

    method.__name__ = method.__qualname__ = op.name
    method.__doc__ = op.__doc__
    return method


def unary(op: UserOp, ufunc: Callable[..., Any], chars: str = "efd") -> Any:
    """A function of one floating tensor, whose dtype's NumPy character is in `chars`."""
    quick = QuickOp(op.name, op, op.default_attrs)
    attrs = quick.attrs
    reads = Reads(quick, 1)

    def function(input: Tensor) -> Any:
        mode = get_mode()
        if mode.trace is None and isinstance(input, Tensor):
            a = input._data
            if a.dtype.char in chars:
                token = _enter()
                try:
                    out = ufunc(a)
                except ValueError:  # no elements: the program's type rule explains
                    return apply(op, (input,), attrs)
                finally:
                    _leave(token)
                if out.__class__ is not ndarray:
                    out = np.asarray(out)
                result = bare(Tensor)
                result._data = out
                entry = input._entry
                if entry is not None and mode.grad:
                    read = reads[(True,)]
                    if read[0]:
                        entry.value = a
                    result._entry = made = Entry(quick, (entry,), out.shape, out.dtype)
                    if read[2]:
                        made.value = out
                return result
        return apply(op, (input,), attrs)

    function.__name__ = function.__qualname__ = op.name
    function.__doc__ = op.__doc__
    return function


def whole(op: UserOp, function: Callable[..., Any], ufunc: np.ufunc) -> Any:
    """A reduction `function`, whose form without further arguments is `op` over all axes."""
    reduce = ufunc.reduce
    # 16-bit floats are summed in float32
    reduced = unary(op, lambda a: reduce(a, AXES[a.ndim]), "fd")

    def method(input: Tensor, *args: Any, **kwargs: Any) -> Any:
        return function(input, *args, **kwargs) if args or kwargs else reduced(input)

    method.__name__ = method.__qualname__ = function.__name__.rstrip("_")
    method.__doc__ = function.__doc__
    return method


add, radd = binary(functions.add, np.add, "fiub")
sub, rsub = binary(functions.sub, np.subtract, "fiu")
mul, rmul = binary(functions.mul, np.multiply, "fiub")
truediv, rtruediv = binary(functions.div, np.divide, "f")
matmul, rmatmul = binary(functions.matmul, np.matmul, "f", product=True)

COMPARISONS = {
    name: comparison(getattr(functions, name), ufunc)
    for name, ufunc in (
        ("eq", np.equal), ("ne", np.not_equal), ("lt", np.less), ("le", np.less_equal),
        ("gt", np.greater), ("ge", np.greater_equal),
    )
}  # fmt: skip

# Functions of one float tensor that are one kernel, and reductions of all its elements that are one
# ufunc: that is their fast path.
UNARY = {
    name: unary(getattr(functions, name), relu if name == "relu" else KERNELS[name])
    for name in (
        "neg", "exp", "log", "sqrt", "rsqrt", "tanh", "sin", "cos", "sigmoid", "relu", "expm1", "log1p", "erf",
        "abs", "floor", "ceil",
    )
} | {
    "sum": whole(functions.sum, functions.sum, np.add),
    "max": whole(functions.amax, functions.max, np.maximum),
    "min": whole(functions.amin, functions.min, np.minimum),
}  # fmt: skip
