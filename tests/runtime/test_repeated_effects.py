"""What a compiled function does to Python's names, repeated at every call; and what is not."""

import numpy as np

import tracegrad as tg
from tests.runtime.programs import ramp


def test_print_happens_once_a_recording_and_is_reported(capsys):
    def f(x):
        print("shape", tuple(x.shape))
        return x * 2

    g = tg.compile(f)
    for _ in range(3):
        g(ramp(3))
    assert capsys.readouterr().out == "shape (3,)\n"
    assert "print() at" in g.why() and "test_repeated_effects.py" in g.why()


def test_constants_bound_while_recording_are_bound_at_every_call():
    class Local:
        mode = "none"
        last = None

    o = Local()

    def f(x):
        o.mode = "ran"
        o.last = x.sum()
        o.pair = (x * 2, [x + 1])
        return x

    g = tg.compile(f)
    for k in range(3):
        o.mode = "none"
        x = ramp(3, start=float(k))
        g(x)
        assert o.mode == "ran"
        np.testing.assert_allclose(o.last.item(), x.sum().item(), rtol=1e-6)
        np.testing.assert_allclose(o.pair[0].numpy(), x.numpy() * 2)
        np.testing.assert_allclose(o.pair[1][0].numpy(), x.numpy() + 1)
    assert g.stats()["recordings"] == 1


def test_globals_bound_while_recording():
    namespace = {}
    exec("def f(x):\n    global found\n    found = x * 3\n    return x", namespace)
    g = tg.compile(namespace["f"])
    for k in range(3):
        g(ramp(3, start=float(k)))
        np.testing.assert_allclose(namespace["found"].numpy(), ramp(3, start=float(k)).numpy() * 3)
