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


@pytest.mark.parametrize("offsets", [[0, 9], [1, 2], [0, 3, 2], [-1, 2]], ids=str)
@pytest.mark.parametrize("backend", [None, "numpy", "jax"])
def test_offsets_that_are_no_bags(backend, offsets):
    """PyTorch refuses them too; those that fall ([0, 3, 2]) only where it runs on several threads."""
    if offsets != [0, 3, 2]:
        with pytest.raises(RuntimeError):
            torch.nn.functional.embedding_bag(
                torch.tensor(VECTOR), torch.ones(10, 3), torch.tensor(offsets)
            )
    weight = tg.ones(10, 3)

    def bag(indices, at):
        return nn.functional.embedding_bag(indices, weight, at)

    run = bag if backend is None else tg.compile(bag, backend=backend, fullgraph=True)
    with pytest.raises(RuntimeError, match="offsets that begin with 0"):
        run(tg.tensor(VECTOR), tg.tensor(offsets)).tolist()
    assert run(tg.tensor(VECTOR), tg.tensor([0, 2])).tolist() == [[1.0] * 3] * 2


def test_no_bags():
    empty = torch.empty(0, dtype=torch.int64)
    theirs = torch.nn.functional.embedding_bag(torch.tensor(VECTOR), torch.ones(10, 3), empty)
    ours = nn.functional.embedding_bag(tg.tensor(VECTOR), tg.ones(10, 3), tg.tensor(empty.numpy()))
    assert ours.shape == tuple(theirs.shape) == (0, 3)
