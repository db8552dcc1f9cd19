"""The backward of the tape, compiled from its second sighting: as the first."""

import numpy as np
import pytest

import tracegrad as tg
from tests.tracer.leaves import leaf, plain


def test_second_and_third_sighting_equal_the_first():
    from tracegrad.tracer.tape import compiled as compiled_backward

    rng = np.random.default_rng(0)
    w = leaf(tg, rng.standard_normal((4, 4)))
    weights = rng.standard_normal((3, 5, 4))
    for values in weights:
        gradients = []
        for round in range(3):
            before = len(compiled_backward._compiled)
            x = leaf(tg, values)
            hidden = tg.tanh(x @ w) * 1.7 + x.sum(dim=0)
            parts = hidden.unbind(0)
            tg.softmax(hidden * parts[1], dim=-1).max(dim=1)[0].sum().backward()
            gradients.append((plain(x.grad), plain(w.grad)))
            w.grad = None
            if round == 0 and values is weights[0]:
                assert len(compiled_backward._compiled) == before
        for a, b in gradients[1:]:
            np.testing.assert_allclose(a, gradients[0][0], rtol=1e-12)
            np.testing.assert_allclose(b, gradients[0][1], rtol=1e-12)


def test_python_numbers_are_no_part_of_the_structure():
    for k in range(5):
        x = leaf(tg, [0.5, 2.0])
        (x * float(k) + (x * x) * 0.5).sum().backward()
        np.testing.assert_allclose(plain(x.grad), np.array([0.5, 2.0]) + k)


@pytest.mark.parametrize("sighting", ["interpreted", "recording"])
def test_a_long_chain_does_not_recurse(sighting):
    x = leaf(tg, [1.0])
    y = x
    for _ in range(20_000):
        y = y + x
    if sighting == "recording":
        (g,) = tg.autograd.grad(y.sum(), [x], create_graph=True)
    else:
        y.sum().backward()
        g = x.grad
    assert plain(g) == [20_001.0]
    del y, g  # dropping the chain must not recurse either
