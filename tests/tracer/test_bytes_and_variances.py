"""Resized bytes, and the losses whose variances have fewer dimensions than their input."""

import numpy as np
import pytest
import torch
from everywhere import MODES, agree_everywhere

import tracegrad as tg

BYTES = np.random.default_rng(1).integers(0, 256, (2, 3, 5, 4)).astype(np.uint8)
X = np.random.default_rng(2).standard_normal((3, 4)).astype(np.float32)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(7, 9), (3, 2), (5, 8)])
@pytest.mark.parametrize("way", ["nearest", "nearest-exact", "bilinear", "aligned"])
def test_bytes(mode, size, way):
    options = {"mode": "bilinear", "align_corners": True} if way == "aligned" else {"mode": way}
    agree_everywhere(
        mode, lambda t, F, x: F.interpolate(x, size=size, **options), BYTES, legal=True
    )


@pytest.mark.parametrize("align", [False, True])
def test_cubic_bytes(align):
    """PyTorch joins the weights of repeated border pixels before it rounds them: one apart."""
    options = {"size": (7, 9), "mode": "bicubic", "align_corners": align}
    theirs = torch.nn.functional.interpolate(torch.tensor(BYTES), **options).numpy()
    mine = tg.nn.functional.interpolate(tg.tensor(BYTES), **options).numpy()
    assert mine.dtype == theirs.dtype
    assert np.abs(mine.astype(int) - theirs).max() <= 1
    assert (mine == theirs).mean() > 0.98


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", ["nearest", "bilinear", "bicubic", "area"])
@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.int8])
def test_other_integers_are_refused(mode, way, dtype):
    agree_everywhere(mode, lambda t, F, x: F.interpolate(x, size=3, mode=way), BYTES.astype(dtype))
    run = tg.compile(tg.nn.functional.interpolate, backend="numpy")
    with pytest.raises(tg.errors.ShapeError, match="does not take"):
        run(tg.tensor(BYTES.astype(dtype)), size=3, mode=way)


VARIANCES = {
    "rows": np.array([1.0, 2.0, 4.0]),
    "rows of a square": np.array([1.0, 2.0, 4.0]),
    "column": np.array([[1.0], [2.0], [0.0]]),
    "row": np.array([[1.0, 2.0, 4.0, 1.0]]),
    "all": X * X,
    "columns": np.ones(4),
    "one": np.ones(1),
    "one of one": np.ones((1, 1)),
    "0-d": np.array(2.0),
    "negative": -np.ones(3),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", VARIANCES)
def test_gaussian_nll_loss(mode, name):
    x = X[:, :3] if "square" in name else X
    agree_everywhere(
        mode,
        lambda t, F, x, y, v: F.gaussian_nll_loss(x, y, v, full=True, reduction="none"),
        x, x[::-1].copy(), VARIANCES[name].astype(np.float32),
    )  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("variance", [2.0, -2.0])
def test_gaussian_nll_loss_of_a_number(mode, variance):
    agree_everywhere(mode, lambda t, F, x, y: F.gaussian_nll_loss(x, y, variance), X, -X)


@pytest.mark.parametrize("backend", [mode for mode in MODES if mode != "eager"])
def test_a_variance_is_checked_inside_the_graph(backend):
    loss = tg.compile(tg.nn.GaussianNLLLoss(), backend=backend)
    x = tg.ones(3)
    assert loss(x, x, x).item() == 0.0 and loss.stats()["compiles"] == 1
    with pytest.raises(RuntimeError, match="variances of 0 or more"):
        loss(x, x, -x).item()
