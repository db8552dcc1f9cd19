"""What a compiled function cannot repeat: it says so and runs eagerly, or it raises."""

import collections
import random
import re
import time
import warnings

import numpy as np
import pytest

import tracegrad as tg
from tests.runtime.programs import BACKENDS, ramp, run, same
from tracegrad.runtime.pictures import MAX_ITEMS

PROGRAMS = {}


def falls_back(words):
    """A program that ends up eager, after a warning with these words; its reports equal eager."""

    def register(function):
        PROGRAMS[function.__name__] = (function, words)
        return function

    return register


@falls_back("np.random")
def numpy_random(compile):
    g = compile(lambda x: x * float(np.random.rand()))
    for _ in range(3):
        yield g(ramp(3))


@falls_back("random")
def python_random(compile):
    random.seed(3)
    g = compile(lambda x: x * random.random())
    for _ in range(3):
        yield g(ramp(3))


@falls_back("random generator")
def numpy_generator(compile):
    rng = np.random.default_rng(5)
    g = compile(lambda x: x * float(rng.normal()))
    for _ in range(3):
        yield g(ramp(3))


@falls_back("iterator")
def iterator_consumed(compile):
    numbers = iter([1.0, 2.0, 3.0])
    g = compile(lambda x: x * next(numbers))
    for _ in range(3):
        yield g(ramp(3))


@falls_back("iterator")
def generator_consumed(compile):
    def batches():
        yield from (ramp(3), ramp(3) * 2, ramp(3) * 3)

    source = batches()
    g = compile(lambda: next(source) + 1)
    for _ in range(3):
        yield g()


@falls_back("changes between calls: n")
def counter_in_a_closure(compile):
    n = 0

    def f(x):
        nonlocal n
        n += 1
        return x * n

    g = compile(f)
    for _ in range(7):
        yield g(ramp(3)), n
    n = 0
    yield g(ramp(3)), n


@falls_back("changes between calls: count")
def counter_in_a_module(compile):
    class Counting(tg.nn.Module):
        def __init__(self):
            super().__init__()
            self.count = 0

        def forward(self, x):
            self.count += 1
            return x * self.count

    m = Counting()
    g = compile(m)
    for _ in range(7):
        yield g(ramp(3)), m.count


@falls_back("changes between calls: count")
def counter_on_a_class(compile):
    class Counting:
        count = 0

        def scale(self, x):
            type(self).count += 1
            return x * self.count

    o = Counting()
    g = compile(lambda x: o.scale(x))
    for _ in range(7):
        yield g(ramp(3)), Counting.count


@falls_back("log")
def tensors_appended_to_a_list(compile):
    log = []

    def f(x):
        y = x * 2
        log.append(y)
        return y

    g = compile(f)
    for k in range(4):
        g(ramp(3, start=float(k)))
        yield list(log)


@falls_back("history")
def numbers_appended_to_an_attribute(compile):
    class Local:
        def __init__(self):
            self.history = []

        def step(self, x):
            loss = x.sum()
            self.history.append(loss.item())
            return loss

    o = Local()
    g = compile(o.step)
    for k in range(4):
        g(ramp(3, start=float(k)))
        yield list(o.history)


@falls_back("cache")
def tensors_kept_in_a_dict(compile):
    cache = {}

    def table(n):
        if n not in cache:
            cache[n] = tg.arange(n) * 2.0
        return cache[n]

    g = compile(lambda x: x + table(x.shape[0]))
    yield g(ramp(3)), g(ramp(3)), g(ramp(4))
    cache[3] = tg.zeros(3)
    yield g(ramp(3))


@falls_back("window")
def deque_as_a_window(compile):
    window = collections.deque(maxlen=2)

    def f(x):
        window.append(x.sum().item())
        return x * sum(window)

    g = compile(f)
    for k in range(4):
        yield g(ramp(3, start=float(k)))


@falls_back("array")
def numpy_array_written(compile):
    array = np.zeros(3, np.float32)

    def f(x):
        array[0] += 1
        return x * float(array[0])

    g = compile(f)
    for _ in range(3):
        yield g(ramp(3)), array.copy()


@falls_back("too large")
def enormous_list(compile):
    values = [1.0] * (MAX_ITEMS + 1)
    g = compile(lambda x: x * values[-1])
    yield g(ramp(3))
    values[-1] = 3.0
    yield g(ramp(3))


@falls_back("reading x\\[mask\\]")
def shape_that_depends_on_values(compile):
    g = compile(lambda x: x[x > 0.4].sum())
    for k in range(3):
        yield g(ramp(3, start=k * 0.2))


