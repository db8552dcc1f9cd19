"""Tensors as Python numbers, strings and arrays; numbers as arguments and state."""

import math

import numpy as np

import tracegrad as tg
from tests.runtime.hazards.registry import hazard
from tests.runtime.programs import ramp
from tracegrad.nn import functional as F


@hazard
def tolist_and_numpy_inside(compile):
    def f(x):
        values = x.tolist()
        return x * sum(values) + float(x.numpy().max())

    g = compile(f)
    yield g(ramp(3))
    yield g(ramp(3))
    yield g(ramp(3, start=1.0))


@hazard
def item_as_index(compile):
    t = ramp(5)
    g = compile(lambda i: t[i.item()] * 2)
    for k in (0, 3, 0, 4, -1):
        yield g(tg.tensor(k))


@hazard
def tensors_in_strings(compile):
    g = compile(lambda x: f"{x.sum().item():.2f}")
    yield g(ramp(3))
    yield g(ramp(3))
    yield g(ramp(3, start=1.0))


@hazard
def functions_of_math(compile):
    g = compile(lambda x: x * math.sqrt(x.sum().item()) + math.floor(x.max().item()))
    for k in (0, 1, 0):
        yield g(ramp(3, start=float(k)))


@hazard
def operators_of_integers_alone(compile):
    def f(x):
        n = x.item()
        return n & 6, 12 | n, n ^ 5, n << 2, 100 >> n, ~n, divmod(n, 4), divmod(9, n), +n

    g = compile(f)
    for k in (3, 5, 3):
        yield g(tg.tensor(k))


@hazard
def truths_combined(compile):
    def f(x):
        positive, small = (x > 0).all().item(), (x < 9).all().item()
        return x * 2 if positive & small else x * (positive | small) + +positive

    g = compile(f)
    for k in (1.0, -9.0, 20.0, 1.0):
        yield g(ramp(3) + k)


@hazard
def complex_numbers(compile):
    g = compile(lambda z: (z.item(), z.item() * tg.ones(2), complex(z), z.item().imag))
    yield g(tg.tensor(1 + 2j))
    yield g(tg.tensor(3 - 1j))
    g = compile(lambda x: (x.item() * 2j, 1j - x.item(), x.item() == 3 + 0j))
    for k in (3.0, 4.0):
        yield g(tg.tensor(k))


@hazard
def members_of_numbers(compile):
    g = compile(lambda x, n: (x.item().real, x.item().as_integer_ratio(), n.item().bit_length()))
    yield g(tg.tensor(0.5), tg.tensor(12))
    yield g(tg.tensor(1.5), tg.tensor(3))


@hazard
def numbers_in_numpy(compile):
    def f(x):
        loss = x.sum().item()
        scaled = np.float64(2.0) * loss  # stays in the graph
        return (
            x * scaled,
            float(np.exp(loss)),
            (np.ones(2) * loss).tolist(),
            float(np.maximum(loss, 3.0)),
        )

    g = compile(f)
    yield g(ramp(3))
    yield g(ramp(3, start=1.0))


@hazard
def round_and_abs(compile):
    g = compile(
        lambda x: (
            round(x.sum().item(), 1),
            abs(x.min().item()),
            -x.max().item(),
            x.sum().item() // 1,
            x.sum().item() % 1,
        )
    )
    for k in (0, 1):
        yield g(ramp(3, start=float(k)))


@hazard
def numpy_functions_on_tensors(compile):
    g = compile(lambda x: tg.tensor(np.sort(x.detach().numpy())[::-1].copy()) * 2)
    yield g(ramp(3))
    yield g(-ramp(3))
    yield g(ramp(3))


@hazard
def one_hot_of_unknown_width(compile):
    g = compile(lambda i: F.one_hot(i, int(i.max()) + 1))
    yield g(tg.tensor([0, 1, 2]))
    yield g(tg.tensor([0, 3, 2]))
    yield g(tg.tensor([2, 1, 0]))


@hazard
def returned_numbers(compile):
    g = compile(
        lambda x: {
            "loss": x.sum().item(),
            "f": x.max().item(),
            "n": x.shape[0],
            "b": (x.sum() > 0).item(),
        }
    )
    for k in (0, 1, 2):
        yield g(ramp(3, start=float(k)) - 1)


@hazard
def tensor_made_of_numbers(compile):
    g = compile(lambda x: tg.tensor([x.sum().item(), x.max().item() * 2]))
    for k in range(3):
        yield g(ramp(3, start=float(k)))


@hazard
def items_stacked(compile):
    g = compile(
        lambda x: tg.stack([x[i] * i for i in range(x.shape[0])]) + tg.as_tensor(x.mean().item())
    )
    for k in range(3):
        yield g(ramp(3, start=float(k)))


@hazard
def many_integer_arguments(compile):
    g = compile(lambda x, n: x * n)
    for n in range(25):
        yield g(ramp(2), n)


@hazard
def counter_and_modulo(compile):
    n = tg.zeros((), dtype=tg.int64)

    def f(x):
        n.add_(1)
        if n % 2 == 0:
            return x * 2
        return x

    g = compile(f)
    for _ in range(5):
        yield g(ramp(3)), n


@hazard
def large_integer_argument(compile):
    g = compile(lambda x, k: x * k)
    for k in (2**40, 3):
        yield g(ramp(3, dtype=tg.float64), k), g(tg.arange(3), k)
