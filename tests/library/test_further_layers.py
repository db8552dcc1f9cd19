"""Less common layers and functions of nn against PyTorch, eager and compiled."""

import numpy as np
import pytest
import torch

import tracegrad as tg

RNG = np.random.default_rng(4)
ROWS = RNG.standard_normal((3, 4)).astype(np.float32)
LINE = RNG.standard_normal((2, 4, 6)).astype(np.float32)
IMAGE = RNG.standard_normal((2, 4, 6, 5)).astype(np.float32)
VOLUME = RNG.standard_normal((1, 2, 4, 5, 3)).astype(np.float32)
SIGNS = np.where(ROWS > 0, 1, -1).astype(np.float32)
COLUMNS = RNG.standard_normal((2, 8, 20)).astype(np.float32)

LAYERS = {
    "constant 1d": (lambda t: t.nn.ConstantPad1d((1, 2), 3.5), LINE),
    "constant 3d": (lambda t: t.nn.ConstantPad3d(1, -1), VOLUME),
    "zero 1d": (lambda t: t.nn.ZeroPad1d((0, 2)), LINE),
    "zero 3d": (lambda t: t.nn.ZeroPad3d(1), VOLUME),
    "reflection 1d": (lambda t: t.nn.ReflectionPad1d(2), LINE),
    "reflection 3d": (lambda t: t.nn.ReflectionPad3d(1), VOLUME),
    "replication 1d": (lambda t: t.nn.ReplicationPad1d((2, 1)), LINE),
    "replication 3d": (lambda t: t.nn.ReplicationPad3d(1), VOLUME),
    "circular 1d": (lambda t: t.nn.CircularPad1d(2), LINE),
    "circular 2d": (lambda t: t.nn.CircularPad2d((1, 2, 0, 1)), IMAGE),
    "circular 3d": (lambda t: t.nn.CircularPad3d(1), VOLUME),
    "unfold": (lambda t: t.nn.Unfold(2, padding=1, stride=2), IMAGE),
    "fold": (lambda t: t.nn.Fold((6, 5), 2), COLUMNS),
    "nearest": (lambda t: t.nn.UpsamplingNearest2d(scale_factor=2), IMAGE),
    "bilinear": (lambda t: t.nn.UpsamplingBilinear2d(size=(9, 7)), IMAGE),
    "softmax2d": (lambda t: t.nn.Softmax2d(), IMAGE),
    "shuffle": (lambda t: t.nn.ChannelShuffle(2), IMAGE),
    "local response": (lambda t: t.nn.LocalResponseNorm(3), IMAGE),
    "adaptive max": (lambda t: t.nn.AdaptiveMaxPool3d((2, 1, 3)), VOLUME),
    "rrelu": (lambda t: t.nn.RReLU().eval(), ROWS),
    "soft margin": (lambda t: lambda x: t.nn.SoftMarginLoss()(x, t.tensor(SIGNS)), ROWS),
    "hinge": (lambda t: lambda x: t.nn.HingeEmbeddingLoss(0.5)(x, t.tensor(SIGNS)), ROWS),
    "poisson": (lambda t: lambda x: t.nn.PoissonNLLLoss(full=True)(x, t.tensor(SIGNS + 1)), ROWS),
    "multilabel": (
        lambda t: lambda x: t.nn.MultiLabelSoftMarginLoss(reduction="sum")(
            x, t.tensor((SIGNS + 1) / 2)
        ),
        ROWS,
    ),
    "multilabel of integers": (
        lambda t: lambda x: t.nn.MultiLabelSoftMarginLoss()(x, t.tensor((SIGNS + 1) / 2).long()),
        ROWS,
    ),
    "triplet": (
        lambda t: lambda x: t.nn.TripletMarginWithDistanceLoss(swap=True, margin=2.0)(
            x, x.detach() + 1, x.detach().flip(0)
        ),
        ROWS,
    ),
    "in place": (
        lambda t: lambda x: [
            getattr(t.nn.functional, name)(x * 1, *more)
            for name, *more in (
                ("celu_",), ("elu_", 0.5), ("hardtanh_", -0.3, 0.3), ("leaky_relu_", 0.2), ("selu_",),
                ("threshold_", 0.1, 20.0), ("rrelu", 0.1, 0.3), ("leaky_relu", 0.2, True),
                ("relu6", True), ("elu", 1.0, True),
            )
        ],
        ROWS,
    ),
}  # fmt: skip


def outcome(t, mode, make, array):
    """Values and the gradient; the layer's text."""
    layer = make(t)
    x = t.tensor(array, requires_grad=True)

    def step(x):
        y = layer(x)
        ys = y if isinstance(y, list) else [y]
        total = sum(((k + 1) * (v * v).sum() for k, v in enumerate(ys)), 0 * x.sum())
        return [*ys, *t.autograd.grad(total, x)]

    run = tg.compile(step, backend=mode) if mode in ("numpy", "jax") else step
    return [r.detach().numpy() for r in run(x)], repr(layer)


@pytest.mark.parametrize("mode", ["eager", "numpy", "jax"])
@pytest.mark.parametrize("name", LAYERS)
def test_layer(name, mode):
    make, array = LAYERS[name]
    mine, text = outcome(tg, mode, make, array)
    theirs, other = outcome(torch, "eager", make, array)
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    if "function" not in text and "Pad" not in text:
        assert text == other


def test_rrelu_draws_slopes_while_training():
    tg.manual_seed(2)
    x = -tg.ones(1000)
    y = -tg.nn.RReLU(0.1, 0.3)(x).numpy()
    assert 0.1 <= y.min() < 0.11 and 0.29 < y.max() <= 0.3 and abs(y.mean() - 0.2) < 0.01
