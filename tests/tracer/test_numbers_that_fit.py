"""Numbers that a dtype cannot hold, and creation functions given numbers of the graph."""

import numpy as np
import pytest
import torch
from everywhere import MODES, agree_everywhere

import tracegrad as tg

DTYPES = ("bool", "uint8", "int8", "int32", "int64", "float16", "bfloat16", "float32")
VALUES = (
    300,
    -1,
    -255,
    -256,
    2**31,
    255.5,
    256.0,
    -1.0,
    1.9,
    1e6,
    1e39,
    float("inf"),
    float("nan"),
)
STORES = {
    "tensor": lambda t, F, x, v: t.tensor([v], dtype=x.dtype),
    "full": lambda t, F, x, v: t.full((2,), v, dtype=x.dtype),
    "full_like": lambda t, F, x, v: t.full_like(x, v),
    "new_full": lambda t, F, x, v: x.new_full((2,), v),
    "fill_": lambda t, F, x, v: x.clone().fill_(v),
    "masked_fill": lambda t, F, x, v: x.masked_fill(t.tensor([True, False]), v),
    "index_fill": lambda t, F, x, v: x.index_fill(0, t.tensor([1]), v),
    "scatter": lambda t, F, x, v: x.scatter(0, t.tensor([1]), v),
    "clamp": lambda t, F, x, v: x.clamp(max=v),
    "clamp_min": lambda t, F, x, v: x.clamp_min(v),
    "where": lambda t, F, x, v: t.where(t.tensor([True, False]), x, v),
    "pad": lambda t, F, x, v: F.pad(x, (1, 0), value=v),
    "x[0]": lambda t, F, x, v: written(x, 0, v),
    "x[:1]": lambda t, F, x, v: written(x, slice(0, 1), v),
    "x[mask]": lambda t, F, x, v: written(x, t.tensor([True, False]), v),
    "x[indices]": lambda t, F, x, v: written(x, t.tensor([1]), v),
}


# Ours is a typed error always, never NumPy's or Python's own.
REFUSALS = {
    torch: (RuntimeError, TypeError, ValueError, OverflowError),
    tg: (tg.errors.TracegradError,),
}


def written(x, index, value):
    x = x.clone()
    x[index] = value
    return x


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", STORES)
def test_stored(name, dtype):
    for value in VALUES:
        results = []
        for library in (torch, tg):
            x = library.tensor([1, 0]).to(getattr(library, dtype))
            try:
                found = STORES[name](library, library.nn.functional, x, value)
                results.append((str(found.dtype).split(".")[1], found.to(library.float64).tolist()))
            except REFUSALS[library]:
                results.append("refused")
        np.testing.assert_equal(results[1], results[0], f"{name} {value} {dtype}")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [name for name in STORES if name not in ("tensor", "new_full")])
def test_refused_in_every_mode(name, mode):
    if mode != "eager":
        x = tg.tensor([1, 0], dtype=tg.uint8)
        run = tg.compile(lambda x: STORES[name](tg, tg.nn.functional, x, 300), backend=mode)
        with pytest.raises((tg.errors.InvalidValueError, tg.errors.ShapeError)):
            run(x)
    x = np.array([1, 0], np.uint8)
    agree_everywhere(mode, lambda t, F, x: STORES[name](t, F, x, 300), x)
    agree_everywhere(mode, lambda t, F, x: STORES[name](t, F, x, 200), x, legal=True)


def items(t, x):
    return [each.item() for each in x]


N, Y = np.array([3, 2, 0, -2], np.int64), np.array([1.5, 2.0, 300.0, -0.0], np.float64)
MADE = {
    "arange": (lambda t, F, n: [t.arange(n[0].item()), t.arange(0, n[0].item(), n[1].item())], N),
    "arange of floats": (lambda t, F, y: [t.arange(y[0].item()), t.arange(0, y[1].item(), 0.5)], Y),
    "arange of tensors": (lambda t, F, n: [t.arange(n[0]), t.arange(n[3], n[0])], N),
    "arange of a fraction": (lambda t, F, n: [
        t.arange(0, 2.7, dtype=t.int64), t.arange(-2.7, 2.7, dtype=t.int64),
        t.arange(0.5, 3.2, 0.5, dtype=t.int32), t.arange(3.9, 0.5, -1.5, dtype=t.int64),
        t.arange(0, 2.7, dtype=t.uint8), t.arange(0, 1, 0.1)], N),
    "full": (lambda t, F, y: [
        t.full((2,), y[0].item()), t.full((2,), y[0].item(), dtype=t.int64), t.full((2,), y[0]),
        t.full((2,), y[1], dtype=t.int32), t.full((), y[3].item())], Y),
    "full of integers": (lambda t, F, n: [
        t.full((2,), n[0].item()), t.full((2,), n[0]), t.full((2,), n[0] > 1), t.full_like(n, n[0]),
        t.full((2,), n[0].item(), dtype=t.float32), n.new_full((1,), n[0].item() / 2)], N),
    "powers": (lambda t, F, n: [
        t.tensor(n[0].item() ** 2), t.tensor(2 ** n[0].item()), t.tensor(n[0].item() ** n[1].item()),
        t.tensor(n[0].item() ** n[3].item()), t.tensor(n[0].item() ** -1), t.tensor(
            n[0].item() ** 0.5), t.tensor(n[0].item() ** 0)], N),
    "lists": (lambda t, F, y: [
        t.tensor([y[0], y[1]]), t.tensor([y[0].float(), 2]), t.tensor([y[0], 2]), t.tensor(
            [[y[0].half()], [1.0]])],
        Y),
    "lists of integers": (lambda t, F, n: [
        t.tensor([n[0].int(), 2]), t.tensor([n[0].to(t.uint8), n[1].to(t.int8)]), t.tensor(
            [n[0] > 1, False]), t.tensor([n[0] > 1, 2]), t.tensor([n[0].item(), 1])], N),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", MADE)
def test_made(name, mode):
    call, array = MADE[name]
    agree_everywhere(mode, call, array, grad=False, legal=True)


@pytest.mark.parametrize(
    "bounds", [(1, 0), (0, 2, 0), (float("inf"),), (0, float("nan")), (0, 2, -1)]
)
def test_arange_refuses(bounds):
    for library in (torch, tg):
        with pytest.raises((RuntimeError, tg.TracegradError)):
            library.arange(*bounds)
    with pytest.raises(tg.TracegradError):
        tg.arange(3, dtype=tg.bool)
    with pytest.raises(tg.TracegradError):
        tg.arange(0, 2, 0.5, dtype=tg.int64)
