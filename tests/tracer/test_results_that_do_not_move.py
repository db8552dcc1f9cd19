"""Results that an operand's values do not move carry gradients with it: zeros, or none."""

import numpy as np
import pytest
import torch
from everywhere import MODES, agree_everywhere

import tracegrad as tg

X = np.random.default_rng(3).standard_normal((3, 3)).astype(np.float32)
CALLS = {
    "matrix_power": lambda t, F, x: t.linalg.matrix_power(x, 0),
    "vector_norm": lambda t, F, x: [t.linalg.vector_norm(x, 0), t.linalg.vector_norm(x, 0, dim=1)],
    "norm": lambda t, F, x: x.norm(0),
    "distances": lambda t, F, x: [F.pairwise_distance(x, x * 2, 0), t.dist(x, x * 2, 0)],
    "addmm": lambda t, F, x: t.addmm(x, t.ones(3, 3), t.ones(3, 3), beta=0),
    "addmm of itself": lambda t, F, x: t.addmm(x, x, x * 2, beta=0),
    "copysign of itself": lambda t, F, x: t.copysign(x * 2, x),
    "copysign": lambda t, F, x: t.copysign(t.ones(3, 3), x),
    "det of nothing": lambda t, F, x: [t.linalg.det(x[:0, :0]), t.logdet(x[:0, :0])],
    "floor": lambda t, F, x: [x.floor(), x.sign()],
}


# PyTorch itself fails at the gradients of distances of order 0.
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [name for name in CALLS if name != "distances"])
def test_gradient(name, mode):
    agree_everywhere(mode, CALLS[name], X, legal=True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CALLS)
def test_requires_grad(name, mode):
    def asked(library, *xs):
        found = CALLS[name](library, library.nn.functional, *xs)
        return [y.requires_grad for y in (found if isinstance(found, list) else [found])]

    x = tg.tensor(X, requires_grad=True)
    run = asked if mode == "eager" else tg.compile(lambda _, x: asked(tg, x), backend=mode)
    assert run(tg, x) == asked(torch, torch.tensor(X, requires_grad=True))
