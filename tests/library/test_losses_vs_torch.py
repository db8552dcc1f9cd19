"""Losses against torch.nn.functional: values and gradients, every reduction."""

import numpy as np
import pytest
import torch
import torch.nn.functional as TF
from side_by_side import compare

import tracegrad as tg
from tracegrad import nn
from tracegrad.nn import functional as F

RNG = np.random.default_rng(0)
pytestmark = pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
REDUCTIONS = ["mean", "sum", "none"]
X, Y = RNG.standard_normal((4, 3)), RNG.standard_normal((4, 3))
P, Q = RNG.random((4, 3)), RNG.random((4, 3))
LABELS = np.array([0, 2, -100, 1])
WEIGHT = np.array([0.5, 2.0, 1.0])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(
    "name, options",
    [
        ("mse_loss", {}),
        ("l1_loss", {}),
        ("smooth_l1_loss", {}),
        ("smooth_l1_loss", {"beta": 0.3}),
        ("smooth_l1_loss", {"beta": 0.0}),
        ("huber_loss", {"delta": 0.7}),
        ("kl_div", {}),
        ("kl_div", {"log_target": True}),
    ],
    ids=str,
)
def test_elementwise(name, options, reduction, dtype):
    inputs = [X, P] if name == "kl_div" else [X, Y]
    compare(
        lambda a, b: getattr(F, name)(a, b, reduction=reduction, **options),
        lambda a, b: getattr(TF, name)(a, b, reduction=reduction, **options),
        inputs,
        dtype,
    )


