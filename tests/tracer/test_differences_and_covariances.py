"""`diff` with ends of one's own, and covariances of a single variable, against PyTorch."""

import numpy as np
import pytest
from everywhere import MODES, agree_everywhere

X = np.random.default_rng(5).standard_normal((3, 4)).astype(np.float32)
CALLS = {
    "diff": (lambda t, F, x: [
        t.diff(x, prepend=t.zeros(3, 1)), t.diff(x, append=x[:, :2]), t.diff(x, n=0, prepend=x),
        x.diff(2, 0, x[:1], x[1:]), t.diff(x, n=9), t.diff(x, dim=0)], X),
    "diff of integers": (lambda t, F, x: [
        t.diff(x, prepend=t.tensor([0.5])), t.diff(x > 1, append=t.tensor([True]))],
        np.array([1, 2, 4])),
    "cov": (lambda t, F, x: [t.cov(x[0]), t.cov(x[:1]), t.cov(x), t.cov(x[0], correction=0)], X),
    "cov of integers": (lambda t, F, x: t.cov(x), np.array([1, 2, 4])),
    "cov of one value": (lambda t, F, x: [t.cov(x[0, 0].detach()), t.cov(x[:2, :1].detach())], X),
    "corrcoef": (lambda t, F, x: [t.corrcoef(x[0]), t.corrcoef(x[:1]), t.corrcoef(x)], X),
    "diff of a 0-d tensor": (lambda t, F, x: t.diff(x[0, 0]), X),
    "cov of bools": (lambda t, F, x: t.cov(x > 0), X),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CALLS)
def test_call(name, mode):
    call, array = CALLS[name]
    agree_everywhere(mode, call, array, legal=name not in ("diff of a 0-d tensor", "cov of bools"))
