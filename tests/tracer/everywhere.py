"""One call in PyTorch and here (eager, compiled for NumPy, compiled for JAX): equal results and
gradients, None where PyTorch has None, or an error in all of them.
"""

import importlib.util

import ml_dtypes
import numpy as np
import torch
import torch.nn.functional as torch_functional

import tracegrad as tg
from tracegrad.nn import functional

MODES = ["eager", "numpy"] + ["jax"] * (importlib.util.find_spec("jax") is not None)


def flat(result):
    if isinstance(result, (tuple, list)):
        return [part for each in result for part in flat(each)]
    return [result]


def plain(value):
    """(dtype, array) of a tensor of either library; other values as they are."""
    if isinstance(value, torch.Tensor):
        value, name = value.detach().resolve_conj(), str(value.dtype).removeprefix("torch.")
        if value.dtype is torch.bfloat16:
            return name, value.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return name, value.numpy(force=True)  # also of PyTorch's unwritten zeros
    if isinstance(value, tg.Tensor):
        return value.dtype.public_name, value.detach().numpy()
    return value


def outcome(mode, call, arrays, grad):
    """What `call(library, its nn.functional, *tensors)` gives, and the gradients of all floating
    tensors under fixed cotangents; or the exception.
    """
    library, F = (torch, torch_functional) if mode == "torch" else (tg, functional)
    tensors = [library.tensor(array) for array in arrays]
    for tensor in tensors:
        if grad and tensor.is_floating_point():
            tensor.requires_grad_()

    def body(*xs):
        results = flat(call(library, F, *xs))
        leaves = [x for x in xs if x.requires_grad]
        total = None
        for y in results:
            if isinstance(y, library.Tensor) and y.requires_grad:
                weight = library.arange(1, y.numel() + 1, dtype=y.dtype).reshape(y.shape)
                part = (y * weight).sum()
                total = part if total is None else total + part
        if total is None:
            return results, None
        return results, library.autograd.grad(total, leaves, allow_unused=True)

    run = tg.compile(body, backend=mode) if mode in ("numpy", "jax") else body
    try:
        results, gradients = run(*tensors)
        return [plain(r) for r in results], [plain(g) for g in gradients or ()]
    except Exception as error:
        return error


def same(mine, theirs, rtol, atol):
    if not isinstance(theirs, tuple):
        assert mine == theirs
        return
    assert isinstance(mine, tuple), (mine, theirs)
    (name, a), (wanted, b) = mine, theirs
    assert name == wanted and a.shape == b.shape, (name, a.shape, wanted, b.shape)
    if b.dtype.kind in "fcV":
        if b.dtype == ml_dtypes.bfloat16:
            a, b = a.astype(np.float32), b.astype(np.float32)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)
    else:
        np.testing.assert_array_equal(a, b)


def agree_everywhere(mode, call, *arrays, grad=True, rtol=2e-4, atol=1e-5, legal=False):
    """`legal`: PyTorch must not raise."""
    theirs = outcome("torch", call, arrays, grad)
    mine = outcome(mode, call, arrays, grad)
    if isinstance(theirs, Exception):
        if legal:
            raise theirs
        assert isinstance(mine, Exception), (theirs, mine)
        return
    if isinstance(mine, Exception):
        raise mine
    for kind, ours, wanted in zip(("results", "gradients"), mine, theirs):
        assert len(ours) == len(wanted), kind
        for a, b in zip(ours, wanted):
            same(a, b, rtol, atol)
