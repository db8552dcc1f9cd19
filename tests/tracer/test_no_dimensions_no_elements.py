"""Tensors without dimensions and without elements, and index_put by tensors and masks: as PyTorch."""

from functools import partial

import numpy as np
import pytest
import torch
from everywhere import MODES, agree_everywhere

import tracegrad as tg

NUMBER = np.float32(2)
ROWS = np.zeros((0, 3), np.float32)
COLUMNS = np.zeros((2, 0), np.float32)
IMAGES = np.zeros((0, 3, 4), np.float32)
MATRIX = np.arange(6, dtype=np.float32).reshape(2, 3)
ROW = np.array([[7, 8, 9]], np.float32)

CASES = {
    "movedim": (lambda t, F, x: [t.movedim(x, 0, -1), x.moveaxis(-1, 0)], NUMBER),
    "quantile": (lambda t, F, x: [t.quantile(x, 0.3, dim=0), t.quantile(x, 0.3, -1, True)], NUMBER),
    "chunk": (lambda t, F, x: [*x.chunk(3), *x.chunk(1), *x.chunk(2, dim=1)], ROWS),
    "split": (lambda t, F, x: [*x.split(2), *x.split([0, 0])], ROWS),
    "trapezoid": (lambda t, F, x: [t.trapezoid(x, dim=0), t.trapezoid(x)], ROWS),
    "cumulative_trapezoid": (lambda t, F, x: t.cumulative_trapezoid(x, dim=0), ROWS),
    "batch_norm": (lambda t, F, x: F.batch_norm(x, None, None, training=True), COLUMNS),
    "instance_norm": (lambda t, F, x: F.instance_norm(x), IMAGES),
    "histc": (lambda t, F, x: t.histc(x.detach(), 3), ROWS),
    "histc of one place": (lambda t, F, x: t.histc(x.detach(), 3, 2, 2), MATRIX),
    "attention of no features": (
        lambda t, F, x: F.scaled_dot_product_attention(x, x, x), np.zeros((1, 4, 0), np.float32)),
    "attention of no keys": (
        lambda t, F, x, k: [F.scaled_dot_product_attention(x, k, k),
                            F.scaled_dot_product_attention(x, k, k, x[0] @ k[0].mT)],
        np.ones((1, 2, 4), np.float32), np.zeros((1, 0, 4), np.float32)),
    "attention of nothing": (
        lambda t, F, x: F.scaled_dot_product_attention(x, x, x, is_causal=True), IMAGES[:, :0]),
    "index_put": (
        lambda t, F, x, v: [t.index_put(x, (t.tensor([0, -1]), t.tensor([1, 1])), v[0, :2]),
                            t.index_put(x, (t.tensor([1, 1]),), v, accumulate=True),
                            x.index_put((t.tensor([1]),), v)], MATRIX, ROW),
    "index_put in place": (
        lambda t, F, x, v: t.index_put_(x * 1, (t.tensor([0]),), v), MATRIX, ROW),
    "values with an axis to spare": (lambda t, F, x, v: stored(t, x * 1, v[None]), MATRIX, ROW),
}  # fmt: skip


def stored(t, x, values):
    x[t.tensor([1, 0])] = values
    return x


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CASES)
def test_equal(name, mode):
    function, *arrays = CASES[name]
    agree_everywhere(mode, function, *arrays, legal=True)


@pytest.mark.parametrize("mode", ["eager"])
def test_index_put_by_a_mask(mode):
    mask = np.array([[True, False, True], [False, False, True]])
    agree_everywhere(
        mode,
        lambda t, F, x, v: [t.index_put(x, (t.from_numpy(mask),), v[0]),
                            x.index_put((t.tensor([True, False]),), v, accumulate=True)],
        MATRIX, ROW, legal=True,
    )  # fmt: skip


NO_DIMENSION = {
    "roll": lambda t, F, x: t.roll(x, 1, 0),
    "take_along_dim": lambda t, F, x: t.take_along_dim(x, t.tensor(0), 0),
    "unbind": lambda t, F, x: x.unbind(),
    "split": lambda t, F, x: x.split(1),
    "chunk": lambda t, F, x: x.chunk(1),
    "select": lambda t, F, x: x.select(0, 0),
    "trapezoid": lambda t, F, x: t.trapezoid(x),
    "glu": lambda t, F, x: F.glu(x),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NO_DIMENSION)
def test_a_number_has_no_dimension(name, mode):
    agree_everywhere(mode, NO_DIMENSION[name], NUMBER, grad=False, legal=False)


# Results of no elements of an operand that has some: a loss of nothing still has a gradient, zeros.
HISTORIES = {
    "gather": lambda t, x: x.gather(0, t.zeros(0, 2, dtype=t.int64)),
    "nll_loss": lambda t, x: t.nn.functional.nll_loss(x[:0], t.zeros(0).long(), reduction="sum"),
    "inv": lambda t, x: t.linalg.inv(x.expand(0, 2, 2)),
    "solve": lambda t, x: t.linalg.solve(x.expand(0, 2, 2), x[0, 0].expand(0, 2, 1)),
    "matrix_power": lambda t, x: t.linalg.matrix_power(x.expand(0, 2, 2), -2),
    "pinv": lambda t, x: t.linalg.pinv(x[:, :0]),
    "qr": lambda t, x: sum(part.sum() for part in t.linalg.qr(x[:, :0])),
    "median": lambda t, x: x[:0].median(),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", HISTORIES)
def test_nothing_has_a_history(name, mode):
    """In compiled calls the graph says what a result comes from, so it has to say it of nothing too."""

    def gradient(t, run):
        x = t.tensor([[3.0, 1.0], [1.0, 2.0]], requires_grad=True)
        y = run(lambda x: HISTORIES[name](t, x))(x)
        y.sum().backward()
        return x.grad.tolist()

    mine = gradient(tg, (lambda f: f) if mode == "eager" else partial(tg.compile, backend=mode))
    assert mine == gradient(torch, lambda f: f)