def test_kl_div_batchmean_and_zero_target():
    target = P * np.array([[0.0], [1], [1], [1]])
    compare(
        lambda a: F.kl_div(a, tg.tensor(target), reduction="batchmean"),
        lambda a: TF.kl_div(a, torch.tensor(target), reduction="batchmean"),
        [X],
        "float64",
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_binary_cross_entropy(reduction, weighted):
    def call(F, tensor, name, x, y, **more):
        weight = tensor(P) if weighted else None
        return getattr(F, name)(x, y, weight, reduction=reduction, **more)

    for name, x in (("binary_cross_entropy", Q), ("binary_cross_entropy_with_logits", 30 * X)):
        compare(
            lambda a, b, name=name: call(F, tg.tensor, name, a, b),
            lambda a, b, name=name: call(TF, torch.tensor, name, a, b),
            [x, P],
            "float64",
        )
    name = "binary_cross_entropy_with_logits"
    compare(
        lambda a: call(F, tg.tensor, name, a, tg.tensor(P), pos_weight=tg.tensor(WEIGHT)),
        lambda a: call(TF, torch.tensor, name, a, torch.tensor(P), pos_weight=torch.tensor(WEIGHT)),
        [X],
        "float64",
    )


def test_binary_cross_entropy_at_the_ends():
    ends = np.array([0.0, 1.0, 0.0, 1.0])
    target = np.array([0.0, 1.0, 1.0, 0.0])
    ours = F.binary_cross_entropy(tg.tensor(ends), tg.tensor(target), reduction="none").numpy()
    np.testing.assert_array_equal(ours, [0, 0, 100, 100])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("shape", ["rows", "single", "image"])
def test_cross_entropy_with_indices(shape, smoothing, weighted, reduction, dtype):
    x, labels = {
        "rows": (X, LABELS),
        "single": (X[0], np.array(2)),
        "image": (
            RNG.standard_normal((2, 3, 2, 2)),
            np.array([[[0, 1], [2, 0]], [[-100, 2], [1, 1]]]),
        ),
    }[shape]

    def call(F, tensor, x):
        weight = tensor(WEIGHT.astype(dtype)) if weighted else None
        return F.cross_entropy(
            x, tensor(labels), weight, reduction=reduction, label_smoothing=smoothing
        )

    compare(lambda a: call(F, tg.tensor, a), lambda a: call(TF, torch.tensor, a), [x], dtype)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_with_probabilities(smoothing, weighted, reduction):
    x = RNG.standard_normal((2, 3, 2))
    soft = RNG.dirichlet(np.ones(3), (2, 2)).transpose(0, 2, 1).copy()

    def call(F, tensor, x, y):
        weight = tensor(WEIGHT) if weighted else None
        return F.cross_entropy(x, y, weight, reduction=reduction, label_smoothing=smoothing)

    compare(
        lambda a, b: call(F, tg.tensor, a, b), lambda a, b: call(TF, torch.tensor, a, b),
        [x, soft], "float64",
    )  # fmt: skip


def test_ignore_index_other_than_the_default_and_all_ignored():
    labels = np.array([0, 1, 1, 2])
    compare(
        lambda a: F.cross_entropy(a, tg.tensor(labels), ignore_index=1),
        lambda a: TF.cross_entropy(a, torch.tensor(labels), ignore_index=1),
        [X],
        "float64",
    )
    none = np.full(4, -100)
    ours = F.cross_entropy(tg.tensor(X), tg.tensor(none))
    theirs = TF.cross_entropy(torch.tensor(X), torch.tensor(none))
    assert np.isnan(ours.item()) and np.isnan(theirs.item())


def test_half_precision_and_narrow_labels():
    x = RNG.standard_normal((4096, 3)).astype(np.float16)
    labels = RNG.integers(0, 3, 4096).astype(np.uint8)
    ours = F.cross_entropy(tg.tensor(x), tg.tensor(labels))
    theirs = TF.cross_entropy(torch.tensor(x).float(), torch.tensor(labels).long())
    assert ours.dtype == tg.float16
    assert ours.item() == pytest.approx(theirs.item(), rel=2e-3)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_nll_loss(reduction, weighted):
    def call(F, tensor, x):
        weight = tensor(WEIGHT) if weighted else None
        return F.nll_loss(x, tensor(LABELS), weight, reduction=reduction)

    compare(lambda a: call(F, tg.tensor, a), lambda a: call(TF, torch.tensor, a), [X], "float64")


def test_other_losses():
    sign = np.array([1.0, -1.0, 1.0, -1.0])
    compare(
        lambda a, b: F.cosine_embedding_loss(a, b, tg.tensor(sign), 0.1),
        lambda a, b: TF.cosine_embedding_loss(a, b, torch.tensor(sign), 0.1),
        [X, Y],
        "float64",
    )
    compare(
        lambda a, b: F.margin_ranking_loss(a, b, tg.tensor(sign), 0.1),
        lambda a, b: TF.margin_ranking_loss(a, b, torch.tensor(sign), 0.1),
        [X[:, 0], Y[:, 0]],
        "float64",
    )
    compare(
        lambda a, b, c: F.gaussian_nll_loss(a, b, c, full=True),
        lambda a, b, c: TF.gaussian_nll_loss(a, b, c, full=True),
        [X, Y, P],
        "float64",
    )


@pytest.mark.parametrize(
    "name, inputs, options",
    [
        ("hinge_embedding_loss", [X[:, 0], np.array([1.0, -1.0, 1.0, -1.0])], {"margin": 0.7}),
        ("soft_margin_loss", [30 * X, np.sign(Y)], {}),
        ("poisson_nll_loss", [X, 3 * P], {}),
        ("poisson_nll_loss", [P, 3 * Q], {"log_input": False, "full": True}),
        ("triplet_margin_loss", [X, Y, P], {}),
        ("triplet_margin_loss", [X, Y, P], {"p": 3.0, "swap": True, "margin": 2.0}),
    ],
    ids=str,
)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_less_common_losses(name, inputs, options, reduction):
    fixed = 1 if "triplet" not in name else 0  # the target wants no gradient
    given = inputs[: len(inputs) - fixed]
    rest = inputs[len(given) :]

    def call(F, tensor):
        constants = [tensor(v) for v in rest]
        return lambda *x: getattr(F, name)(*x, *constants, reduction=reduction, **options)

    compare(call(F, tg.tensor), call(TF, torch.tensor), given, "float64")


@pytest.mark.parametrize(
    "name, inputs",
    [
        ("MarginRankingLoss", [X[:, 0], Y[:, 0], np.array([1.0, -1.0, 1.0, -1.0])]),
        ("TripletMarginLoss", [X, Y, P]),
        ("GaussianNLLLoss", [X, Y, Q]),
        ("CrossEntropyLoss", [X, np.array([0, 2, 1, 1])]),
        ("NLLLoss", [X, np.array([0, 2, 1, 1])]),
        ("MSELoss", [X, Y]),
        ("L1Loss", [X, Y]),
        ("SmoothL1Loss", [X, Y]),
        ("HuberLoss", [X, Y]),
        ("BCELoss", [P, Q]),
        ("BCEWithLogitsLoss", [X, Q]),
        ("KLDivLoss", [X, Q]),
    ],
)
def test_modules(name, inputs):
    ours, theirs = getattr(nn, name)(), getattr(torch.nn, name)()
    assert repr(ours) == repr(theirs)
    compare(ours, theirs, inputs, "float64")
    assert list(nn.CrossEntropyLoss(tg.ones(3)).state_dict()) == ["weight"]


def test_wrong_shapes_and_reductions():
    a, b = tg.tensor(X), tg.tensor(X[:, :2])
    with pytest.warns(UserWarning, match="target size"):
        F.mse_loss(a, tg.tensor(X[:1]))
    with pytest.raises(ValueError, match="target size"):
        F.binary_cross_entropy_with_logits(a, b)
    with pytest.raises(RuntimeError, match=r"class indices need shape \[4\]"):
        F.cross_entropy(a, tg.tensor([0, 1]))
    with pytest.raises(ValueError, match="not a valid value for reduction"):
        F.l1_loss(a, a, reduction="median")


def test_kl_div_loss_layer_with_batchmean():
    ours, theirs = tg.nn.KLDivLoss(reduction="batchmean"), torch.nn.KLDivLoss(reduction="batchmean")
    assert ours.reduction == theirs.reduction
    p = np.array([[0.2, 0.8], [0.5, 0.5]], np.float32)
    a = ours(tg.tensor(np.log(p)), tg.tensor(p[::-1].copy())).item()
    assert a == pytest.approx(theirs(torch.tensor(np.log(p)), torch.tensor(p[::-1].copy())).item())


@pytest.mark.parametrize(
    "slip",
    [
        lambda t, x: t.nn.CrossEntropyLoss(x, t.tensor([0, 1])),
        lambda t, x: t.nn.NLLLoss(x, t.tensor([0, 1])),
        lambda t, x: t.nn.MSELoss(x, x),
        lambda t, x: t.nn.BCEWithLogitsLoss(x, x),
        lambda t, x: t.nn.KLDivLoss(x, x),
        lambda t, x: t.nn.HuberLoss(x, x),
        lambda t, x: t.nn.functional.mse_loss(x, x, x),
    ],
)
def test_a_loss_made_with_the_tensors_it_should_be_called_with(slip):
    with pytest.raises((RuntimeError, TypeError)):
        slip(torch, torch.ones(2, 3))
    with pytest.raises(tg.errors.ArgumentError, match=r"nn.MSELoss\(\)\(output, target\)"):
        slip(tg, tg.ones(2, 3))


@pytest.mark.filterwarnings("ignore:size_average and reduce")
@pytest.mark.parametrize("flags", [(0, None), (None, 0), (1, 1), (False, True), (True, False)])
def test_the_old_flags_count_as_true_or_false(flags):
    compare(
        lambda a, b: F.mse_loss(a, b, *flags),
        lambda a, b: TF.mse_loss(a, b, *flags),
        [X, Y],
        "float32",
    )


@pytest.mark.parametrize("mode", ["eager", "compiled"])
@pytest.mark.parametrize(
    "loss",
    [
        lambda t, f: f.binary_cross_entropy_with_logits(t.ones(2), t.tensor([0, 1])),
        lambda t, f: f.binary_cross_entropy_with_logits(t.ones(2), t.tensor([True, False])),
        lambda t, f: t.nn.BCEWithLogitsLoss()(t.ones(2), t.tensor([0, 1])),
        lambda t, f: f.binary_cross_entropy(t.ones(2) / 2, t.tensor([0, 1])),
        lambda t, f: f.binary_cross_entropy(t.ones(2) / 2, t.ones(2, dtype=t.float64)),
        lambda t, f: f.kl_div(t.ones(2), t.tensor([0, 1])),
    ],
)
def test_targets_of_another_dtype_are_refused(loss, mode):
    with pytest.raises(RuntimeError):
        loss(torch, TF)
    call = (lambda: loss(tg, F)) if mode == "eager" else tg.compile(lambda: loss(tg, F))
    with pytest.raises(tg.errors.ShapeError, match="cast"):
        call()
