"""View steps: NumPy's view, the IR of it and the IR of a write agree; strides are PyTorch's."""

import numpy as np
import pytest
import torch

import tracegrad as tg
from tracegrad.backends.numpy import interpret
from tracegrad.ir.graph import Graph, placeholder
from tracegrad.ir.types import TensorType, f32
from tracegrad.tracer.errors import (
    ArgumentError,
    InPlaceError,
    InvalidValueError,
    OutOfRangeError,
    ShapeError,
)
from tracegrad.tracer.memory.view_methods import select
from tracegrad.tracer.memory.views import Expand, Identity, Pick, Reshape, Slice, Transpose

BASE = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
STEPS = [
    Identity(), Reshape((4, 6)), Transpose((2, 0, 1)), Slice((0, 1, 0), (2, 3, 4), (1, 1, 2)),
    Pick((1, 0, 0), (2, 3, 4), (1, 1, 1), (0,)), Pick((0, 2, 1), (2, 3, 4), (1, 1, 2), (1,)),
    Pick((0, 1, 3), (2, 2, 4), (1, 1, 1), (1, 2)), Pick((1, 1, 3), (2, 2, 4), (1, 1, 1), (0, 1, 2)),
    Expand((5, 2, 3, 4)),
]  # fmt: skip
INDICES = [
    0, -1, (1, 2), (1, 2, 3), (slice(None), 1), (Ellipsis, 0), (0, slice(1, None), -1),
    (slice(0, 2), 1, slice(None, None, 2)), (0, None), (None, 1, Ellipsis, None, 2), slice(1, 2),
]  # fmt: skip


@pytest.mark.parametrize("step", STEPS, ids=repr)
def test_the_view_is_what_its_ir_computes(step):
    base = placeholder(TensorType(BASE.shape, f32))
    [expected] = interpret(Graph((base,), (step.emit(base),)), [BASE])
    view = step.view(BASE)
    np.testing.assert_array_equal(view, expected)
    assert view.shape == expected.shape and np.shares_memory(view, BASE)


@pytest.mark.parametrize("step", [s for s in STEPS if not s.repeats], ids=repr)
def test_a_write_through_the_view_is_what_its_ir_computes(step):
    base, array = placeholder(TensorType(BASE.shape, f32)), BASE.copy()
    view = step.view(array)
    new = np.cos(np.arange(view.size, dtype=np.float32)).reshape(view.shape)
    value = placeholder(TensorType(view.shape, f32))
    [expected] = interpret(Graph((base, value), (step.emit_write(base, value),)), [BASE, new])
    view[...] = new
    np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize(
    ("shape", "index"),
    [((2, 3, 4), index) for index in INDICES]
    + [((2, 3, 1), index) for index in (0, (1, 2), (Ellipsis, 0), (slice(None), 1))],
    ids=repr,
)
def test_an_index_has_the_strides_and_gradient_of_torch(index, shape):
    array = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    ours, theirs = tg.tensor(array, requires_grad=True), torch.tensor(array, requires_grad=True)
    a, b = ours[index], theirs[index]
    assert tuple(a.shape) == tuple(b.shape)
    if None not in (index if isinstance(index, tuple) else ()):
        assert a.stride() == b.stride() and a.storage_offset() == b.storage_offset()
    (a * a).sum().backward()
    (b * b).sum().backward()
    np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-6)


def test_an_index_is_one_step_on_the_tape():
    x = tg.ones(3, 4, requires_grad=True)
    for view in (x[1], x[1, 2], x[:, 0], x[1, 1:3], select(x, 1, 2)):
        assert view.grad_fn.parents == (x._entry,)


@pytest.mark.parametrize("layout", ["contiguous", "transposed", "read-only"])
@pytest.mark.parametrize(
    ("shape", "wanted"),
    [((4,), (3, 4)), ((1,), (5,)), ((), (2, 3)), ((2, 1), (2, 5)), ((1, 3, 1), (2, 4, 3, 5)),
     ((1, 0), (4, 0)), ((1, 1), (4, 1)), ((1,), (0,))],
)  # fmt: skip
def test_expand_is_numpys_broadcast(shape, wanted, layout):
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    if layout == "transposed":
        array = np.ascontiguousarray(array.T).T
    array.flags.writeable = layout != "read-only"
    view, expected = Expand(wanted).view(array), np.broadcast_to(array, wanted)
    assert (view.shape, view.strides, view.dtype) == (expected.shape, expected.strides, array.dtype)
    assert not view.flags.writeable
    np.testing.assert_array_equal(view, expected)
    assert np.may_share_memory(view, array) or not view.size


def test_detaching_leaves_nothing_on_the_storage():
    x = tg.ones(3, requires_grad=True)
    for _ in range(100):
        x.detach()
    assert len(x._storage.entries) == 1 and len(x._storage.members()) == 1


