"""A quick operator and the generic program of its op: the same values, dtypes and gradients."""

import numpy as np
import pytest

import tracegrad as tg
from tracegrad.tracer import functions
from tracegrad.tracer.dispatch import apply
from tracegrad.tracer.eager import quick
from tracegrad.tracer.errors import ShapeError

RNG = np.random.default_rng(5)
BINARY = {
    "add": quick.add, "sub": quick.sub, "mul": quick.mul, "div": quick.truediv,
    "matmul": quick.matmul,
}  # fmt: skip


def run(call, arrays, wanted):
    """(result, gradients) of a call on fresh tensors."""
    operands = [tg.tensor(a) if isinstance(a, np.ndarray) else a for a in arrays]
    leaves = [t.requires_grad_() for t, want in zip(operands, wanted) if want]
    result = call(*operands)
    if not leaves:
        return result, []
    weights = tg.tensor(np.cos(np.arange(result.numel())).reshape(tuple(result.shape)))
    (result * weights.to(result.dtype)).sum().backward()
    return result.detach(), [leaf.grad for leaf in leaves]


def same(quickly, generic):
    (a, grads), (b, others) = quickly, generic
    for mine, other in zip([a, *grads], [b, *others], strict=True):
        assert mine.dtype is other.dtype and mine.shape == other.shape
        np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=2e-6, atol=1e-7)


def generic_of(name):
    op = getattr(functions, {"max": "amax", "min": "amin"}.get(name, name))
    attrs = op.bind((None,) * len(op.operands), {})[1]
    return lambda *operands: apply(op, operands, attrs)


@pytest.mark.parametrize("wanted", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("shapes", [((3, 4), (3, 4)), ((3, 1), (4,)), ((), (2,))])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", BINARY)
def test_two_tensors(name, dtype, shapes, wanted):
    if name == "matmul":
        fitting = {(3, 4): ((3, 4), (4, 2)), (3, 1): ((2, 3, 4), (4,)), (): ((4,), (4,))}
        shapes = fitting[shapes[0]]
    arrays = [RNG.uniform(0.5, 2.0, shape).astype(dtype) for shape in shapes]
    same(run(BINARY[name], arrays, wanted), run(generic_of(name), arrays, wanted))


@pytest.mark.parametrize("number", [2.5, -3, 4])
@pytest.mark.parametrize("name", ["add", "sub", "mul", "div"])
def test_a_tensor_and_a_number(name, number):
    arrays = [RNG.uniform(0.5, 2.0, (3, 4)).astype(np.float32), number]
    for wanted in ((False, False), (True, False)):
        same(run(BINARY[name], arrays, wanted), run(generic_of(name), arrays, wanted))


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
@pytest.mark.parametrize("name", ["add", "sub", "mul", "div"])
def test_integers(name, dtype):
    arrays = [RNG.integers(1, 200, (5,)).astype(dtype) for _ in range(2)]
    none = (False, False)
    same(run(BINARY[name], arrays, none), run(generic_of(name), arrays, none))


@pytest.mark.parametrize("name", quick.UNARY)
@pytest.mark.parametrize("shape", [(), (3, 4)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_tensor(name, shape, dtype):
    low = 0.1 if name in ("sqrt", "rsqrt", "log") else -2.0
    arrays = [RNG.uniform(low, 2.0, shape).astype(dtype)]
    for wanted in ((False,), (True,)):
        same(run(quick.UNARY[name], arrays, wanted), run(generic_of(name), arrays, wanted))


@pytest.mark.parametrize("name", ["sum", "max", "min"])
def test_reductions_keep_their_other_forms(name):
    method = quick.UNARY[name]
    x = tg.tensor([[1.0, -2.0], [3.0, float("nan")]])
    expected = x.numpy()[:1]
    assert method(x[:1]).item() == getattr(expected, name)()
    along = method(x[:1], dim=1)
    along = along if name == "sum" else along.values
    np.testing.assert_array_equal(along.numpy(), getattr(expected, name)(1))
    assert np.isnan(method(x).item())
    for half, total in ((tg.float16, 4100), (tg.bfloat16, 4096)):  # summed in float32
        ones = tg.ones(4099, dtype=half)
        assert method(ones).dtype is half
        assert method(ones).item() == (total if name == "sum" else 1)
    if name != "sum":
        with pytest.raises((ShapeError, IndexError, RuntimeError), match="no elements"):
            method(tg.zeros(0, 2))


EDGES = [0.1, -0.0, 0.0, 1.0, 1e30, -3.0, np.inf, -np.inf, np.nan]
OTHERS = [0.1, 0, 1, 1e300, -3, float("nan"), float("inf"), 2**53 + 1, True]


@pytest.mark.parametrize("name", quick.COMPARISONS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_comparisons_with_numbers(name, dtype):
    with np.errstate(over="ignore"):
        x = tg.tensor(np.array(EDGES).astype(dtype), requires_grad=True)
    for other in OTHERS:
        result = quick.COMPARISONS[name](x, other)
        assert not result.requires_grad
        same((result, []), (generic_of(name)(x, other), []))


@pytest.mark.parametrize("name", quick.COMPARISONS)
@pytest.mark.parametrize(
    "dtypes", [("f4", "f4"), ("f8", "f4"), ("i8", "i8"), ("u1", "i4"), ("?", "?")]
)
def test_comparisons_of_tensors(name, dtypes):
    first, second = (
        RNG.integers(0, 3, shape).astype(t) for t, shape in zip(dtypes, [(3, 4), (4,)])
    )
    compare = quick.COMPARISONS[name]
    for a, b in ((first, second), (first[0, 0], second[0])):
        same(
            (compare(tg.tensor(a), tg.tensor(b)), []),
            (generic_of(name)(tg.tensor(a), tg.tensor(b)), []),
        )


@pytest.mark.parametrize("name", ["lt", "le", "gt", "ge", "eq", "ne"])
def test_shapes_that_do_not_compare_are_explained(name):
    with pytest.raises(ShapeError, match=rf"{name}\("):
        getattr(tg.ones(3), f"__{name}__")(tg.ones(4))
