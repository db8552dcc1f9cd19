"""Tensor methods, operators and in-place forms against PyTorch."""

import operator

import pytest
import torch
from torch_oracle import agree, bools, convert, floats, integers, same

from tracegrad.tracer.methods.table import IN_PLACE, METHODS

UNARY = """abs asin atan ceil cos cosh deg2rad erf exp exp2 expm1 floor frac neg rad2deg reciprocal
relu round sigmoid sign sin sinc sinh square tan tanh trunc log1p sqrt rsqrt log log2 log10 lgamma
digamma acos asinh erfinv erfc logit nan_to_num fix negative atanh""".split()
BINARY = """add sub mul div atan2 copysign hypot remainder fmod floor_divide pow xlogy eq ne lt le
gt ge nextafter heaviside subtract multiply divide true_divide less greater""".split()
NO_GRADIENT = "heaviside nextafter floor_divide eq ne lt le gt ge less greater".split()


def method(name):
    return lambda x, *args, **kwargs: getattr(x, name)(*args, **kwargs)


def written(name):
    """The in-place method on a copy, so that the operand's gradient can be compared."""
    return lambda x, *args, **kwargs: getattr(x.clone(), name)(*args, **kwargs)


@pytest.mark.parametrize("name", UNARY)
def test_unary(name):
    x = floats(3, 4, low=0.1, high=0.9)
    agree(method(name), method(name), x, rtol=1e-7)
    grad = name not in ("asinh", "atanh")  # PyTorch lacks these in-place derivatives
    agree(written(f"{name}_"), written(f"{name}_"), x, rtol=1e-7, grad=grad)


@pytest.mark.parametrize("name", BINARY)
def test_binary(name):
    x, y = floats(3, 4, low=0.5, high=3), floats(4, low=0.5, high=3)
    agree(method(name), method(name), x, y, grad=name not in NO_GRADIENT)
    agree(written(f"{name}_"), written(f"{name}_"), x, y, grad=name not in NO_GRADIENT)


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("addcmul_", (floats(3, 4), floats(4))),
        ("addcdiv_", (floats(3, 4), floats(4, low=1, high=2))),
        ("clamp_", (-0.5, 0.5)), ("clamp_min_", (0.1,)), ("clamp_max_", (0.1,)),
        ("clip_", (-0.1, 0.4)),
        ("lerp_", (floats(3, 4), 0.3)), ("masked_fill_", (bools(3, 4), 2.0)), ("tril_", ()),
        ("triu_", (1,)),
        ("cumsum_", (1,)), ("index_add_", (0, torch.tensor([1, 1]), floats(2, 4))),
        ("index_copy_", (0, torch.tensor([1, 0]), floats(2, 4))),
        ("index_fill_", (1, torch.tensor([1]), 3.0)),
        ("scatter_", (0, torch.tensor([[0, 1, 2, 0]]), floats(1, 4))),
        ("scatter_", (0, torch.tensor([[0, 1, 2, 0]]), 1.5)),
        ("scatter_add_", (0, torch.tensor([[0, 1, 2, 0]]), floats(1, 4))),
        ("renorm_", (2.0, 0, 1.0)),
        ("mul_", (2.0,)), ("add_", (floats(4),)), ("pow_", (2,)), ("fill_", (2.0,)), ("zero_", ()),
        ("copy_", (floats(4),)), ("masked_scatter_", (bools(3, 4), floats(12))),
    ],
    ids=str,
)  # fmt: skip
def test_in_place_with_arguments(name, arguments):
    agree(
        written(name), written(name), floats(3, 4), *arguments, grad=name not in ("fill_", "zero_")
    )


def test_in_place_on_integers_keeps_the_dtype():
    for name, argument in (
        ("add_", 2),
        ("mul_", 3),
        ("floor_divide_", 2),
        ("remainder_", 3),
        ("bitwise_and_", 3),
    ):
        agree(written(name), written(name), integers(3, 4, low=1), argument)
    agree(written("logical_not_"), written("logical_not_"), bools(3))
    agree(written("bitwise_or_"), written("bitwise_or_"), bools(3), bools(3))
    (mine, _) = convert((integers(3), floats(3)), False)
    for refused in (
        lambda: mine[0].add_(0.5),
        lambda: mine[0].mul_(mine[1]),
        lambda: mine[0].div_(2),
    ):
        with pytest.raises((RuntimeError, TypeError)):
            refused()


