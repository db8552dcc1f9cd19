"""Type promotion as PyTorch's: every pair of dtypes, as tensors, 0-d tensors and numbers."""

import itertools

import pytest
import torch
from torch_oracle import FROM_TORCH, TO_TORCH, agree, convert

from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, placeholder
from tracegrad.ir.types import TensorType, bool_, f16, f32, f64, i32, i64, u8
from tracegrad.tracer import functions as F
from tracegrad.tracer.dispatch import Weak
from tracegrad.tracer.functions import promotion
from tracegrad.tracer.state import get_default_dtype, set_default_dtype

DTYPES = [d for d in FROM_TORCH if d is not torch.complex128]
NUMBERS = [True, 3, 2.5, 1 + 2j]


def value(dtype, shape):
    return torch.ones(shape, dtype=dtype)


def both(name, a, b):
    """The result dtypes of one call, or None where it is refused."""
    results = []
    (mine, _) = convert((a, b), False)
    for library, args in ((torch, (a, b)), (F, mine)):
        try:
            results.append(getattr(library, name)(*args).dtype)
        except (RuntimeError, TypeError, NotImplementedError):
            results.append(None)
    theirs, ours = results
    return theirs, ours if ours is None else TO_TORCH[ours]


@pytest.mark.parametrize("name", ["add", "div"])
@pytest.mark.parametrize("first, second", [((3,), (3,)), ((3,), ()), ((), (3,)), ((), ())])
def test_pairs_of_tensors(name, first, second):
    for a, b in itertools.product(DTYPES, DTYPES):
        if {torch.float16, torch.complex64} == {a, b}:
            continue  # may be PyTorch's complex32, which has no counterpart
        theirs, ours = both(name, value(a, first), value(b, second))
        assert theirs is ours, (name, a, first, b, second, theirs, ours)


@pytest.mark.parametrize("name", ["add", "mul", "div", "sub", "remainder", "maximum"])
@pytest.mark.parametrize("shape", [(3,), ()])
def test_tensor_and_number(name, shape):
    for dtype, number in itertools.product(DTYPES, NUMBERS):
        if name == "maximum":
            number = torch.tensor(number)
        if dtype is torch.float16 and isinstance(number, complex):
            continue  # PyTorch's complex32 has no counterpart
        if name == "remainder" and (dtype is torch.bool or dtype.is_complex):
            continue
        theirs, ours = both(name, value(dtype, shape), number)
        assert theirs is ours, (name, dtype, shape, number, theirs, ours)
        if isinstance(number, torch.Tensor):
            continue
        theirs, ours = both(name, number, value(dtype, shape))
        assert theirs is ours or theirs is None, (name, number, dtype, shape, theirs, ours)


def test_types_that_torch_promotes():
    for a, b in itertools.product(DTYPES, DTYPES):
        mine = promotion.promote_types(FROM_TORCH[a], FROM_TORCH[b])
        assert TO_TORCH[mine] is torch.promote_types(a, b)
        assert promotion.can_cast(FROM_TORCH[a], FROM_TORCH[b]) == torch.can_cast(a, b)


@pytest.mark.parametrize("name", ["sin", "sigmoid", "exp", "sqrt", "tanh", "reciprocal"])
def test_float_functions_of_integers(name):
    for dtype in DTYPES:
        if not dtype.is_complex and dtype is not torch.float16:
            agree(getattr(F, name), getattr(torch, name), value(dtype, (3,)), grad=False)


def test_values_after_promotion():
    x = torch.tensor([1, 200, 255], dtype=torch.uint8)
    agree(F.add, torch.add, x, 100, grad=False)  # wraps
    agree(F.add, torch.add, x, -1, grad=False)
    agree(F.mul, torch.mul, x, torch.tensor([2, -3, 4], dtype=torch.int8))
    agree(F.lt, torch.lt, torch.tensor([1, 2, 3]), 2.5)
    agree(F.eq, torch.eq, torch.tensor([1, 0]), torch.tensor([True, False]))
    agree(
        F.add,
        torch.add,
        torch.tensor([1.0, 2.0], dtype=torch.float16),
        torch.tensor(3.0),
        grad=False,
    )


def test_gradients_come_back_in_the_operands_dtypes():
    a = torch.tensor([1.5, 2.0], dtype=torch.float32)
    b = torch.tensor([0.5, -1.0], dtype=torch.float64)
    agree(F.mul, torch.mul, a, b)
    agree(F.add, torch.add, a, torch.tensor(2.0, dtype=torch.float64))


def test_default_dtype():
    before = get_default_dtype()
    try:
        set_default_dtype(f64)
        assert (
            promotion.result_dtype(
                Weak(ops.literal(2.0), "float"), placeholder(TensorType((2,), i64))
            )
            is f64
        )
    finally:
        set_default_dtype(before)


@pytest.mark.parametrize("dtype", [u8, i32, f16, f32])
def test_known_numbers_become_constants_of_the_type(dtype):
    node = promotion.lift(Weak(ops.literal(300), "int"), dtype, (2, 3))
    assert node.op is ops.constant and node.type == TensorType((2, 3), dtype)
    assert node.attrs.value.splat == (44 if dtype is u8 else 300)


def test_recorded_powers_of_known_numbers():
    from tracegrad.backends.numpy import interpret

    x = torch.tensor([0.5, 2.0, 3.0])
    for exponent in (2, 3, 1, 0.5, -0.5, -1, 0, 1.7):
        node = placeholder(TensorType((3,), f32))
        weak = Weak(ops.literal(exponent), "int" if isinstance(exponent, int) else "float")
        out = F.FUNCTIONS["pow"].emit(node, weak)
        (got,) = interpret(Graph((node,), (out,)), [x.numpy()])
        torch.testing.assert_close(torch.tensor(got), x**exponent)


def test_errors_name_shapes_and_dtypes():
    x, y = placeholder(TensorType((3, 4), f32)), placeholder(TensorType((3, 2), f32))
    with pytest.raises(TypeError, match=r"\[3, 4\] and \[3, 2\] do not broadcast"):
        F.FUNCTIONS["add"].emit(x, y)
    with pytest.raises(TypeError, match="float32 and int64"):
        F.FUNCTIONS["matmul"].emit(x, placeholder(TensorType((4, 2), i64)))
    with pytest.raises(TypeError, match="bool"):
        F.FUNCTIONS["neg"].emit(placeholder(TensorType((3,), bool_)))