def test_a_detached_tensor_may_start_a_history_of_its_own():
    x = tg.ones(3, requires_grad=True)
    y = x.detach().requires_grad_()
    z = y * 1.0
    z[0].mul_(3.0)
    z.sum().backward()
    assert x.grad is None
    np.testing.assert_array_equal(y.grad.numpy(), [3.0, 1.0, 1.0])


VALUES = [
    2.5,
    3,
    True,
    np.full((4,), 7.0),
    np.full((1, 1, 4), 8.0),
    np.full((1,), 9.0),
    np.float64(1.5),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool])
@pytest.mark.parametrize("value", VALUES, ids=str)
@pytest.mark.parametrize(
    "index", [1, (0, 2), (slice(None), 1), (Ellipsis, None, slice(0, 2), slice(None))]
)
def test_a_part_is_written_as_in_torch(index, value, dtype):
    theirs = torch.zeros(3, 3, 4, dtype=dtype)
    ours = tg.zeros(3, 3, 4, dtype=getattr(tg, str(dtype).removeprefix("torch.")))
    alias, transposed = ours.view(-1), ours.transpose(0, 1)
    outside = ours.numpy()
    for mine, other in ((ours, theirs), (transposed, theirs.transpose(0, 1))):
        if isinstance(value, np.ndarray):
            mine[index], other[index] = tg.tensor(value), torch.tensor(value)
        else:
            mine[index], other[index] = value, value
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
        np.testing.assert_array_equal(alias.numpy(), theirs.reshape(-1).numpy())
    np.testing.assert_array_equal(outside, theirs.numpy())


def test_a_part_written_overlaps_what_is_read():
    ours, theirs = tg.arange(8), torch.arange(8)
    ours[1:] = ours[:-1]
    theirs[1:] = theirs[:-1].clone()
    np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_a_part_written_leaves_the_old_value_to_the_tape():
    x, w = tg.ones(3), tg.ones(3, requires_grad=True)
    y = (x * w).sum()
    x[1] = 5.0
    y.backward()
    np.testing.assert_array_equal(w.grad.numpy(), [1.0, 1.0, 1.0])
    z = tg.ones(3) * w
    z[0] = 4.0
    w.grad = None
    (z * z).sum().backward()
    np.testing.assert_array_equal(w.grad.numpy(), [0.0, 2.0, 2.0])


def test_a_part_that_cannot_be_written_is_explained():
    leaf, row = tg.ones(3, requires_grad=True), tg.ones(1, 3).expand(2, 3)
    with pytest.raises(InPlaceError, match="a leaf that requires grad"):
        leaf[0] = 1.0
    with pytest.raises(InPlaceError, match="expanded"):
        row[0] = 1.0
    with pytest.raises(ShapeError, match="shape"):
        tg.ones(3)[:2] = tg.ones(3)
    with pytest.raises(ArgumentError, match="complex"):
        tg.ones(3)[0] = 1j
    with tg.no_grad():
        leaf[0] = 7.0
    np.testing.assert_array_equal(leaf.detach().numpy(), [7.0, 1.0, 1.0])


@pytest.mark.parametrize("dim", [0, -1, 1])
def test_pieces_are_those_of_torch(dim):
    array = np.arange(42, dtype=np.float32).reshape(6, 7)
    ours, theirs = tg.tensor(array), torch.tensor(array)
    for call in (
        lambda x: x.split(2, dim), lambda x: x.split([1, x.shape[dim] - 1], dim),
        lambda x: x.split((2, x.shape[dim] - 2), dim), lambda x: x.chunk(4, dim),
        lambda x: x.chunk(20, dim=dim), lambda x: x.unbind(dim),
    ):  # fmt: skip
        for _ in range(2):  # worked out, then remembered
            mine, other = call(ours), call(theirs)
            assert isinstance(mine, tuple) and len(mine) == len(other)
            for a, b in zip(mine, other):
                np.testing.assert_array_equal(a.numpy(), b.numpy())
                assert a.stride() == b.stride() and a.storage_offset() == b.storage_offset()


def test_pieces_that_do_not_fit_are_refused_every_time():
    x = tg.ones(6, 7)
    for _ in range(2):
        with pytest.raises(ShapeError, match="split into"):
            x.split((2, 2))
        with pytest.raises(InvalidValueError, match="split into pieces of 0"):
            x.split(0)
        with pytest.raises(InvalidValueError, match="chunk into 0"):
            x.chunk(0)
        with pytest.raises(OutOfRangeError):
            x.unbind(2)


def test_a_shape_is_a_size_every_time():
    for x in (tg.ones(2, 3), tg.ones(2, 3), tg.ones(3, 2).t()):
        assert type(x.shape) is tg.Size and x.shape == (2, 3) and x.shape.numel() == 6
        assert x.shape[1:].numel() == 3 and x.shape[0] == 2
        assert repr(x.shape[:1] + (4,)) == "tracegrad.Size([2, 4])"