OPERATORS = "add sub mul truediv pow floordiv mod lt le gt ge eq ne".split()


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name):
    function = getattr(operator, name)
    grad = name in ("add", "sub", "mul", "truediv", "pow", "mod")
    x, y = floats(3, 4, low=0.5, high=3), floats(4, low=0.5, high=3)
    agree(function, function, x, y, grad=grad)
    agree(function, function, x, 2.5, grad=grad)
    agree(function, function, 2.5, x, grad=grad and name != "mod")
    agree(function, function, integers(5, low=1), 3)
    agree(function, function, 3, integers(5, low=1))
    if name not in ("lt", "le", "gt", "ge", "eq", "ne"):
        changed = getattr(operator, f"i{name}")
        agree(
            lambda a, b: changed(a.clone(), b), lambda a, b: changed(a.clone(), b), x, y, grad=grad
        )


@pytest.mark.parametrize("name", ["and_", "or_", "xor", "lshift", "rshift"])
def test_bit_operators(name):
    function = getattr(operator, name)
    agree(function, function, integers(5, low=1), integers(5, high=4))
    agree(function, function, integers(5, low=1), 2)
    agree(function, function, 2, integers(5, high=4))
    if name in ("and_", "or_", "xor"):
        agree(function, function, bools(5), bools(5))
        agree(function, function, bools(5), True)


def test_unary_operators():
    for function in (operator.neg, operator.pos, abs):
        agree(function, function, floats(3, 4))
    agree(operator.invert, operator.invert, bools(4))
    agree(operator.invert, operator.invert, integers(4))
    agree(operator.matmul, operator.matmul, floats(2, 3), floats(3, 4))


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("sum", ((0, 1), True)), ("sum", ()), ("mean", (-1,)), ("max", ()), ("max", (1,)),
        ("min", (0, True)), ("argmax", (1,)),
        ("var", (0,)), ("std", ()), ("norm", ()), ("norm", (2, 1)), ("softmax", (1,)),
        ("log_softmax", (-1,)),
        ("matmul", (floats(4, 2),)), ("repeat", (2, 3)), ("repeat", ((2, 1),)), ("tile", (2,)),
        ("flip", (0, 1)),
        ("flip", ([1],)), ("roll", (1, 0)), ("gather", (1, torch.tensor([[0], [1], [2]]))),
        ("topk", (2,)),
        ("sort", ()), ("cumsum", (0,)), ("masked_fill", (bools(3, 4), 0.0)),
        ("where", (bools(3, 4), 0.0)),
        ("clamp", (-1, 1)), ("index_select", (0, torch.tensor([2, 0]))),
        ("type_as", (floats(1, dtype=torch.float32),)),
        ("logsumexp", (1,)), ("prod", ()), ("any", ()), ("all", (1,)), ("median", ()),
        ("addmm", (floats(3, 2), floats(2, 4))),
        ("index_put", ((torch.tensor([0, 2]), torch.tensor([1, 1])), floats(2))),
        ("isnan", ()), ("outer", ()), ("unique", ()), ("nonzero", ()), ("count_nonzero", ()),
        ("diff", ()),
    ],
    ids=str,
)  # fmt: skip
def test_methods(name, arguments):
    if name == "outer":
        agree(method(name), method(name), floats(3), floats(2))
        return
    agree(method(name), method(name), floats(3, 4), *arguments, grad=name != "unique")


def test_methods_are_pytorch_methods():
    only_functional = {f"{n}_" for n in "elu selu celu hardtanh relu6 leaky_relu threshold".split()}
    names = {*METHODS, *IN_PLACE} - only_functional
    assert {name for name in names if not hasattr(torch.Tensor, name)} == set()
    assert only_functional <= set(IN_PLACE)


def test_named_results():
    (mine, _) = convert((floats(3, 4),), False)
    result = mine[0].max(1)
    assert repr(result).startswith("max(") and result.values is result[0]
    same(result.indices, torch.tensor(result[1].numpy()))