@falls_back("argument")
def argument_dict_extended(compile):
    def f(d):
        d["new"] = d["x"] * 2
        return d["new"]

    g = compile(f)
    for k in range(3):
        d = {"x": ramp(2, start=float(k))}
        yield g(d), d


@falls_back("argument")
def argument_list_extended(compile):
    def f(values):
        values.append(values[0] * 2)
        return values[0]

    g = compile(f)
    for k in range(3):
        values = [ramp(2, start=float(k))]
        yield g(values), values


@falls_back("argument")
def argument_array_written(compile):
    def f(x, array):
        array[0] = 7
        return x * 2

    g = compile(f)
    for _ in range(3):
        array = np.arange(3.0)
        yield g(ramp(3), array), array


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


def test_print_happens_once_a_recording_and_is_reported(capsys):
    def f(x):
        print("shape", tuple(x.shape))
        return x * 2

    g = tg.compile(f)
    for _ in range(3):
        g(ramp(3))
    assert capsys.readouterr().out == "shape (3,)\n"
    assert "print() at" in g.why() and "test_side_effects.py" in g.why()


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


class Hidden:
    """A value behind a C object: no guard sees it."""

    def __init__(self, value):
        self.cell = np.array([value], dtype=object)

    def __call__(self):
        return self.cell[0]


def test_recheck_finds_what_no_guard_can_see():
    hidden = Hidden(2.0)
    f = tg.compile(lambda x: x * hidden(), recheck=3)
    x = tg.ones(2)
    assert f(x)[0].item() == 2.0
    hidden.cell[0] = 5.0
    assert f(x)[0].item() == 2.0  # stale: the documented limit
    with pytest.warns(UserWarning, match="stale graph"):
        assert f(x)[0].item() == 5.0
    assert f(x)[0].item() == 5.0
    assert f(x)[0].item() == 5.0
    assert f(x)[0].item() == 5.0  # the sixth call: rechecked, nothing new, no warning
    assert f.why().count("recheck") == 2


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


@pytest.mark.parametrize("backend", ["numpy", "jax"])
def test_gradients_accumulated_over_micro_batches_are_recorded_a_few_times(backend):
    if backend == "jax":
        pytest.importorskip("jax")

    def train(compile):
        tg.manual_seed(0)
        model = tg.nn.Sequential(tg.nn.Linear(3, 4), tg.nn.Tanh(), tg.nn.Linear(4, 1))
        optimizer = tg.optim.Adam(model.parameters(), lr=0.1)

        def micro(x, update):
            loss = (model(x) ** 2).mean()
            loss.backward()
            if update:
                optimizer.step()
                optimizer.zero_grad()
            return loss

        micro = compile(micro)
        log = []
        for k in range(18):
            log.append(micro(tg.ones(2, 3) * (k % 5), k % 3 == 2).item())
            grad = model[0].weight.grad
            log.append(None if grad is None else grad.sum().item())
        return micro, log, [p.tolist() for p in model.parameters()]

    _, log, weights = train(lambda f: f)
    micro, found, ours = train(lambda f: tg.compile(f, backend=backend, fullgraph=True))
    assert [x is None for x in found] == [x is None for x in log]
    np.testing.assert_allclose(
        [x or 0.0 for x in found], [x or 0.0 for x in log], rtol=1e-4, atol=1e-6
    )
    for a, b in zip(ours, weights):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert micro.stats()["recordings"] <= 5, micro.why()


def test_a_gradient_that_is_also_held_elsewhere_is_still_told_apart():
    w = tg.ones(2, requires_grad=True)
    held = {"grad": None}

    def micro(x):
        (w * x).sum().backward()
        return held["grad"] * 1

    compiled = tg.compile(micro)
    for _ in range(4):
        w.grad = held["grad"] = tg.zeros(2)
        for k in (1.0, 2.0):
            assert compiled(tg.full((2,), k)).tolist() == held["grad"].tolist() == w.grad.tolist()
    other = tg.zeros(2)
    held["grad"] = other
    assert compiled(tg.ones(2)).tolist() == [0.0, 0.0]


def test_two_parameters_that_come_to_share_a_gradient():
    a, b = tg.ones(2, requires_grad=True), tg.ones(2, requires_grad=True)

    def micro(x):
        (a * x + 2 * b * x).sum().backward()

    compiled = tg.compile(micro)
    for _ in range(4):
        a.grad, b.grad = tg.zeros(2), tg.zeros(2)
        compiled(tg.ones(2))
        assert a.grad.tolist() == [1.0, 1.0] and b.grad.tolist() == [2.0, 2.0]
    a.grad = b.grad = tg.zeros(2)
    compiled(tg.ones(2))
    assert a.grad.tolist() == b.grad.tolist() == [3.0, 3.0]
