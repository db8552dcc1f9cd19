"""Kernels choose by the bits of a bool, so that each of its bytes has to be 0 or 1."""

import numpy as np
import pytest

import tracegrad as tg

MASK = np.array([0, 1, 2, 255] * 512, np.uint8)  # 1,536 of them true, of 2,048


def test_bools_of_other_bytes_are_copied_as_true():
    mask = tg.tensor(MASK.view(bool))
    assert tg.where(mask, tg.ones(2048), tg.zeros(2048)).sum().item() == 1536
    assert tg.ones(2048).masked_fill(mask[::2].repeat(2), 0.0).sum().item() == 1024
    assert mask.numpy().view(np.uint8).max() == 1


@pytest.mark.parametrize(
    "use",
    [
        lambda: tg.from_numpy(MASK.view(bool)),
        lambda: tg.as_tensor(MASK.view(bool)[::3]),
        lambda: tg.tensor(MASK).view(tg.bool),
        lambda: tg.where(MASK.view(bool), tg.ones(2048), tg.zeros(2048)),
    ],
)
def test_bools_of_other_bytes_are_refused_where_memory_is_shared(use):
    with pytest.raises(tg.errors.InvalidValueError, match="not all 0 or 1"):
        use()


def test_integers_that_are_bools_may_be_seen_as_such():
    assert tg.tensor(MASK[:2]).view(tg.bool).tolist() == [False, True]
    assert tg.from_numpy(MASK[:2].view(bool)).tolist() == [False, True]
    assert tg.from_numpy(MASK[:0].view(bool)).shape == (0,)
