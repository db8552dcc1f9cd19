"""Values at the edge of an op's domain: nan, infinities, ties, zeros, no elements, integers that
wrap, indices and probabilities out of range. Equal to PyTorch in every mode, or an error in all.
"""

import numpy as np
import pytest
from everywhere import MODES, agree_everywhere

nan, inf = np.nan, np.inf


def f32(*values):
    return np.array(values, np.float32)


def i64(*values):
    return np.array(values, np.int64)


def i32(*values):
    return np.array(values, np.int32)


def u8(*values):
    return np.array(values, np.uint8)


X = f32(1, -2, nan, 0, 3, -0.0)
TIES = f32(1, 3, 3, 1, 1)
SINGULAR = np.array([[1, 2], [2, 4]], np.float32)
ROWS = np.ones((2, 3), np.float32)
NONE = np.zeros((0, 3), np.float32)
POWERS = np.ldexp(np.float32(1), np.arange(-126, 128))
SQUARE = np.arange(9, dtype=np.float32).reshape(3, 3) % 4
HUGE = f32(1e20, -1e20, nan, inf, -inf, 300.7, -300.7, -1.5, 127.9, -128.9, 0.5)

CASES = {
    "sign": (lambda t, F, x: t.sign(x), X),
    "rounding": (lambda t, F, x: [x.round(), x.floor(), x.ceil(), x.trunc()], f32(0.5, 1.5, -0.5)),
    "one of the roundings": (lambda t, F, x: x.round(decimals=1), f32(0.25, 1.35)),
    "clamp": (lambda t, F, x: [x.clamp(0, 1), x.clamp(-2, 3), x.clamp(3, 1)], X),
    "clamp one side": (lambda t, F, x: [x.clamp(min=3), x.clamp(max=-2)], X),
    "clamp by nan": (lambda t, F, x: x.clamp(nan, 1), X),
    "clamp by tensors": (lambda t, F, x, a, b: x.clamp(a, b), f32(0, 1, 2, 1), f32(0, 1, 3, 2),
                         f32(1, 1, 4, 1)),
    "softshrink": (lambda t, F, x: F.softshrink(x), f32(-0.5, 0.5, nan, 0, 1, -1)),
    "hardshrink": (lambda t, F, x: F.hardshrink(x), f32(-0.5, 0.5, nan, 0, 1)),
    "threshold": (lambda t, F, x: F.threshold(x, 0, 7), X),
    "relu": (lambda t, F, x: [F.relu(x), F.leaky_relu(x), F.relu6(x), F.hardtanh(x)], X),
    "heaviside": (lambda t, F, x, y: t.heaviside(x.detach(), y.detach()), f32(0, 1, -1, nan),
                  f32(5, 5, 5, 5)),
    "fmax": (lambda t, F, x, y: [t.fmax(x, y), t.fmin(x, y)], f32(1, 3, nan, 0), f32(1, 2, 1, nan)),
    "maximum": (lambda t, F, x, y: [t.maximum(x, y), t.minimum(x, y)], f32(1, 3, 0), f32(1, 2, 5)),
    "atan2": (lambda t, F, x, y: t.atan2(x, y), f32(0, 0, -0.0, 1), f32(0, -1, -1, 0)),
    "gelu far out": (lambda t, F, x: F.gelu(x), f32(-1e30, -100, -6, 6, 100)),
    "erf": (lambda t, F, x: t.erf(x), f32(-inf, -4, 4, inf)),
    "erfc": (lambda t, F, x: t.erfc(x), f32(-inf, -4, 4, 9, inf)),
    "hardswish": (lambda t, F, x: F.hardswish(x), f32(-9, -3, -1, 3, inf)),
    "hardsigmoid near -3": (lambda t, F, x: F.hardsigmoid(x) * 1e6, f32(-3, -2.999999, -2.9)),
    "sort": (lambda t, F, x: [t.sort(x)[0], t.sort(x, descending=True)[0]], X),
    "argsort": (lambda t, F, x: t.argsort(x, stable=True), X),
    "argmax": (lambda t, F, x: [x.argmax(), x.argmin(), x[3:].argmax()], X),
    "max of ties": (lambda t, F, x: [x.max(), x.amax(), x.amin(0), x.max(0)], TIES),
    "medians of ties": (lambda t, F, x: [x.median(0), x.mode(0)], TIES),
    "max of nan": (lambda t, F, x: [x.detach().max(), x.detach().min(), x.max(0)], X),
    "moments of one": (lambda t, F, x: [x.std(), x.var(), x.std(unbiased=False)], f32(3)),
    "moments of none": (lambda t, F, x: [x.std(), x.var(), x.mean()], f32()),
    "moments of equals": (lambda t, F, x: [x.std(), x.var()], f32(3, 3, 3)),
    "norm of zeros": (lambda t, F, x: [x.norm(), F.normalize(x, dim=0)], f32(0, 0)),
    "softmax of none": (lambda t, F, x: [t.softmax(x, 0), t.log_softmax(x, 0)], NONE),
    "softmax of a number": (lambda t, F, x: [x.softmax(0), x.log_softmax(-1)], np.float32(2)),
    "logsumexp of none": (lambda t, F, x: [t.logsumexp(x, 0), t.logsumexp(x, (0, 1))], NONE),
    "softmax of infinities": (lambda t, F, x: [t.softmax(x, 0), t.logsumexp(x, 0)], f32(-inf, 1)),
    "sums of none": (lambda t, F, x: [x.sum(0), x.prod(), x.any(), x.all(), x.cumsum(0)], NONE),
    "max of none": (lambda t, F, x: x.max(), NONE),
    "max of none by row": (lambda t, F, x: x.amax(1), NONE),
    "argmax of none": (lambda t, F, x: x.argmax(), NONE),
    "wrapping bytes": (lambda t, F, x: [x + 10, x - 20, x * 3, -x, ~x, x // 7, x % 7, x**2, x + 300,
                                        x.sum(), x.cumsum(0), x > -1], u8(250, 10, 0, 255)),
    "wrapping ints": (lambda t, F, x: [x * x, x + x], i32(2**30, 2**31 - 1)),
    "shifts": (lambda t, F, x, y: [x << y, x >> y], i64(1, -8, 5, 1), i64(2, 1, 64, -1)),
    "shifts of bytes": (lambda t, F, x, y: [x << y, x >> y], u8(255, 8), u8(1, 9)),
    "division of ints": (lambda t, F, x, y: [x / y, x // y, x % y, t.fmod(x, y),
                                             t.div(x, y, rounding_mode="trunc")],
                         i64(7, -7, 7, -7), i64(3, 3, -3, -3)),
    "division of ints by zero": (lambda t, F, x, y: x // y, i64(1, -2), i64(0, 0)),
    "true division of ints by zero": (lambda t, F, x, y: x / y, i64(1, -2, 0), i64(0, 0, 0)),
    "remainder of ints by zero": (lambda t, F, x, y: x % y, i64(1, -2), i64(0, 0)),
    "remainder by zero": (lambda t, F, x, y: [x % y, t.fmod(x, y), x / y], f32(1, -2, 0, 5),
                          f32(0, 0, 0, inf)),
    "power of ints": (lambda t, F, x, y: x**y, i64(1, 2, -1, -1, 0), i64(-1, -1, -2, -1, -2)),
    "negative power of ints": (lambda t, F, x: x**-1, i64(1, 2, -1)),
    "power": (lambda t, F, x: [x**0, x**1, x**2, x**0.5], f32(0, 1)),
    "float to ints": (lambda t, F, x: [x.int(), x.long(), x.short(), x.char(), x.byte(), x.bool()],
                      HUGE),
    "bools": (lambda t, F, x: [(x > 0) + (x > 0), (x > 0) * 2, (x > 0).sum()], X),
    "minus of bools": (lambda t, F, x: (x > 0) - (x > 0), X),
    "empty products": (lambda t, F, x, y: x @ y, np.ones((2, 0), np.float32), NONE),
    "arange the wrong way": (lambda t, F, x: t.arange(0, 3, -1), X),
    "arange without a step": (lambda t, F, x: t.arange(0, 3, 0), X),
    "multinomial below zero": (lambda t, F, x: t.multinomial(x, 2), f32(1, -1, 2)),
    "multinomial of zeros": (lambda t, F, x: t.multinomial(x, 1), f32(0, 0, 0)),
    "multinomial of zeros with replacement": (lambda t, F, x: t.multinomial(x, 1, True), f32(0, 0)),
    "multinomial of nan": (lambda t, F, x: t.multinomial(x, 1), f32(1, nan)),
    "inverse of a singular matrix": (lambda t, F, x: t.linalg.inv(x), SINGULAR),
    "solving with a singular matrix": (lambda t, F, x: t.linalg.solve(x, x), SINGULAR),
    "negative power of a singular matrix": (lambda t, F, x: t.linalg.matrix_power(x, -1), SINGULAR),
    "cholesky of no positive definite": (lambda t, F, x: t.linalg.cholesky(x), SINGULAR - 3),
    "svd of nan": (lambda t, F, x: t.linalg.svdvals(x), np.full((2, 2), nan, np.float32)),
    "determinant of a singular matrix": (lambda t, F, x: t.linalg.det(x.detach()), SINGULAR),
    "bce above one": (lambda t, F, x, y: F.binary_cross_entropy(x, y), f32(0.5, 1.5), f32(1, 0)),
    "bce of nan": (lambda t, F, x, y: F.binary_cross_entropy(x, y), f32(0.5, nan), f32(1, 0)),
    "bce target": (lambda t, F, x, y: F.binary_cross_entropy(x, y), f32(0.5, 0.5), f32(1.5, 0)),
    "bce of certainty": (lambda t, F, x, y: F.binary_cross_entropy(x, y), f32(0, 1, 0, 1),
                         f32(1, 0, 0, 1)),
    "bce": (lambda t, F, x, y: F.binary_cross_entropy(x, y), f32(0.2, 0.9), f32(1, 0.3)),
    "int32 classes": (lambda t, F, x, y: F.cross_entropy(x, y), ROWS, i32(0, 1)),
    "int32 classes of nll": (lambda t, F, x, y: F.nll_loss(x, y), ROWS, i32(0, 1)),
    "uint8 classes": (lambda t, F, x, y: F.cross_entropy(x, y), ROWS, u8(0, 1)),
    "negative classes": (lambda t, F, x, y: F.cross_entropy(x, y), ROWS, i64(0, -1)),
    "negative classes of nll": (lambda t, F, x, y: F.nll_loss(x, y), ROWS, i64(0, -1)),
    "smoothed classes, all ignored": (
        lambda t, F, x, y: F.cross_entropy(x, y, label_smoothing=0.1), ROWS, i64(-100, -100)),
    "smoothed classes, an ignored row of infinities": (
        lambda t, F, x, y: F.cross_entropy(x.detach(), y, label_smoothing=0.1),
        np.array([[1, 2, 3], [inf, 0, 0]], np.float32), i64(1, -100)),
    "ignored classes": (lambda t, F, x, y: F.cross_entropy(x, y), ROWS, i64(0, -100)),
    "only ignored classes": (lambda t, F, x, y: F.nll_loss(x, y), ROWS, i64(-100, -100)),
    "one_hot beyond": (lambda t, F, y: F.one_hot(y, 2), i64(0, 2)),
    "one_hot below": (lambda t, F, y: F.one_hot(y, 2), i64(0, -1)),
    "negative gather": (lambda t, F, x, y: x.gather(0, y), X, i64(0, -1)),
    "negative index_select": (lambda t, F, x, y: x.index_select(0, y), X, i64(0, -1)),
    "negative index_add": (lambda t, F, x, y: x.index_add(0, y, x[:2]), X, i64(0, -1)),
    "negative scatter": (lambda t, F, x, y: x.scatter(0, y, x[:2]), X, i64(0, -1)),
    "negative take": (lambda t, F, x, y: [x.take(y), x[y], x.take_along_dim(y, 0)], X, i64(0, -1)),
    "negative index_fill": (lambda t, F, x, y: x.index_fill(0, y, 9), X, i64(0, -1)),
    "negative embedding": (lambda t, F, x, y: F.embedding(y, x), ROWS, i64(0, -1)),
    "logarithms of powers of 2": (lambda t, F, x: [x.log2(), x.log2().floor()], POWERS),
    "logarithms of powers of 2 in double": (lambda t, F, x: x.log2().floor(),
                                            np.ldexp(1.0, np.arange(-1000, 1000))),
    "logarithms of powers of 10": (lambda t, F, x: x.log10().floor(), f32(*10.0 ** np.arange(11))),
    "logarithms of powers of 10 in double": (lambda t, F, x: x.log10().floor(),
                                             10.0 ** np.arange(1, 23)),
    "logarithms at the ends": (lambda t, F, x: [x.log2(), x.log10()], f32(0, -1, 1, inf, nan, 3)),
    "complex infinities": (lambda t, F, x: [t.isinf(x), t.nan_to_num(x), t.nan_to_num(x, 1, 2, 3)],
                           np.array([complex(nan, 1), complex(1, -inf), complex(inf, 2), 1])),
    "distinct nan": (lambda t, F, x: [*t.unique(x.detach(), return_inverse=True,
                                                return_counts=True)], f32(nan, 1, nan, 1)),
    "correlations of multiples": (lambda t, F, x: t.corrcoef(t.cat([x, 3 * x])).acos().isnan(),
                                  np.sin(np.arange(60, dtype=np.float32)).reshape(12, 5)),
    "lp_pool2d": (lambda t, F, x: [F.lp_pool2d(x, 2, 2, ceil_mode=True), F.lp_pool2d(x, 3, 2)],
                  np.cos(np.arange(25, dtype=np.float32)).reshape(1, 1, 5, 5)),
    "no adaptive windows": (lambda t, F, x: F.adaptive_avg_pool2d(x.detach()[None], (0, 2)), ROWS),
    "the axis of cross": (lambda t, F, x, y: [t.cross(x, y), t.linalg.cross(x, y), t.cross(
        x[:, :2], y[:, :2]), x[:1].cross(y), t.cross(x, y, dim=1)], SQUARE, SQUARE.T.copy()),
    "inner products of none": (lambda t, F, x: [t.inner(x.T, x.T), t.inner(x[:, 0].sum(), x)], NONE),
    "full of NumPy's integers": (lambda t, F, x: [t.full((2,), np.int64(3)), t.full((2,), 1j),
                                                  t.full((2,), np.float64(3))], X),
    "vecdot of complex": (lambda t, F, x: t.linalg.vecdot(x, x), np.array([1j, 2.0])),
    "masked_scatter of none": (lambda t, F, x, y: x.masked_scatter(x > 9, y[:0]), f32(1, 2), f32(1)),
    "where hides nan": (lambda t, F, x: t.where(x > 0, x.sqrt(), t.zeros_like(x)), f32(1, 4)),
    "losses of none": (lambda t, F, x, y: [F.mse_loss(x, y), F.l1_loss(x, y)], f32(), f32()),
    "nothing is certain": (lambda t, F, x: F.dropout(x, 1.0), f32(1, 2)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # PyTorch warns of some of these
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CASES)
def test_edge(name, mode):
    call, *arrays = CASES[name]
    agree_everywhere(mode, call, *arrays)
