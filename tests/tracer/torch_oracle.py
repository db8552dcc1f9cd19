"""One call in tracegrad and PyTorch: equal results and gradients, or both refuse."""

import ml_dtypes
import numpy as np
import torch

import tracegrad.tracer.methods.attach  # noqa: F401  (gives Tensor its methods)
from tracegrad.ir import types
from tracegrad.tracer.creation.tensors import tensor
from tracegrad.tracer.tensor import Tensor

TO_TORCH = {
    types.bool_: torch.bool, types.u8: torch.uint8, types.i8: torch.int8, types.i16: torch.int16,
    types.i32: torch.int32, types.i64: torch.int64, types.f16: torch.float16,
    types.bf16: torch.bfloat16,
    types.f32: torch.float32, types.f64: torch.float64, types.c64: torch.complex64,
    types.c128: torch.complex128,
}  # fmt: skip
FROM_TORCH = {theirs: ours for ours, theirs in TO_TORCH.items()}
TOLERANCE = {
    torch.float64: (1e-9, 1e-10), torch.float32: (3e-5, 3e-6), torch.float16: (4e-3, 4e-3),
    torch.bfloat16: (3e-2, 3e-2), torch.complex64: (3e-5, 3e-6), torch.complex128: (1e-9, 1e-10),
}  # fmt: skip
RNG = np.random.default_rng(7)


def floats(*shape, dtype=torch.float64, low=None, high=None):
    """Normal numbers, or uniform in [low, high]."""
    array = RNG.standard_normal(shape) if low is None else RNG.uniform(low, high, shape)
    return torch.tensor(array).to(dtype)


def integers(*shape, low=0, high=10, dtype=torch.int64):
    return torch.tensor(RNG.integers(low, high, shape)).to(dtype)


def bools(*shape):
    return torch.tensor(RNG.random(shape) < 0.5)


def array_of(value):
    """A torch tensor's values as NumPy (bfloat16 through its bits)."""
    value = value.detach()
    if value.dtype is torch.bfloat16:
        return value.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return value.resolve_conj().numpy()


def convert(value, grad):
    """PyTorch arguments as ours, and the pairs of leaves that want gradients."""
    leaves = []

    def one(v):
        if isinstance(v, torch.Tensor):
            mine = tensor(array_of(v).copy())
            if grad and v.is_floating_point():
                mine.requires_grad_(True)
                v.requires_grad_(True)
                leaves.append((mine, v))
            return mine
        if isinstance(v, torch.dtype):
            return FROM_TORCH[v]
        if isinstance(v, (list, tuple)):
            return type(v)(one(x) for x in v)
        if isinstance(v, dict):
            return {k: one(x) for k, x in v.items()}
        return v

    return one(value), leaves


def flat(result):
    if isinstance(result, (tuple, list)):
        return [part for each in result for part in flat(each)]
    return [result]


def same(mine, theirs, rtol=None, atol=None, what="result"):
    if not isinstance(theirs, torch.Tensor):
        assert mine == theirs, (what, mine, theirs)
        return
    assert isinstance(mine, Tensor), what
    assert tuple(mine.shape) == tuple(theirs.shape), (what, mine.shape, theirs.shape)
    assert TO_TORCH[mine.dtype] is theirs.dtype, (what, mine.dtype, theirs.dtype)
    a, b = mine.detach().numpy(), array_of(theirs)
    if theirs.is_floating_point() or theirs.is_complex():
        r, t = TOLERANCE[theirs.dtype]
        if a.dtype == ml_dtypes.bfloat16:
            a, b = a.astype(np.float32), b.astype(np.float32)
        np.testing.assert_allclose(
            a, b, rtol=r if rtol is None else rtol, atol=t if atol is None else atol, err_msg=what
        )
    else:
        np.testing.assert_array_equal(a, b, err_msg=what)


def agree(ours, theirs, *args, grad=True, rtol=None, atol=None, **kwargs):
    """Call both; compare results, then gradients of floating arguments under fixed cotangents."""
    args = tuple(a.detach().clone() if isinstance(a, torch.Tensor) else a for a in args)
    (own_args, own_kwargs), leaves = convert((args, kwargs), grad)
    mine, expected = flat(ours(*own_args, **own_kwargs)), flat(theirs(*args, **kwargs))
    assert len(mine) == len(expected)
    for k, (a, b) in enumerate(zip(mine, expected)):
        same(a, b, rtol, atol, f"result {k}")
    own_total, total = None, None
    for a, b in zip(mine, expected):
        if isinstance(b, torch.Tensor) and b.requires_grad:
            assert a.requires_grad
            weight = (
                torch.cos(torch.arange(b.numel(), dtype=torch.float64)).reshape(b.shape).to(b.dtype)
            )
            own_weight = tensor(array_of(weight).copy())
            own_total = (
                (a * own_weight).sum() if own_total is None else own_total + (a * own_weight).sum()
            )
            total = (b * weight).sum() if total is None else total + (b * weight).sum()
    if total is None:
        return
    own_total.backward()
    total.backward()
    for k, (a, b) in enumerate(leaves):
        if b.grad is None:
            assert a.grad is None or not a.grad.numpy().any(), (
                f"gradient {k} where PyTorch has none"
            )
            continue
        got = a.grad if a.grad is not None else tensor(np.zeros(tuple(b.shape))).to(a.dtype)
        same(got, b.grad, rtol, atol, f"gradient {k}")
