"""Gradient mode and default dtype: for whom they hold, and how long. PyTorch is the oracle."""

import threading
import warnings

import pytest
import torch

import tracegrad as tg
from tests.runtime.programs import BACKENDS
from tracegrad.tracer.errors import GraphBreakError

BOTH = pytest.mark.parametrize("T", [torch, tg])


@BOTH
def test_set_grad_enabled_as_a_decorator(T):
    @T.set_grad_enabled(False)
    def off(x):
        return (x * 2).requires_grad, T.is_grad_enabled()

    assert T.is_grad_enabled()  # making the decorator changed nothing
    x = T.ones(2, requires_grad=True)
    assert off(x) == (False, False) and T.is_grad_enabled()
    assert off.__name__ == "off"
    with T.no_grad():
        assert T.set_grad_enabled(True)(T.is_grad_enabled)() and not T.is_grad_enabled()


@BOTH
def test_numpy_of_a_tensor_that_requires_grad_asks_for_no_grad(T):
    p = T.nn.Parameter(T.ones(2))
    with pytest.raises((RuntimeError, tg.errors.GradientError), match="requires grad"):
        p.numpy()
    with T.no_grad():
        p.numpy()[0] = 5.0
        assert (p * 2).numpy().tolist() == [10.0, 2.0]
        assert p.requires_grad
    q = p * p
    with T.no_grad():
        assert q.numpy().tolist() == [25.0, 1.0]
    q.sum().backward()
    assert p.grad.tolist() == [10.0, 2.0]


@BOTH
@pytest.mark.parametrize("name", ["no_grad", "inference_mode", "set_grad_enabled"])
def test_a_decorated_generator_has_its_mode_between_yields_only(T, name):
    mode = T.set_grad_enabled(False) if name == "set_grad_enabled" else getattr(T, name)()
    seen = []

    @mode
    def numbers(n):
        try:
            for k in range(n):
                got = yield k
                seen.append((got, T.is_grad_enabled()))
        except ValueError:
            seen.append(("thrown", T.is_grad_enabled()))
            yield "caught"
        finally:
            seen.append(("closed", T.is_grad_enabled()))
        return "end"

    found = []
    for k in numbers(2):
        found.append((k, T.is_grad_enabled()))
    assert found == [(0, True), (1, True)]
    generator = numbers(3)
    assert next(generator) == 0 and generator.send("sent") == 1
    with (
        warnings.catch_warnings()
    ):  # PyTorch throws into its generator in a way Python 3.12 deprecates
        if T is torch:
            warnings.simplefilter("ignore", DeprecationWarning)
        assert generator.throw(ValueError()) == "caught"
    with pytest.raises(StopIteration) as end:
        next(generator)
    assert end.value.value == "end"
    generator = numbers(3)
    next(generator)
    generator.close()
    assert T.is_grad_enabled() and not any(on for _, on in seen)
    assert [what for what, _ in seen] == [
        None,
        None,
        "closed",
        "sent",
        "thrown",
        "closed",
        "closed",
    ]


@BOTH
def test_the_default_dtype_holds_in_every_thread(T):
    found = []

    def look():
        found.append((str(T.get_default_dtype()).split(".")[-1], T.tensor(1.5).dtype is T.float64))

    try:
        T.set_default_dtype(T.float64)
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    finally:
        T.set_default_dtype(T.float32)
    assert found == [("float64", True)]


@BOTH
def test_the_gradient_mode_is_a_threads_own(T):
    found = []
    with T.no_grad():
        thread = threading.Thread(target=lambda: found.append(T.is_grad_enabled()))
        thread.start()
        thread.join()
    assert found == [True]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mode_left_on_in_a_compiled_function_stays_on(backend):
    def f(x):
        before = x * 2
        tg.set_grad_enabled(False)
        return before, x * 3

    g = tg.compile(f, backend=backend)
    x = tg.ones(2, requires_grad=True)
    try:
        for _ in range(3):
            tg.set_grad_enabled(True)
            before, after = g(x)
            assert (before.requires_grad, after.requires_grad) == (True, False)
            assert not tg.is_grad_enabled()
        before, after = g(x)
        assert not before.requires_grad and not tg.is_grad_enabled()
    finally:
        tg.set_grad_enabled(True)
    assert g.stats()["recordings"] == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_that_leaves_the_mode_is_no_usual_call(backend):
    w = tg.nn.Parameter(tg.ones(2))
    optimizer = tg.optim.SGD([w], lr=0.1)

    def step(x):
        optimizer.zero_grad()
        loss = (w * x).sum()
        loss.backward()
        optimizer.step()
        tg.set_grad_enabled(False)
        return loss

    g = tg.compile(step, backend=backend)
    try:
        for _ in range(4):
            tg.set_grad_enabled(True)
            g(tg.ones(2))
            assert not tg.is_grad_enabled()
    finally:
        tg.set_grad_enabled(True)


def test_the_default_dtype_is_not_set_by_a_compiled_function():
    def f(x):
        tg.set_default_dtype(tg.float64)
        return x + tg.tensor(1.5)

    with pytest.raises(GraphBreakError, match="set_default_dtype"):
        tg.compile(f, fullgraph=True)(tg.ones(2))
    assert tg.get_default_dtype() is tg.float32
