"""What a compiled function cannot repeat: it says so and runs eagerly, or it raises."""

import re
import threading
import time
import warnings

import numpy as np
import pytest

import tracegrad as tg
from tests.runtime import (  # noqa: F401  (enter their programs)
    refused_changes,
    refused_draws,
    refused_memory,
    refused_results,
)
from tests.runtime.hazards.registry import FALL_BACKS as PROGRAMS
from tests.runtime.programs import BACKENDS, ramp, run, same


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_equals_eager_after_one_warning(name, backend):
    program, words = PROGRAMS[name]
    expected = run(program, lambda function: function)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = run(program, lambda function: tg.compile(function, backend=backend))
    same(expected, found)
    assert len(caught) == 1, [str(w.message) for w in caught]
    message = str(caught[0].message)
    assert "eager" in message and "Fix" in message.replace("fix", "Fix")

    assert re.search(words, message), message


@pytest.mark.parametrize("name", PROGRAMS)
def test_is_an_error_with_fullgraph(name):
    program, words = PROGRAMS[name]
    with pytest.raises(tg.errors.GraphBreakError, match=words):
        run(program, lambda function: tg.compile(function, backend="numpy", fullgraph=True))


def test_clock_is_not_frozen():
    x = tg.ones(3, dtype=tg.float64)
    f = tg.compile(lambda x: x * time.perf_counter())
    with pytest.warns(UserWarning, match="perf_counter"):
        first = f(x)
    assert (f(x).numpy() > first.numpy()).all()


def test_generator_without_a_seed_is_not_frozen():
    x = tg.ones(3, dtype=tg.float64)
    f = tg.compile(lambda x: x * float(np.random.default_rng().random()))
    with pytest.warns(UserWarning, match="random bytes"):
        first = f(x)
    assert (f(x).numpy() != first.numpy()).all()


class Hidden:
    """A value behind a C object: no guard sees it."""

    def __init__(self):
        self.lock = threading.Lock()

    def __call__(self):
        return 5.0 if self.lock.locked() else 2.0


def test_recheck_finds_what_no_guard_can_see():
    hidden = Hidden()
    f = tg.compile(lambda x: x * hidden(), recheck=3)
    x = tg.ones(2)
    assert f(x)[0].item() == 2.0
    hidden.lock.acquire()
    assert f(x)[0].item() == 2.0  # stale: the documented limit
    with pytest.warns(UserWarning, match="stale graph"):
        assert f(x)[0].item() == 5.0
    assert f(x)[0].item() == 5.0
    assert f(x)[0].item() == 5.0
    assert f(x)[0].item() == 5.0  # the sixth call: rechecked, nothing new, no warning
    assert f.why().count("recheck") == 2


def test_recheck_knows_each_path(backend):
    """What a segment hands on depends on the path met first: no reason to call a graph stale."""
    hidden = Hidden()

    def f(x):
        y = x * 2
        return y * y * hidden() if y.sum() > 0 else y - 1

    g = tg.compile(f, backend=backend, recheck=2)
    x = ramp(3)
    for k in range(9):
        g(x if k % 3 else -x)
    assert g.stats()["recordings"] == 6  # of both paths once, and four rechecks
    hidden.lock.acquire()
    with pytest.warns(UserWarning, match="stale graph"):
        g(x)
    np.testing.assert_allclose(g(x).numpy(), f(x).numpy())


def test_writing_to_numpy_memory_falls_back():
    array = np.zeros(3)

    def f(x):
        tg.from_numpy(array).add_(1)
        return x * 2

    g = tg.compile(f)
    with pytest.warns(UserWarning, match="from_numpy"):
        g(ramp(3))
    assert (array == 1).all()
    g(ramp(3))
    assert (array == 2).all()


def test_a_fact_that_is_another_one_at_every_call_ends_in_eager_calls():
    def f(x):
        class Layer:
            made = 0

            def __init__(self):
                Layer.made += 1

        Layer()
        return x * Layer.made

    call = tg.compile(f)
    with pytest.warns(UserWarning, match="runs eagerly from now on: this changes between calls"):
        for _ in range(40):
            assert call(tg.ones(2)).tolist() == [1.0, 1.0]
    recordings = call.stats()["recordings"]
    call(tg.ones(2))
    assert call.stats()["recordings"] == recordings < 40
