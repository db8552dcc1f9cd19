"""Cached programs of eager ops: what their signature must tell apart, and what they never share."""

import numpy as np
import pytest
import torch

import tracegrad as tg
from tracegrad.backends.numpy import interpret
from tracegrad.backends.numpy.interpret import decomposition
from tracegrad.backends.numpy.straight import straight
from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, placeholder
from tracegrad.ir.types import TensorType, c64, f32, f64, i64
from tracegrad.tracer import functions
from tracegrad.tracer.dispatch import UserOp, binder
from tracegrad.tracer.eager import program
from tracegrad.tracer.eager import run as eager
from tracegrad.tracer.errors import ArgumentError


def test_the_default_dtype_is_part_of_the_signature():
    x = tg.arange(3)
    assert (x * 1.5).dtype is tg.float32 and tg.sin(x).dtype is tg.float32
    tg.set_default_dtype(tg.float64)
    try:
        assert (x * 1.5).dtype is tg.float64 and tg.sin(x).dtype is tg.float64
    finally:
        tg.set_default_dtype(tg.float32)
    assert (x * 1.5).dtype is tg.float32 and tg.sin(x).dtype is tg.float32


def test_equal_attributes_of_other_types_are_other_programs():
    x = tg.tensor([[1.0, 2.0]])
    assert x.sum(1).shape == (1,) and x.sum(True).shape == (1,)
    assert tg.full((2,), 1).dtype is tg.int64 and tg.full((2,), 1.0).dtype is tg.float32


SIGNED = {
    "leaky_relu": lambda m, x, zero: m.nn.functional.leaky_relu(x, zero),
    "pad": lambda m, x, zero: m.nn.functional.pad(x, (1, 1), value=zero),
    "threshold": lambda m, x, zero: m.nn.functional.threshold(x, 0.5, zero),
    "elu": lambda m, x, zero: m.nn.functional.elu(x, zero),
    "hardtanh": lambda m, x, zero: m.nn.functional.hardtanh(x, zero, 1.0),
    "add": lambda m, x, zero: m.add(x * 0, x, alpha=zero),
    "addcmul": lambda m, x, zero: m.addcmul(x * 0, x, x, value=zero),
    "nan_to_num": lambda m, x, zero: m.nan_to_num(x * float("nan"), nan=zero),
}


@pytest.mark.parametrize("name", SIGNED)
def test_the_sign_of_a_zero_attribute_counts(name):
    for zero in (0.0, -0.0, 0.0):
        mine = SIGNED[name](tg, tg.tensor([-1.0, 2.0]), zero).numpy()
        theirs = SIGNED[name](torch, torch.tensor([-1.0, 2.0]), zero).numpy()
        np.testing.assert_array_equal(np.signbit(mine), np.signbit(theirs), str(zero))


def test_a_composite_is_taken_apart_anew_for_another_zero():
    x = placeholder(TensorType((2,), f32))
    graphs = [decomposition(ops.softplus(x, beta=beta, threshold=1.0)) for beta in (0.0, -0.0)]
    positive, negative = [interpret(graph, [np.ones(2, np.float32)])[0] for graph in graphs]
    assert np.isposinf(positive).all() and np.isneginf(negative).all()


def test_a_new_nan_is_not_a_new_program():
    def call():
        return tg.nn.functional.pad(tg.ones(4), (1, 1), value=float("nan"))

    call()
    before = len(eager._programs), len(program._programs)
    call()
    assert (len(eager._programs), len(program._programs)) == before


@pytest.mark.parametrize("function", [functions.real, functions.imag])
def test_results_do_not_share_memory_with_operands(function):
    """The ops; `tg.real` and `tg.imag` are views, as in PyTorch."""
    x = tg.tensor([1 + 2j, 3 - 4j])
    part = function(x)
    before = part.tolist()
    with tg.no_grad():
        x.mul_(2)
    assert part.tolist() == before
    whole = tg.nn.functional.dropout(tg.ones(3), 1e-12)
    assert whole.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("number", "node"),
    [(0.1, f64), (1e300, f64), (float("nan"), f64), (-0.0, f64), (3, i64), (2**53 + 1, i64),
     (2**60 + 2**36 + 1, i64), (-(2**62) - 2**38 + 1, i64)],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [f32, f64, c64])
