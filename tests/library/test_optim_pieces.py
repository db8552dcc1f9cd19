"""Large parameters are updated piece by piece: the same numbers, aliases and history as in one."""

import numpy as np
import pytest

import tracegrad as tg
from tracegrad.tracer.eager import pieces

OPTIMIZERS = {
    "sgd": lambda p: tg.optim.SGD(p, lr=0.1, weight_decay=0.1),
    "momentum": lambda p: tg.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "dampening": lambda p: tg.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5, maximize=True),
    "adam": lambda p: tg.optim.Adam(p, lr=0.1, weight_decay=0.1),
    "amsgrad": lambda p: tg.optim.AdamW(p, lr=0.1, amsgrad=True),
    "rmsprop": lambda p: tg.optim.RMSprop(p, lr=0.1, centered=True, momentum=0.5),
    "adagrad": lambda p: tg.optim.Adagrad(p, lr=0.1),
}


def train(name, size, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", size)
    rng = np.random.default_rng(3)
    shapes = [(7, 5), (4,), ()]
    params = [tg.nn.Parameter(tg.tensor(rng.standard_normal(s), dtype=tg.float32)) for s in shapes]
    params[0].data = params[0].data.t()  # laid out column by column
    optimizer = OPTIMIZERS[name](params)
    for _ in range(3):
        for p in params:
            p.grad = tg.tensor(rng.standard_normal(tuple(p.shape)), dtype=tg.float32)
        optimizer.step()
    slots = [v for p in params for v in optimizer.state[p].values()]
    return [t.detach().numpy().copy() for t in [*params, *slots]]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_pieces_give_the_same_bits(name, monkeypatch):
    for a, b in zip(train(name, 3, monkeypatch), train(name, 1000, monkeypatch), strict=True):
        assert a.tobytes() == b.tobytes()


def test_aliases_see_the_update_and_saved_values_do_not(monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 4)
    p = tg.nn.Parameter(tg.arange(10.0))
    alias, kept = p.detach(), (p * p).sum()
    p.grad = tg.ones(10)
    optimizer = tg.optim.SGD([p], lr=1.0)
    optimizer.step()
    assert alias.tolist() == [k - 1.0 for k in range(10)] == p.tolist()
    p.grad = None
    kept.backward()  # of the values before the step
    assert p.grad.tolist() == [2.0 * k for k in range(10)]


def test_writing_needs_arrays_in_one_stretch(monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 4)
    base = tg.zeros(6, 4)
    columns = base[:, 1:3]
    found = list(pieces.pieces(tg.ones(6, 2), columns))
    assert len(found) == 1 and found[0][1] is columns
    assert len(list(pieces.pieces(tg.ones(10), tg.zeros(10)))) == 3
