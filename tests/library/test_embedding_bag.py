"""EmbeddingBag against PyTorch: modes, offsets, padding, weights; and what it refuses."""

import numpy as np
import pytest
import torch
from side_by_side import compare, copy_weights

import tracegrad as tg
from tracegrad import nn

MATRIX = np.array([[1, 2, 2], [5, 1, 0], [2, 2, 2]])
VECTOR = np.array([1, 2, 4, 5, 4, 3, 2, 9])


@pytest.mark.parametrize("padding", [None, 2, -8])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("offsets", [None, [0, 3, 3, 6], [0, 4, 8]], ids=str)
def test_embedding_bag(mode, offsets, padding):
    last = offsets is not None and offsets[-1] == len(VECTOR)
    options = dict(mode=mode, padding_idx=padding, include_last_offset=last)
    theirs = torch.nn.EmbeddingBag(10, 3, **options)
    ours = nn.EmbeddingBag(10, 3, **options)
    assert repr(ours) == repr(theirs)
    copy_weights(ours, theirs)
    inputs = [MATRIX] if offsets is None else [VECTOR, np.array(offsets)]
    compare(ours, theirs, inputs, "float32")
    compiled = tg.compile(ours, backend="numpy", fullgraph=True)
    given = [tg.tensor(a) for a in inputs]
    np.testing.assert_allclose(
        compiled(*given).detach().numpy(), ours(*given).detach().numpy(), rtol=1e-6
    )


def test_weights_of_samples():
    weights = np.random.default_rng(0).standard_normal(MATRIX.shape)
    theirs, ours = torch.nn.EmbeddingBag(10, 3, mode="sum"), nn.EmbeddingBag(10, 3, mode="sum")
    copy_weights(ours, theirs)
    compare(
        lambda i, w: ours(i, per_sample_weights=w),
        lambda i, w: theirs(i, per_sample_weights=w),
        [MATRIX, weights],
        "float32",
    )


def test_from_pretrained_and_what_is_refused():
    bag = nn.EmbeddingBag.from_pretrained(tg.ones(4, 2), mode="sum")
    assert not bag.weight.requires_grad
    assert bag(tg.tensor([[0, 1, 2]])).tolist() == [[3.0, 3.0]]
    with pytest.raises(ValueError, match="mode"):
        nn.EmbeddingBag(4, 2, mode="min")(tg.tensor([[0]]))
    with pytest.raises(tg.errors.ShapeError, match="indices"):
        bag(tg.tensor([0, 1]))
    with pytest.raises(NotImplementedError, match="per_sample_weights"):
        nn.EmbeddingBag(4, 2)(tg.tensor([[0]]), per_sample_weights=tg.ones(1, 1))
    with pytest.raises(NotImplementedError, match="sparse"):
        nn.EmbeddingBag(4, 2, sparse=True)
