"""Arguments that PyTorch refuses are refused here too, with an error of the same kind."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as torch_functional

import tracegrad as tg
from tracegrad.nn import functional

KINDS = (ValueError, IndexError, TypeError, RuntimeError)


def attend(T, **masks):
    """Of two sequences of three steps."""
    x = T.ones(2, 3, 4)
    return T.nn.MultiheadAttention(4, 2, batch_first=True)(x, x, x, **masks)


def attend_in_one_op(T, F, mask):
    return F.scaled_dot_product_attention(*[T.ones(2, 3, 4)] * 3, attn_mask=mask)


CALLS = {
    "padding [S, N]": lambda T, F: attend(T, key_padding_mask=T.ones(3, 2) > 0),
    "padding of integers": lambda T, F: attend(T, key_padding_mask=T.zeros(2, 3, dtype=T.long)),
    "mask [1, S]": lambda T, F: attend(T, attn_mask=T.zeros(1, 3)),
    "mask [S, N * heads, L]": lambda T, F: attend(T, attn_mask=T.zeros(3, 4, 3)),
    "mask of integers": lambda T, F: attend(T, attn_mask=T.zeros(3, 3, dtype=T.long)),
    "attention of integers": lambda T, F: attend_in_one_op(T, F, T.zeros(3, 3, dtype=T.long)),
    "attention of doubles": lambda T, F: attend_in_one_op(T, F, T.zeros(3, 3, dtype=T.float64)),
    "half a row": lambda T, F: T.eye(2.5),
    "half a step": lambda T, F: T.linspace(0, 1, steps=2.5),
    "a slice of floats": lambda T, F: T.ones(4)[1.0:2],
    "None": lambda T, F: T.nn.Linear(1, 1)(None),
    "None compared": lambda T, F: T.ones(2) < None,
    "None split": lambda T, F: T.chunk(None, 2),
    "None among others": lambda T, F: T.cat([T.ones(2), None]),
    "a number as gradient": lambda T, F: setattr(T.nn.Parameter(T.ones(2)), "grad", 3),
    "a gradient of doubles": lambda T, F: setattr(
        T.nn.Parameter(T.ones(2)), "grad", T.ones(2, dtype=T.float64)
    ),
    "bernoulli": lambda T, F: T.bernoulli(T.tensor([0.5, 1.5])),
    "bernoulli of nan": lambda T, F: T.bernoulli(T.tensor([float("nan")])),
    "bernoulli p": lambda T, F: T.bernoulli(T.zeros(2), 1.5),
    "bernoulli_ p": lambda T, F: T.zeros(2).bernoulli_(-0.5),
    "bernoulli_ tensor": lambda T, F: T.zeros(2).bernoulli_(T.tensor([0.5, 2.0])),
    "normal": lambda T, F: T.normal(0.0, -1.0, (2,)),
    "normal tensor": lambda T, F: T.normal(T.zeros(2), T.tensor([-1.0, 1.0])),
    "normal_": lambda T, F: T.zeros(2).normal_(0, -1),
    "uniform_": lambda T, F: T.zeros(2).uniform_(1, 0),
    "exponential_": lambda T, F: T.zeros(2).exponential_(0.0),
    "log_normal_": lambda T, F: T.zeros(2).log_normal_(0, -1),
    "cauchy_": lambda T, F: T.zeros(2).cauchy_(0, -1),
    "geometric_": lambda T, F: T.zeros(2).geometric_(1.5),
    "multinomial": lambda T, F: T.multinomial(T.ones(2), 0),
    "weight of cross_entropy": lambda T, F: F.cross_entropy(
        T.ones(1, 2), T.tensor([0]), weight=T.ones(3)
    ),
    "weight of probabilities": lambda T, F: F.cross_entropy(
        T.ones(1, 2), T.ones(1, 2) / 2, weight=T.ones(1)
    ),
    "weight of nll_loss": lambda T, F: F.nll_loss(T.zeros(1, 2), T.tensor([0]), weight=T.ones(3)),
    "padding_idx": lambda T, F: F.embedding(T.tensor([0]), T.ones(2, 2), padding_idx=5),
    "negative padding": lambda T, F: F.conv1d(T.ones(1, 1, 4), T.ones(1, 1, 2), padding=-1),
    "stride 0": lambda T, F: F.conv1d(T.ones(1, 1, 4), T.ones(1, 1, 2), stride=0),
    "window of 0": lambda T, F: F.max_pool1d(T.ones(1, 1, 4), 0),
    "align_corners": lambda T, F: F.interpolate(T.ones(1, 1, 4), size=2, align_corners=True),
    "value of reflect": lambda T, F: F.pad(T.ones(1, 1, 4), (1, 1), mode="reflect", value=2.0),
    "margin": lambda T, F: F.triplet_margin_loss(*[T.ones(2, 2)] * 3, margin=-1.0),
    "arange": lambda T, F: T.arange(0, 5, -1),
    "eye": lambda T, F: T.eye(-1),
    "cat": lambda T, F: T.cat([]),
    "stack": lambda T, F: T.stack([]),
    "cartesian_prod": lambda T, F: T.cartesian_prod(T.ones(2, 2)),
    "tensor_split": lambda T, F: T.ones(4).tensor_split(0),
    "block_diag": lambda T, F: T.block_diag(T.ones(1, 1, 1)),
    "renorm": lambda T, F: T.ones(2).renorm(2, 0, 1.0),
    "order of a norm": lambda T, F: T.linalg.norm(T.ones(2, 2, 2), ord=2),
    "one value a channel": lambda T, F: F.batch_norm(
        T.ones(1, 3), T.zeros(3), T.ones(3), training=True
    ),
    "masked_scatter": lambda T, F: T.zeros(3).masked_scatter(T.ones(3) > 0, T.ones(2)),
    "source of masked_scatter": lambda T, F: T.zeros(3).masked_scatter(T.ones(3) > 0, T.arange(3)),
    "local_response_norm": lambda T, F: F.local_response_norm(T.ones(4, 3), 3),
    "bilinear": lambda T, F: F.bilinear(T.ones(2, 3), T.ones(2, 4), T.ones(3, 4)),
    "affine_grid": lambda T, F: F.affine_grid(T.ones(2, 2, 3), (3, 1, 2, 2)),
    "batch of grid_sample": lambda T, F: F.grid_sample(T.ones(2, 1, 4, 4), T.ones(1, 3, 3, 2)),
    "positions of grid_sample": lambda T, F: F.grid_sample(T.ones(1, 1, 4, 4), T.ones(1, 3, 3, 3)),
    "pixel_shuffle": lambda T, F: F.pixel_shuffle(T.ones(4, 4), 2),
    "pixel_unshuffle": lambda T, F: F.pixel_unshuffle(T.ones(1, 4, 4), 0),
    "channel_shuffle": lambda T, F: F.channel_shuffle(T.ones(1, 4, 2, 2), 0),
    "groups": lambda T, F: F.group_norm(T.ones(1, 4, 2), -2),
    "output of conv_transpose": lambda T, F: F.conv_transpose1d(
        T.ones(1, 1, 3), T.ones(1, 1, 1), padding=5
    ),
    "size of interpolate": lambda T, F: F.interpolate(T.ones(1, 1, 4), size=0),
    "divisor of avg_pool2d": lambda T, F: F.avg_pool2d(T.ones(1, 4, 4), 2, divisor_override=0),
    "adaptive size": lambda T, F: F.adaptive_avg_pool2d(T.ones(1, 4, 4), (-1, 3)),
    "adaptive sizes": lambda T, F: F.adaptive_max_pool2d(T.ones(1, 4, 4), (1, 3, 2)),
    "fold": lambda T, F: F.fold(T.ones(4), (2, 2), (2, 2)),
    "tensordot": lambda T, F: T.tensordot(T.ones(3, 4), T.ones(4, 3), dims=-1),
    "dims of tensordot": lambda T, F: T.tensordot(T.ones(3, 4), T.ones(4, 3), dims=([3], [0])),
    "more dims of tensordot": lambda T, F: T.tensordot(
        T.ones(3, 4), T.ones(4, 3), dims=([1], [0, 1])
    ),
    "cross": lambda T, F: T.linalg.cross(T.ones(3), T.ones(4, 3)),
    "no axis of cross": lambda T, F: T.cross(T.ones(2), T.ones(2)),
    "diag_embed": lambda T, F: T.diag_embed(T.ones(3), 0, 0, 0),
    "trace": lambda T, F: T.trace(T.ones(2, 2, 3)),
    "fliplr": lambda T, F: T.fliplr(T.ones(2)),
    "flipud": lambda T, F: T.flipud(T.tensor(1.0)),
    "roll": lambda T, F: T.roll(T.ones(4), (1, 2)),
    "dims of roll": lambda T, F: T.roll(T.ones(4), (1, 2), 0),
    "rot90": lambda T, F: T.rot90(T.ones(4, 4), 1, (0, 0)),
    "searchsorted": lambda T, F: T.searchsorted(T.ones(4), T.ones(3), side="foo"),
    "sides of searchsorted": lambda T, F: T.searchsorted(
        T.ones(4), T.ones(3), side="left", right=True
    ),
    "bucketize": lambda T, F: T.bucketize(T.ones(2, 3), T.ones(2, 4)),
    "histc": lambda T, F: T.histc(T.ones(9), 4, 2.0, 1.0),
    "bins of histc": lambda T, F: T.histc(T.ones(9), 0),
    "topk": lambda T, F: T.topk(T.tensor(1.0), 2),
    "kthvalue": lambda T, F: T.kthvalue(T.tensor(1.0), 2),
    "quantiles": lambda T, F: T.quantile(T.ones(9), T.ones(2, 2)),
    "quantiles of doubles": lambda T, F: T.quantile(T.ones(9), T.ones(2, dtype=T.float64)),
    "UPLO": lambda T, F: T.linalg.eigvalsh(T.eye(2), UPLO="X"),
    "maxnorm": lambda T, F: T.renorm(T.ones(2, 2), 2, 0, -1.0),
    "classes": lambda T, F: F.one_hot(T.arange(3), -5),
    "sign": lambda T, F: T.sign(T.tensor([1j])),
    "isposinf": lambda T, F: T.isposinf(T.tensor([1j])),
    "celu": lambda T, F: F.celu(T.ones(2), 0.0),
    "softshrink": lambda T, F: F.softshrink(T.ones(2), -1.0),
    "hardtanh": lambda T, F: F.hardtanh(T.ones(2), 1.0, -1.0),
    "a string as a shift": lambda T, F: T.roll(T.ones(4), "a", 0),
    "ranks of margin_ranking_loss": lambda T, F: F.margin_ranking_loss(
        T.ones(3), T.ones(3), T.ones(3, 1)
    ),
    "ranks of triplet_margin_loss": lambda T, F: F.triplet_margin_loss(
        T.ones(3, 2), T.ones(2), T.ones(3, 2)
    ),
    "target of cosine_embedding_loss": lambda T, F: F.cosine_embedding_loss(
        T.ones(3, 2), T.ones(3, 2), T.ones(3, 1)
    ),
    "target of soft_margin_loss": lambda T, F: F.soft_margin_loss(T.ones(3), T.ones(3, 1)),
    "weight of bce": lambda T, F: F.binary_cross_entropy(T.ones(3), T.ones(3), weight=T.ones(3, 1)),
    "weight of mse_loss": lambda T, F: F.mse_loss(T.ones(3, 2), T.ones(3, 2), weight=T.ones(2)),
    "channels of dropout": lambda T, F: F.dropout1d(T.ones(3), training=False),
    "state of LSTMCell": lambda T, F: T.nn.LSTMCell(2, 3)(
        T.ones(4, 2), (T.ones(1, 3), T.ones(1, 3))
    ),
    "state of GRUCell": lambda T, F: T.nn.GRUCell(2, 3)(T.ones(4, 2), T.ones(1, 3)),
    "input of RNNCell": lambda T, F: T.nn.RNNCell(2, 3)(T.ones(5, 4, 2)),
    "movedim": lambda T, F: T.ones(2, 3, 4).movedim((0, 0), (2, 0)),
    "floats to reshape": lambda T, F: T.ones(4).reshape(2.0, 2),
    "floats to expand": lambda T, F: T.ones(1).expand(2.7),
    "floats to repeat": lambda T, F: T.ones(1).repeat(1.5),
    "floats to narrow": lambda T, F: T.ones(4).narrow(0, 1.5, 2),
    "floats to select": lambda T, F: T.ones(4).select(0, 1.5),
    "floats to unfold": lambda T, F: T.ones(4).unfold(0, 2.5, 1),
    "floats to split": lambda T, F: T.ones(4).split(2.5),
    "a float to tril": lambda T, F: T.ones(4, 4).tril(1.5),
    "a float to matrix_power": lambda T, F: T.matrix_power(T.eye(2), 2.0),
    "floats to adaptive_avg_pool2d": lambda T, F: F.adaptive_avg_pool2d(T.ones(1, 4, 4), (2.5, 2)),
    "a float as a size": lambda T, F: T.zeros(2.5),
    "vsplit": lambda T, F: T.vsplit(T.arange(6), 2),
    "hsplit": lambda T, F: T.hsplit(T.tensor(1), 1),
    "number of targets": lambda T, F: F.cross_entropy(T.ones(4, 3), T.zeros(5, dtype=T.long)),
}


@pytest.mark.parametrize("name", CALLS)
def test_refused_as_in_pytorch(name):
    call = CALLS[name]
    with pytest.raises(Exception) as theirs:
        call(torch, torch_functional)
    kinds = [k for k in type(theirs.value).__mro__ if k in KINDS]
    with pytest.raises(kinds[0] if kinds else RuntimeError) as ours:
        call(tg, functional)
    assert isinstance(ours.value, tg.errors.TracegradError)
    assert "where: " in str(ours.value) and "test_refused_values.py" in str(ours.value)


@pytest.mark.parametrize("backend", ["numpy", "jax"])
def test_values_are_refused_in_compiled_calls(backend):
    drawn = tg.compile(lambda p: tg.bernoulli(p), backend=backend)
    assert drawn(tg.tensor([0.0, 1.0])).tolist() == [0.0, 1.0]
    with pytest.raises(RuntimeError, match="probabilities between 0 and 1"):
        drawn(tg.tensor([0.0, 1.5])).tolist()
    normal = tg.compile(lambda s: tg.normal(tg.ones(2), s), backend=backend)
    assert normal(tg.zeros(2)).tolist() == [1.0, 1.0]
    with pytest.raises(RuntimeError, match="standard deviations of 0 or more"):
        normal(-tg.ones(2)).tolist()


def test_probabilities_of_each_element():
    chances = tg.tensor([0.0, 1.0, 1.0])
    assert tg.zeros(2, 3, dtype=tg.int64).bernoulli_(chances).tolist() == [[0, 1, 1]] * 2


def test_constant_probabilities_leave_no_check():
    step = tg.compile(lambda x: x * tg.bernoulli(tg.full_like(x, 0.5)), backend="numpy")
    assert set(step(tg.ones(64)).tolist()) == {0.0, 1.0}
    assert "check" not in {node.op.name for node in step.graph.nodes}
