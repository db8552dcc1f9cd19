"""Leaves and results of programs that run in tracegrad and in PyTorch."""

import numpy as np
import torch

import tracegrad as tg


def leaf(lib, values, grad=True):
    array = np.asarray(values, np.float64)
    result = lib.tensor(array)
    return result.requires_grad_() if grad else result


def plain(value):
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (tg.Tensor, torch.Tensor)):
        return np.array(value.detach().numpy())
    return value


def equal(mine, theirs):
    if isinstance(theirs, list):
        assert len(mine) == len(theirs)
        for a, b in zip(mine, theirs):
            equal(a, b)
    elif isinstance(theirs, np.ndarray):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)
    else:
        assert mine == theirs
