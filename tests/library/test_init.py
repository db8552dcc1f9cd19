"""Initial values: PyTorch's distributions, checked by bounds, moments and known matrices."""

import math

import numpy as np
import pytest
import torch

import tracegrad as tg
from tracegrad import nn
from tracegrad.nn import init


def values(tensor):
    return tensor.detach().numpy().ravel()


def is_uniform(tensor, bound):
    """All inside +-bound, ends nearly reached, and the variance of a uniform distribution."""
    v = values(tensor)
    assert np.abs(v).max() <= bound * (1 + 1e-6)
    assert np.abs(v).max() > 0.97 * bound
    assert abs(v.mean()) < 6 * bound / math.sqrt(3 * v.size)
    assert np.var(v) == pytest.approx(bound**2 / 3, rel=0.1)


def is_normal(tensor, std, mean=0.0):
    v = values(tensor)
    assert abs(v.mean() - mean) < 6 * std / math.sqrt(v.size)
    assert v.std() == pytest.approx(std, rel=0.1)
    kurtosis = ((v - v.mean()) ** 4).mean() / v.var() ** 2
    assert kurtosis == pytest.approx(3.0, abs=0.5)


@pytest.fixture(autouse=True)
def seed():
    tg.manual_seed(0)


def test_linear_conv_and_embedding_defaults():
    linear = nn.Linear(64, 300)
    is_uniform(linear.weight, 1 / 8)
    is_uniform(linear.bias, 1 / 8)
    conv = nn.Conv2d(8, 300, 3, groups=2)
    is_uniform(conv.weight, 1 / 6)
    is_uniform(conv.bias, 1 / 6)
    transposed = nn.ConvTranspose2d(40, 300, 3)
    is_uniform(transposed.weight, 1 / math.sqrt(300 * 9))
    is_normal(nn.Embedding(100, 50).weight, 1.0)
    is_uniform(nn.Bilinear(25, 30, 10).weight, 1 / 5)


def test_recurrent_attention_and_norm_defaults():
    for layer in (nn.LSTM(20, 16), nn.GRU(20, 16), nn.RNN(20, 16), nn.LSTMCell(20, 16)):
        joined = nn.utils.parameters_to_vector(layer.parameters())
        is_uniform(joined, 1 / 4)
    attention = nn.MultiheadAttention(32, 4)
    is_uniform(attention.in_proj_weight, math.sqrt(6 / (32 + 96)))
    assert not values(attention.in_proj_bias).any() and not values(attention.out_proj.bias).any()
    separate = nn.MultiheadAttention(32, 4, kdim=16, vdim=8, add_bias_kv=True)
    is_uniform(separate.k_proj_weight, math.sqrt(6 / 48))
    norm = nn.BatchNorm2d(3)
    assert (values(norm.weight) == 1).all() and (values(norm.bias) == 0).all()
    assert values(norm.running_mean).tolist() == [0, 0, 0]
    assert values(norm.running_var).tolist() == [1, 1, 1]
    assert norm.num_batches_tracked.dtype == tg.int64


def test_reset_parameters_draws_afresh():
    linear = nn.Linear(3, 3)
    before = values(linear.weight).copy()
    linear.reset_parameters()
    assert (values(linear.weight) != before).any()
    tg.manual_seed(5)
    a = values(nn.Linear(3, 3).weight).copy()
    tg.manual_seed(5)
    assert (values(nn.Linear(3, 3).weight) == a).all()


NONLINEARITIES = ["linear", "conv2d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"]


@pytest.mark.parametrize("name", NONLINEARITIES)
def test_gains_are_torchs(name):
    assert init.calculate_gain(name) == torch.nn.init.calculate_gain(name)
    assert init.calculate_gain("leaky_relu", 0.3) == torch.nn.init.calculate_gain("leaky_relu", 0.3)


def test_formulas():
    w = tg.empty(40, 20, 3, 3)
    is_uniform(init.uniform_(w, -2, 2), 2)
    is_normal(init.normal_(w, 1.0, 0.5), 0.5, 1.0)
    is_uniform(init.xavier_uniform_(w, 2.0), 2 * math.sqrt(6 / (60 * 9)))
    is_normal(init.xavier_normal_(w), math.sqrt(2 / (60 * 9)))
    is_uniform(init.kaiming_uniform_(w), math.sqrt(6 / 180))
    is_uniform(init.kaiming_uniform_(w, mode="fan_out", nonlinearity="relu"), math.sqrt(6 / 360))
    is_normal(init.kaiming_normal_(w, a=1), math.sqrt(1 / 180))
    assert (values(init.constant_(w, 3.0)) == 3).all()
    assert (values(init.ones_(w)) == 1).all() and (values(init.zeros_(w)) == 0).all()


def test_trunc_normal():
    w = init.trunc_normal_(tg.empty(100, 100), std=0.5, a=-0.5, b=1.0)
    v = values(w)
    assert v.min() >= -0.5 and v.max() <= 1.0 and v.min() < -0.49 and v.max() > 0.95
    assert v.mean() == pytest.approx(0.1148, abs=0.02)  # of the truncated distribution


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 2, 3)])
def test_orthogonal(shape):
    w = values(init.orthogonal_(tg.empty(*shape), gain=2.0)).reshape(shape[0], -1)
    product = w.T @ w if w.shape[0] > w.shape[1] else w @ w.T
    np.testing.assert_allclose(product, 4 * np.eye(min(w.shape)), atol=1e-5)


def test_eye_and_dirac():
    np.testing.assert_array_equal(init.eye_(tg.empty(2, 3)).numpy(), np.eye(2, 3))
    for shape, groups in (((4, 2, 3), 2), ((3, 3, 3, 3), 1), ((2, 1, 3, 3, 3), 2)):
        ours = init.dirac_(tg.empty(*shape), groups).numpy()
        theirs = torch.nn.init.dirac_(torch.empty(shape), groups).numpy()
        np.testing.assert_array_equal(ours, theirs)


def test_fans_have_pytorchs_names():
    for of in (lambda T: T.empty(3, 4, 5, 5), lambda T: T.empty(2, 7)):
        for mode in ("fan_in", "fan_out"):
            ours = init._calculate_correct_fan(of(tg), mode)
            assert ours == torch.nn.init._calculate_correct_fan(of(torch), mode)
        both = init._calculate_fan_in_and_fan_out(of(tg))
        assert both == torch.nn.init._calculate_fan_in_and_fan_out(of(torch))


def test_errors():
    with pytest.raises(ValueError, match="fewer than 2 dimensions"):
        init.xavier_uniform_(tg.empty(3))
    with pytest.raises(ValueError, match="Unsupported nonlinearity"):
        init.calculate_gain("cosine")
    with pytest.raises(ValueError, match="Mode fan not supported"):
        init.kaiming_normal_(tg.empty(3, 3), mode="fan")
    with pytest.raises(ValueError):
        init.orthogonal_(tg.empty(3))


def test_initialisers_keep_leaf_and_identity():
    p = nn.Parameter(tg.empty(3, 3))
    assert init.normal_(p) is p and p.is_leaf and p.requires_grad
