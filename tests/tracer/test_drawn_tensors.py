"""Random tensors as scripts ask for them."""

from __future__ import annotations

import pytest
import torch

import tracegrad as tg

DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_random_without_bounds_draws_what_the_dtype_holds_exactly(dtype: str) -> None:
    theirs = torch.zeros(20_000, dtype=getattr(torch, dtype)).random_().double().numpy()
    ours = tg.zeros(20_000, dtype=getattr(tg, dtype)).random_().double().numpy()
    assert ours.min() >= 0
    assert ours.mean() == pytest.approx(theirs.mean(), rel=0.05)
    assert ours.max() == pytest.approx(theirs.max(), rel=0.01)


@pytest.mark.parametrize("draw", ["rand", "randn"])
def test_sizes_by_name(draw: str) -> None:
    function = getattr(tg, draw)
    found = []
    for given in ({"size": (2, 3)}, None):
        tg.manual_seed(3)
        found.append(function(**given) if given else function(2, 3))
    assert found[0].tolist() == found[1].tolist()
    assert function(size=(2,), requires_grad=True).requires_grad
