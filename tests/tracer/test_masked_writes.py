"""`x[.., mask, ..] = number`, eager and compiled: no positions are needed, so it stays in the graph."""

import numpy as np
import pytest
from everywhere import MODES, agree_everywhere

import tracegrad as tg
from tracegrad.tracer.errors import UnsupportedError

X = np.random.default_rng(0).standard_normal((4, 3, 2), np.float32)
ROWS, PLACES, COLUMNS = np.array([1, 0, 0, 1], bool), X[:, :, 0] > 0, np.array([0, 1, 1], bool)

WRITES = {
    "rows": (lambda t, x, m: t.tensor(m), ROWS),
    "a mask and a number": (lambda t, x, m: (t.tensor(m), 0), ROWS),
    "a mask and the last": (lambda t, x, m: (t.tensor(m), ..., -1), ROWS),
    "a slice before": (lambda t, x, m: (slice(1, 3), t.tensor(m)), COLUMNS),
    "a number before": (lambda t, x, m: (2, t.tensor(m)), COLUMNS),
    "None before": (lambda t, x, m: (None, slice(None), t.tensor(m)), COLUMNS),
    "two axes": (lambda t, x, m: (t.tensor(m), 1), PLACES),
    "an array": (lambda t, x, m: (m, slice(0, 2)), ROWS),
    "computed": (lambda t, x, m: (x[:, 0, 0] > 0, 1), ROWS),
    "does not fit": (lambda t, x, m: (slice(None), t.tensor(m)), ROWS),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("value", [2.5, "0-d", "0-d float64"])
def test_masked_write(mode, name, value):
    index_of, mask = WRITES[name]

    def call(t, F, x):
        y = x * 1
        given = value
        if isinstance(value, str):
            given = x[0, 0, 0] if value == "0-d" else x[0, 0, 0].double()
        y[index_of(t, x, mask)] = given
        return y * 3

    agree_everywhere(mode, call, X)


@pytest.mark.parametrize("mode", MODES)
def test_of_integers(mode):
    def call(t, F, x):
        y = x.clone()
        y[x > 2, 0] = 7
        y[x[:, 0] > 2] += 1
        return y

    def first(t, F, x):
        y = x.clone()
        y[x[:, 0] > 2, 0] = 7
        return y

    x = np.arange(8).reshape(4, 2)
    agree_everywhere(mode, first, x)
    agree_everywhere(mode, call, x)


@pytest.mark.parametrize("mask", [True, tg.tensor(True)])
def test_a_bool_of_no_dimensions_is_refused(mask):
    x = tg.ones(3)
    with pytest.raises(UnsupportedError, match="no dimensions"):
        x[mask]
    with pytest.raises(UnsupportedError, match="no dimensions"):
        x[mask] = 5.0