def test_numbers_round_once(number, node, dtype):
    n, x = placeholder(TensorType((), node)), placeholder(TensorType((2, 3), dtype))
    wide = ops.broadcast_to(ops.cast(n, dtype=dtype), shape=(2, 3), dims=())
    graph = Graph((x, n), (ops.add(x, wide), wide))
    array = np.zeros((2, 3), dtype.np)
    expected = interpret(graph, [array, np.asarray(number, node.np)])
    for mine, other in zip(straight(graph, ["array", "number"])([array, number]), expected):
        assert mine.dtype == other.dtype and mine.tobytes() == other.tobytes()


def test_numpy_error_state_is_left_alone():
    with np.errstate(all="raise"):
        before = np.geterr()
        x = tg.tensor([0.0, 1e30])
        assert (1 / x).isinf()[0].item() and tg.nn.functional.softmax(x * 1e30, 0).isnan().any()
        with pytest.raises(Exception, match="out of range"):
            x[tg.tensor([5])]
        assert np.geterr() == before


def test_numbers_and_missing_operands_reach_their_places():
    x = tg.tensor([[-2.0, 0.5, 3.0]], requires_grad=True)
    for low, high in ((None, 1), (0.0, None), (-1, 2.5)):
        y = x.clamp(low, high)
        expected = np.clip(x.detach().numpy(), low, high)
        np.testing.assert_array_equal(y.detach().numpy(), expected)
        x.grad = None
        y.sum().backward()
        inside = (x.detach().numpy() == expected).astype(np.float32)
        np.testing.assert_array_equal(x.grad.numpy(), inside)


def calls(op):
    """Ways to call `op`: every number of positional arguments, the others by name or left out."""
    names = [*op.operands, *op.static]
    values = {name: f"<{name}>" for name in op.operands} | {
        name: k for k, name in enumerate(op.static)
    }
    for count in range(len(names) + 1):
        for given in (
            (),
            names[count:],
            names[count:][::-1],
            names[count:][-1:],
            names[:1],
            ("no",),
        ):
            yield tuple(values[n] for n in names[:count]), {n: values.get(n) for n in given}


def outcome(bind, args, kwargs):
    try:
        return bind(args, kwargs)
    except ArgumentError as error:
        return str(error)


def test_binders_agree_with_bind():
    compared = 0
    for op in vars(functions).values():
        if isinstance(op, UserOp):
            for args, kwargs in calls(op):
                expected = outcome(op.bind, args, kwargs)
                found = outcome(binder(op, len(args), *kwargs), args, kwargs)
                assert found == expected
                compared += not isinstance(found, str)
                if not isinstance(found, str) and expected[1] is op.default_attrs:
                    assert found[1] is op.default_attrs
    assert compared > 500


def test_masks_read_alike_with_and_without_history():
    x = tg.arange(24.0).reshape(2, 3, 4).transpose(0, 1)
    leaf = (x * 1).requires_grad_()
    for mask in (x > 5, x[..., 0] > 5, x[:, 0, 0] > 100):
        for y in (x[mask], leaf[mask].detach()):
            np.testing.assert_array_equal(y.numpy(), x.numpy()[mask.numpy()])
    with pytest.raises(IndexError, match="does not fit"):
        x[tg.tensor([True, False])]


def test_what_is_used_stays_in_a_cache_and_the_rest_is_bounded():
    cache = program.LRU(4)
    cache.add("hot", "kept")
    for k in range(100):
        cache.add(k, str(k))
        assert cache["hot"] == "kept"
        assert len(cache) + len(cache.old) <= 8
        if k:
            assert cache.get(k - 1) == str(k - 1)
    assert cache[0] is None and cache.get(0, "gone") == "gone"
    cache.clear()
    assert cache["hot"] is None and cache.get(99) is None


def test_a_program_in_use_is_not_made_again_because_others_are(monkeypatch):
    monkeypatch.setattr(eager, "_programs", program.LRU(8))
    monkeypatch.setattr(program, "_programs", program.LRU(8))
    made = []
    build = program.Program.__init__
    monkeypatch.setattr(
        program.Program, "__init__", lambda self, op, *rest: (made.append(op.name), build(self, op, *rest))[1]
    )  # fmt: skip
    x = tg.ones(4)
    for n in range(50):
        tg.nn.functional.leaky_relu(x, 0.1 + n)  # a slope that changes
        tg.nn.functional.softsign(x)
    assert made.count("softsign") == 1
