"""Diagonals, windows, `as_strided` and shape-changing in-place methods: true views, in every mode."""

import numpy as np
import pytest
from everywhere import MODES, agree_everywhere

import tracegrad as tg
from tracegrad.tracer.errors import GraphBreakError, InPlaceError, UnsupportedError

X = np.random.default_rng(5).standard_normal((2, 3, 4)).astype(np.float32)


def written(view, write=lambda v: v.mul_(3)):
    """The base after a write through `view(base)`, and the view read afterwards."""

    def call(t, F, x):
        base = x * 1
        part = view(base)
        write(part)
        return base, part * 2

    return call


PROGRAMS = {
    "diagonal": written(lambda x: x[0].diagonal()),
    "upper diagonal": written(lambda x: x.diagonal(1, 1, 2)),
    "diagonal of first and last": written(lambda x: x.diagonal(-1, 0, 2)),
    "diagonal of a transpose": written(lambda x: x.permute(2, 0, 1).diagonal(1, 2, 0)),
    "diagonal of a part": written(lambda x: x[:, 1:, ::2].diagonal(0, -1, -2)),
    "diagonal of a row": written(lambda x: x[0].unsqueeze(0).diagonal(1, 1, 2)),
    "diagonal outside": written(lambda x: x.diagonal(9, 1, 2)),
    "view of a diagonal": written(lambda x: x.diagonal(0, 1, 2)[1:, :2].unsqueeze(0)),
    "windows": written(lambda x: x.unfold(2, 2, 2)),
    "windows with gaps": written(lambda x: x.unfold(1, 1, 2)),
    "windows of a transpose": written(lambda x: x.transpose(0, 2)[1:].unfold(0, 1, 2)),
    "overlapping windows": written(lambda x: x.unfold(2, 3, 1), write=lambda v: None),
    "strided": written(lambda x: x.as_strided((2, 3), (12, 5), 1)),
    "strided and overlapping": written(lambda x: x.as_strided((3, 3), (1, 1)), lambda v: None),
    "unsqueeze_": written(lambda x: x.unsqueeze_(1)),
    "squeeze_": written(lambda x: x[:1].squeeze_(0)),
    "t_": written(lambda x: x[1].t_()),
    "transpose_": written(lambda x: x.transpose_(0, 2)),
    "swapaxes_ of a view": written(lambda x: x.view(6, 4).swapaxes_(0, 1)[1:]),
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_write_reaches_the_base(name, mode):
    agree_everywhere(mode, PROGRAMS[name], X, legal=True)


@pytest.mark.parametrize("mode", MODES)
def test_an_argument_is_written_through(mode):
    def step(x):
        x.permute(2, 0, 1).diagonal(0, 1, 2).add_(1)
        x.unfold(1, 1, 2).mul_(2)

    x, y = tg.tensor(X), tg.tensor(X)
    step(x)
    (step if mode == "eager" else tg.compile(step, backend=mode))(y)
    assert not np.array_equal(x.numpy(), X)
    np.testing.assert_array_equal(x.numpy(), y.numpy())


def test_views_follow_the_numpy_memory():
    array = X.copy()
    x = tg.from_numpy(array)
    x.diagonal(0, 1, 2).zero_()
    assert not array[:, [0, 1, 2], [0, 1, 2]].any()
    array[0, 0, 0] = 5
    assert x.unfold(2, 2, 2)[0, 0, 0, 0].item() == 5


@pytest.mark.parametrize("mode", MODES)
def test_overlapping_windows_take_no_writes(mode):
    def step(x):
        (x * 1).unfold(2, 3, 1).add_(1)

    with pytest.raises(InPlaceError, match="overlapping"):
        (step if mode == "eager" else tg.compile(step, backend=mode))(tg.tensor(X))


def test_a_leaf_keeps_its_shape():
    w = tg.ones(2, 3, requires_grad=True)
    with pytest.raises(InPlaceError, match=r"(?s)leaf.*where: .*test_strided_views.py"):
        w.t_()
    assert w.shape == (2, 3)


@pytest.mark.parametrize("backend", MODES[1:])
def test_the_shape_of_a_captured_tensor_stays(backend):
    state = tg.ones(2, 3)
    with pytest.raises(GraphBreakError, match="from outside"):
        tg.compile(lambda x: state.t_() * x, backend=backend, fullgraph=True)(tg.ones(1))
    assert state.shape == (2, 3)


def test_as_strided_refuses_what_it_would_count_otherwise():
    x = tg.arange(12).reshape(3, 4)
    with pytest.raises(UnsupportedError, match="not contiguous"):
        x.T.as_strided((2, 2), (1, 1))
    with pytest.raises(UnsupportedError, match="storage_offset"):
        x[1:].as_strided((2, 2), (1, 1), 0)
    with pytest.raises(tg.errors.ShapeError, match="reaches element 15"):
        x.as_strided((4, 4), (4, 1))


@pytest.mark.parametrize("mode", MODES)
def test_bits_as_another_dtype(mode):
    def call(t, F, x):
        y = x * 1
        bits = y.transpose(0, 1).view(t.int32)
        mantissa = bits & 0x7FFFFF
        bits.bitwise_and_(0x7FFFFFFF)  # clears the sign
        return y, mantissa, bits.view(t.float32), x.view(t.float32) * 2

    agree_everywhere(mode, call, X, grad=False, legal=True)
    with pytest.raises(tg.errors.ShapeError, match="same size"):
        tg.tensor(X).view(tg.int64)
    assert not tg.tensor(X, requires_grad=True).view(tg.int32).requires_grad


def part_written(t, F, x):
    z = t.complex(x, x + 1)
    z.real.mul_(3)
    z.imag[0] = 7.0
    t.real(z)[1].sub_(1)
    return z.real * 2, z.imag.sum(), z.abs()


@pytest.mark.parametrize("mode", MODES)
def test_writes_to_parts_of_complex_numbers(mode):
    agree_everywhere(mode, part_written, X, legal=True)


def test_parts_of_complex_numbers_are_views():
    z = tg.complex(tg.ones(2), tg.zeros(2))
    part = z.real
    part.add_(4)
    assert z.tolist() == [5 + 0j, 5 + 0j]
    assert tg.ones(2).real.tolist() == [1, 1]
    with pytest.raises(tg.errors.TracegradError):
        tg.ones(2).imag  # noqa: B018


@pytest.mark.parametrize("mode", MODES)
def test_gradients_through_parts_of_complex_numbers(mode):
    def call(t, F, x):
        z = t.complex(x * 1, x * 2)
        z.real.mul_(x)
        return ((z.imag**2).sum() + (z.real * 3).sum(),)

    agree_everywhere(mode, call, X, legal=True)
