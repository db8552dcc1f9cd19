"""Which functions are Tensor methods: METHODS (also operators) and IN_PLACE (`add_` and its
like).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracegrad.tracer import functions
from tracegrad.tracer.functions import FUNCTIONS

# Functions that are methods under their own name: all but those that take no tensor first, or that
# only
# torch.nn.functional has.
_NOT_METHODS = {
    "cat", "concat", "concatenate", "stack", "hstack", "vstack", "row_stack", "meshgrid",
    "cartesian_prod",
    "einsum", "multi_dot", "tril_indices", "triu_indices", "uniform", "normal", "randint",
    "randperm",
    "bernoulli", "bernoulli_p", "exponential", "normal_like", "multinomial", "attention",
    "dropout", "feature_dropout",
    "alpha_dropout", "rrelu", "gumbel_softmax", "linear", "bilinear", "embedding", "one_hot",
    "one_hot_classes", "cross_entropy_rows", "scaled_dot_product_attention", "interpolate",
    "grid_sample",
    "affine_grid", "pad", "normalize", "cosine_similarity", "pairwise_distance", "cdist",
    "layer_norm",
    "rms_norm", "group_norm", "instance_norm", "batch_norm_train", "batch_norm_eval",
    "local_response_norm", "lstm_layer",
    "lstm_cell", "gru_layer", "gru_cell", "rnn_layer", "unfold_image", "fold_image", "complex",
    "full_like", "cast",
    "where", "polar", "is_tensor", "numel", "is_floating_point", "is_complex", "promote_types",
    "can_cast", "result_type", "finfo", "iinfo", "view_as_real", "view_as_complex",
    "glu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "softsign",
    "tanhshrink", "softshrink",
    "hardsigmoid", "hardswish", "hardtanh", "relu6", "leaky_relu", "logsigmoid", "threshold",
    "softmin",
    "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "index", "mask_positions",
    "searchsorted",
    "vector_norm", "matrix_norm", "vander", "lp_pool2d", "max_dim", "min_dim", "median_all",
    "median_dim", "nanmedian_all",
    "nanmedian_dim", "repeat_interleave_int", "repeat_interleave_each", "bincount_sized",
    "lstsq_solution", "real", "imag",
    "solve", "solve_triangular", "eigh", "eigvalsh", "svdvals", "matrix_rank", "bucketize", "isin",
    "std_mean", "var_mean",
}  # fmt: skip
_KINDS = ("conv", "max_pool", "avg_pool", "adaptive_")

Method = Callable[..., Any]


def with_sizes(function: Method) -> Method:
    """A method whose one attribute is ints, given as varargs or as one sequence: x.repeat(2, 3)."""

    def method(self: Any, *sizes: Any) -> Any:
        if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
            sizes = tuple(sizes[0])
        return function(self, tuple(int(s) for s in sizes))

    method.__name__ = method.__qualname__ = getattr(function, "name", function.__name__)
    method.__doc__ = function.__doc__
    return method


def where(self: Any, condition: Any, other: Any) -> Any:
    """This tensor where condition, else other."""
    return functions.where(condition, self, other)


def index_put(self: Any, indices: Any, values: Any, accumulate: bool = False) -> Any:
    """A copy with values stored at (added to) the places that a tuple of index tensors names."""
    positions = tuple(range(len(indices)))
    return FUNCTIONS["index_put"](
        self, values, *indices, positions=positions, accumulate=accumulate
    )


def reflected(function: Method) -> Method:
    """The operator with its operands exchanged: 2 ** x."""

    def method(self: Any, other: Any) -> Any:
        return function(other, self)

    method.__name__ = method.__qualname__ = "r" + function.__name__.rstrip("_")
    method.__doc__ = function.__doc__
    return method


def _methods() -> dict[str, Method]:
    table = {
        name: function
        for name, function in FUNCTIONS.items()
        if name not in _NOT_METHODS and not name.startswith(_KINDS)
    }
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
floor floor_divide fmod frac ge greater greater_equal gt heaviside hypot index_add index_copy
index_fill
index_put le lerp less less_equal lgamma log log10 log1p log2 logical_and logical_not logical_or
logical_xor
logit lt masked_fill masked_scatter mul multiply nan_to_num ne neg negative nextafter not_equal pow
rad2deg
reciprocal relu remainder renorm round rsqrt scatter scatter_add scatter_reduce sigmoid sign sin
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
