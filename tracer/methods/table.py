"""Which functions are Tensor methods: METHODS (also operators) and IN_PLACE (`add_`, ..)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracegrad.tracer import functions
from tracegrad.tracer.functions import ALIASES, FUNCTIONS
from tracegrad.tracer.memory.indexing import index_put
from tracegrad.tracer.memory.resolving import ints

# Functions that are methods under their own name.
_NAMES = """
abs absolute acos acosh add addbmm addcdiv addcmul addmm addmv addr all allclose amax amin aminmax
angle any arccos arccosh arcsin arcsinh arctan arctan2 arctanh argmax argmin argsort argwhere asin
asinh atan atan2 atanh baddbmm bincount bitwise_and bitwise_left_shift bitwise_not
bitwise_or bitwise_right_shift bitwise_xor bmm ceil cholesky clamp clamp_max clamp_min clip clone
conj copysign corrcoef cos cosh count_nonzero cov cross cummax cummin cumprod cumsum deg2rad det
diag diag_embed diff digamma dist div divide dot eq equal erf erfc erfinv exp exp2 expm1 fix flip
fliplr flipud float_power floor floor_divide fmax fmin fmod frac gather gcd ge ger greater
greater_equal gt hardshrink heaviside histc hypot index index_add index_copy index_fill
index_select inner inverse isclose isfinite isinf isnan isneginf isposinf kron kthvalue le lerp
less less_equal lgamma log log10 log1p log2 log_softmax logaddexp logaddexp2 logcumsumexp logdet
logical_and logical_not logical_or logical_xor logit logsumexp lt masked_fill masked_scatter
masked_select matmul matrix_power max maximum mean median min minimum mm mode msort mul
multiply mv nan_to_num nanmean nanmedian nansum ne neg negative nextafter nonzero norm
not_equal outer positive pow prelu prod qr quantile rad2deg reciprocal relu remainder renorm
repeat repeat_interleave roll rot90 round rsqrt scatter scatter_add scatter_reduce sgn sigmoid sign
signbit sin sinc sinh slogdet softmax solve sort sqrt square std sub subtract sum svd take
take_along_dim tan tanh tile topk trace tril triu true_divide trunc type_as unique
unique_consecutive var where xlogy
""".split()

Method = Callable[..., Any]


def with_sizes(function: Method) -> Method:
    """A method whose one attribute is ints, given as varargs, as one sequence or by its name:
    x.repeat(2, 3), x.repeat(repeats=(2, 3)).
    """

    def method(self: Any, *sizes: Any, **named: Any) -> Any:
        return function(self, *((ints(sizes),) if sizes or not named else ()), **named)

    method.__name__ = method.__qualname__ = getattr(function, "name", function.__name__)
    method.__doc__ = function.__doc__
    return method


def where(self: Any, condition: Any, other: Any) -> Any:
    """This tensor where condition, else other."""
    return functions.where(condition, self, other)


def reflected(function: Method) -> Method:
    """The operator with its operands exchanged: 2 ** x."""

    def method(self: Any, other: Any) -> Any:
        return function(other, self)

    method.__name__ = method.__qualname__ = "r" + function.__name__.rstrip("_")
    method.__doc__ = function.__doc__
    return method


def _methods() -> dict[str, Method]:
    table: dict[str, Method] = {name: FUNCTIONS[name] for name in _NAMES}
    table["repeat"] = with_sizes(FUNCTIONS["repeat"])
    table["tile"] = with_sizes(FUNCTIONS["tile"])
    table["flip"] = with_sizes(FUNCTIONS["flip"])
    table["where"] = where
    table["index_put"] = index_put
    operators = {
        "abs": "abs", "invert": "bitwise_not", "pos": "positive", "pow": "pow",
        "floordiv": "floor_divide", "mod": "remainder", "lt": "lt", "le": "le", "gt": "gt",
        "ge": "ge",
        "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
        "lshift": "bitwise_left_shift", "rshift": "bitwise_right_shift",
        "add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "matmul": "matmul",
        "neg": "neg",
    }  # fmt: skip
    table.update({f"__{name}__": FUNCTIONS[function] for name, function in operators.items()})
    swapped = ("pow", "floordiv", "mod", "and", "or", "xor", "lshift", "rshift",
               "add", "sub", "mul", "truediv", "matmul")  # fmt: skip
    for name in swapped:
        table[f"__r{name}__"] = reflected(FUNCTIONS[operators[name]])
    return table


METHODS: dict[str, Method] = _methods()

# Result written back into the first operand; its dtype must not change category downwards.
_WRITABLE = """
abs acos acosh add addbmm addcdiv addcmul addmm addmv addr asin asinh atan atan2 atanh baddbmm
bitwise_and
bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor ceil clamp clamp_max
clamp_min clip
copysign cos cosh cumprod cumsum deg2rad digamma div divide eq erf erfc erfinv exp exp2 expm1 fix
float_power
floor floor_divide fmod frac gcd ge greater greater_equal gt heaviside hypot index_add index_copy
index_fill
index_put le lerp less less_equal lgamma log log10 log1p log2 logical_and logical_not logical_or
logical_xor
logit lt masked_fill masked_scatter mul multiply nan_to_num ne neg negative nextafter not_equal pow
rad2deg
reciprocal relu remainder renorm round rsqrt scatter scatter_add scatter_reduce sgn sigmoid sign sin
sinc
sinh sqrt square sub subtract tan tanh tril triu true_divide trunc xlogy
""".split()

IN_PLACE: dict[str, Method] = {f"{name}_": METHODS[name] for name in _WRITABLE}
IN_PLACE.update({f"{name}_": FUNCTIONS[name] for name in
                 ("elu", "selu", "celu", "hardtanh", "relu6", "leaky_relu",
                 "threshold")})  # fmt: skip
IN_PLACE.update({
    f"__i{name}__": METHODS[f"__{name}__"]
    for name in ("add", "sub", "mul", "truediv", "pow", "floordiv", "mod", "and", "or", "xor",
    "lshift", "rshift")
})  # fmt: skip
IN_PLACE.update({
    f"{alias}_": IN_PLACE[f"{name}_"] for alias, name in ALIASES.items() if f"{name}_" in IN_PLACE
})  # fmt: skip
