"""Straight-line programs give the kernels' values, dtypes and memory layouts, bit for bit."""

import numpy as np
import pytest

from tests.op_samples import SAMPLES
from tracegrad.backends.numpy import KERNELS, interpret, straight
from tracegrad.passes.decompose import Decompose

CASES = [(name, k) for name in SAMPLES for k in range(len(SAMPLES[name]))]


def flipped(a):
    """Equal, but laid out column by column."""
    return np.asfortranarray(a) if a.ndim > 1 else a


def check(graph, arrays, fresh=True):
    graph = Decompose(frozenset(KERNELS)).run(graph)
    run = straight(graph)
    for given in (arrays, [flipped(a) for a in arrays]):
        kept = [a.copy() for a in given]
        expected = interpret(graph, given)
        found = run(given)
        for before, after in zip(kept, given):
            assert before.tobytes() == after.tobytes()
        for mine, theirs in zip(found, expected, strict=True):
            assert type(mine) is np.ndarray
            assert mine.dtype == theirs.dtype and mine.shape == theirs.shape
            assert mine.tobytes() == np.asarray(theirs).tobytes()
            owned = not any(np.may_share_memory(theirs, a) for a in given)
            if owned and theirs.flags.writeable and theirs.size > 1:
                assert mine.flags.c_contiguous or mine.strides == theirs.strides
            assert not any(np.may_share_memory(mine, a) for a in given if a.size)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "k"), CASES)
def test_samples(name, k):
    sample = SAMPLES[name][k]
    check(sample.graph(name), sample.arrays())
