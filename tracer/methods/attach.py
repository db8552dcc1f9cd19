"""Gives Tensor its methods: tables of views, functions, in-place forms, casts, hot operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.ir.types import DType, bf16, bool_, c64, c128, f16, f32, f64, i8, i16, i32, i64, u8
from tracegrad.tracer import functions
from tracegrad.tracer.arguments import explained
from tracegrad.tracer.creation import sampling, tensors
from tracegrad.tracer.device import Device
from tracegrad.tracer.dispatch import apply
from tracegrad.tracer.dtypes import as_dtype
from tracegrad.tracer.eager import quick
from tracegrad.tracer.errors import ArgumentError, GradientError, MissingNameError
from tracegrad.tracer.locate import here
from tracegrad.tracer.memory import copies, indexing, inplace, view_methods
from tracegrad.tracer.methods import compatible
from tracegrad.tracer.methods.table import IN_PLACE, METHODS
from tracegrad.tracer.state import get_mode
from tracegrad.tracer.tensor import Tensor

CASTS = {
    "float": f32, "double": f64, "half": f16, "bfloat16": bf16, "int": i32, "long": i64, "short": i16, "char": i8,
    "byte": u8, "bool": bool_, "cfloat": c64, "cdouble": c128,
}  # fmt: skip


def to(
    self: Tensor,
    *args: Any,
    dtype: Any = None,
    device: Any = None,
    copy: bool = False,
    **inert: Any,
) -> Tensor:
    """This tensor with another dtype (itself if nothing changes and not copy).

    Devices other than the CPU refuse.
    """
    flags = [value for value in args if isinstance(value, bool)]  # non_blocking, copy
    for value in args:
        if isinstance(value, DType):
            dtype = value
        elif isinstance(value, Tensor):
            dtype = value.dtype
        elif isinstance(value, (str, Device)):
            device = value
        elif isinstance(value, type):
            dtype = as_dtype(value)
        elif not isinstance(value, bool):
            raise ArgumentError(
                f"to() takes a dtype, a device or a tensor, got {value!r}", where=here()
            )
    tensors.check_device(device)
    dtype = as_dtype(dtype)
    if dtype is None or dtype is self.dtype:
        return self.clone() if copy or any(flags[1:]) else self
    return apply(functions.cast, (self,), (dtype,))


def cast_method(name: str, dtype: DType) -> Any:
    attrs = (dtype,)

    def cast(self: Tensor) -> Tensor:
        return self if self.dtype is dtype else apply(functions.cast, (self,), attrs)

    cast.__name__ = cast.__qualname__ = name
    cast.__doc__ = f"This tensor as {dtype.public_name}."
    return cast


def cpu(self: Tensor) -> Tensor:
    """This tensor: eager tensors live on the CPU."""
    return self


def cuda(self: Tensor, device: Any = None) -> Tensor:
    """Refused: eager tensors live on the CPU; compiled functions run on accelerators."""
    tensors.check_device("cuda")
    return self


def type_(self: Tensor, dtype: Any = None) -> Any:
    """The dtype's name, or this tensor cast to `dtype`: one, or what makes tensors of it."""
    if dtype is None:
        return f"tracegrad.{self.dtype.public_name}"
    return to(self, getattr(dtype, "dtype", dtype) if callable(dtype) else dtype)


def detach_(self: Tensor) -> Tensor:
    """Drop this tensor's history."""
    if not self.requires_grad:
        return self
    traced, trace = self._traced, get_mode().trace
    if self._chain if traced is None else traced.chain:
        raise GradientError("detach_() of a view", fix="use y = x.detach()")
    if trace is None:
        self._set_leaf(None)
    elif traced is None:
        trace.refuse(
            "detach_() of a tensor from outside, inside a compiled function",
            "use y = x.detach(), or call it outside",
            "only a recording would drop its history",
        )
    else:
        self._traced = trace.detach(self)._traced
    return self


def eq_method(self: Tensor, other: Any) -> Any:
    return quick.COMPARISONS["eq"](self, other) if quick.is_operand(other) else NotImplemented


def ne_method(self: Tensor, other: Any) -> Any:
    return quick.COMPARISONS["ne"](self, other) if quick.is_operand(other) else NotImplemented


def contains(self: Tensor, value: Any) -> bool:
    return bool(functions.any(functions.eq(self, value)))


def attach() -> None:
    """Called once, at import."""
    for table in (METHODS, view_methods.FUNCTIONS, tensors.NEW_METHODS):
        for name, function in table.items():
            setattr(Tensor, name, method_of(name, function))
    for name, getter in view_methods.PROPERTIES.items():
        setter = inplace.set_data if name == "data" else None
        setattr(Tensor, name, property(getter, setter))
    for name, function in IN_PLACE.items():
        setattr(Tensor, name, inplace.in_place(name, explained(function, "tracegrad")))
    for name, function in sampling.IN_PLACE.items():
        setattr(Tensor, name, method_of(name, function))
    for name, dtype in CASTS.items():
        setattr(Tensor, name, cast_method(name, dtype))
    own = (to, cpu, cuda, detach_, inplace.copy_, inplace.zero_, inplace.fill_,
           sampling.bernoulli, sampling.multinomial)  # fmt: skip
    for function in own:
        setattr(Tensor, function.__name__, method_of(function.__name__, function))
    special = {
        "type": type_, "__getitem__": indexing.getitem, "__setitem__": indexing.setitem,
        "__eq__": eq_method, "__ne__": ne_method, "__contains__": contains,
        "__neg__": quick.UNARY["neg"], "__copy__": copies.shallow, "__deepcopy__": copies.deep,
    }  # fmt: skip
    for name, function in special.items():  # after the class body: it keeps its identity hash
        setattr(Tensor, name, function)
    hot = {
        "add": (quick.add, quick.radd), "sub": (quick.sub, quick.rsub), "mul": (quick.mul, quick.rmul),
        "truediv": (quick.truediv, quick.rtruediv), "matmul": (quick.matmul, quick.rmatmul),
    }  # fmt: skip
    ufuncs = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.divide}
    for name, (method, reflected) in hot.items():
        setattr(Tensor, f"__{name}__", method)
        setattr(Tensor, f"__r{name}__", reflected)
        plain = {"truediv": "div"}.get(name, name)
        if name in ufuncs:
            slow = inplace.in_place(f"{plain}_", METHODS[plain])
            written = inplace.quick_in_place(f"{plain}_", ufuncs[name], slow)
            setattr(Tensor, f"{plain}_", written)
            setattr(Tensor, f"__i{name}__", written)
    for name, function in quick.UNARY.items():
        setattr(Tensor, name, function)
    for name in ("lt", "le", "gt", "ge"):
        setattr(Tensor, f"__{name}__", quick.COMPARISONS[name])


def method_of(name: str, function: Any) -> Any:
    """A plain function, so that it binds `self`; keeps the docstring."""
    if isinstance(function, functions.UserOp):
        call = function.__call__  # bound once: calling an instance looks it up every time

        def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
            return call(self, *args, **kwargs)

        method.__name__, method.__qualname__, method.__module__ = (
            name,
            f"Tensor.{name}",
            "tracegrad",
        )
        method.__doc__ = function.__doc__
        return method
    return explained(function, "tracegrad", "Tensor.")


def missing_of_dtype(name: str) -> AttributeError:
    return MissingNameError("a dtype", name, dir(DType), "it has what dir(tg.float32) lists")


attach()
compatible.attach()
DType.missing = staticmethod(missing_of_dtype)  # type: ignore[method-assign]
