"""Constructors, members and writing functions that scripts written for PyTorch's older versions or
for several devices use.
"""

from __future__ import annotations

from typing import Any

from tracegrad.ir.types import DType, bool_, f16, f32, f64, i8, i16, i32, i64, u8
from tracegrad.tracer.arguments import explained
from tracegrad.tracer.memory import strided_views
from tracegrad.tracer.methods import composed, composed_numeric, inplace_views
from tracegrad.tracer.methods.legacy import of_sizes_or_values
from tracegrad.tracer.tape import hooks
from tracegrad.tracer.tensor import Tensor


def legacy_constructor(name: str, dtype: DType) -> Any:
    """`FloatTensor(2, 3)` is a tensor of that shape, `FloatTensor([1, 2])` one of those values."""

    def make(*data: Any) -> Tensor:
        return of_sizes_or_values(name, dtype, data or (0,))

    make.__name__ = make.__qualname__ = name
    make.dtype = dtype  # type: ignore[attr-defined]  # for x.type(LongTensor)
    make.__doc__ = (
        f"A {dtype.public_name} tensor: of the sizes given (zeros), or of a sequence of values."
    )
    return make


def new(self: Tensor, *data: Any) -> Tensor:
    """A tensor of this dtype: of the sizes given (zeros), or of a sequence of values."""
    return of_sizes_or_values("new", self.dtype, data or (0,))


def data_ptr(self: Tensor) -> int:
    """The address of the first element."""
    return int(self._data.__array_interface__["data"][0])


def same(self: Tensor, *ignored: Any) -> Tensor:
    """This tensor: there is nothing to do on the CPU."""
    return self


LEGACY = {
    f"{name}Tensor": legacy_constructor(f"{name}Tensor", dtype)
    for name, dtype in {
        "Float": f32,
        "Double": f64,
        "Half": f16,
        "Long": i64,
        "Int": i32,
        "Short": i16,
        "Char": i8,
        "Byte": u8,
        "Bool": bool_,
    }.items()
}
METHODS = {
    "new": new,
    "data_ptr": data_ptr,
    "pin_memory": same,
    "ndimension": Tensor.dim,
    "get_device": lambda self: -1,
    "is_pinned": lambda self: False,
    "is_conj": lambda self: False,
    "is_inference": lambda self: False,
    "register_post_accumulate_grad_hook": hooks.register_post_accumulate_grad_hook,
}
TABLES = (
    composed.METHODS, composed_numeric.METHODS, strided_views.METHODS, inplace_views.METHODS, METHODS,
)  # fmt: skip
PROPERTIES = {
    "mH": composed.adjoint,
    "H": composed.adjoint,
    "real": strided_views.real,
    "imag": strided_views.imag,
    "is_cpu": lambda self: True,
    "itemsize": Tensor.element_size,
    "nbytes": lambda self: self.numel() * self.element_size(),
    "layout": lambda self: "strided",
    "retains_grad": lambda self: self._retains_grad,
} | {
    f"is_{kind}": lambda self: False
    for kind in ("cuda", "sparse", "quantized", "meta", "mps", "xpu", "nested", "mkldnn")
}
# Functions that write into their first operand: torch.relu_(x) is x.relu_().
FUNCTIONS: dict[str, Any] = LEGACY | strided_views.FUNCTIONS | composed_numeric.FUNCTIONS
WRITERS = """
abs_ acos_ asin_ atan_ ceil_ clamp_ clamp_max_ clamp_min_ clip_ cos_ cosh_ erf_ erfc_ exp2_ exp_
expm1_ fill_ fix_ floor_ frac_ log10_ log1p_ log2_ log_ logit_ nan_to_num_ neg_ negative_
reciprocal_ relu_ round_ rsqrt_ sigmoid_ sin_ sinh_ sqrt_ square_ tan_ tanh_ trunc_ xlogy_ zero_
detach_ index_put_ acosh_ addmv_ asinh_ atanh_ celu_ deg2rad_ rad2deg_ selu_ sinc_ threshold_ gcd_
lcm_ ldexp_ arccos_ arccosh_ arcsin_ arcsinh_ arctan_ arctanh_
""".split()


def writer(name: str) -> Any:
    def function(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return getattr(input, name)(*args, **kwargs)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"`input.{name}(...)`: writes into input."
    return function


def attach() -> None:
    """Gives Tensor these methods and properties where nothing stands yet, and fills FUNCTIONS."""
    for table in TABLES:
        for name, function in table.items():
            if not hasattr(Tensor, name):
                setattr(Tensor, name, explained(function, "tracegrad", "Tensor."))
    for name, getter in PROPERTIES.items():
        if not hasattr(Tensor, name):
            setattr(Tensor, name, property(getter))
    FUNCTIONS.update({name: writer(name) for name in WRITERS if hasattr(Tensor, name)})
