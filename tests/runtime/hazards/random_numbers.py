"""Random numbers: the stream moves as it does eagerly."""

import numpy as np

import tracegrad as tg
from tests.runtime.hazards.registry import hazard
from tests.runtime.programs import ramp


@hazard
def dropout_differs_and_repeats(compile):
    m = tg.nn.Dropout(0.5)
    g = compile(m)
    x = tg.ones(50)
    first, second = g(x), g(x)
    yield first, second, bool((first == second).all())
    tg.manual_seed(3)
    a = g(x)
    tg.manual_seed(3)
    yield a, g(x)
    tg.manual_seed(4)
    yield g(x)


@hazard
def random_state_moves_as_eager(compile):
    g = compile(lambda x: x + tg.rand(3) * tg.randn(3))
    yield g(ramp(3)), tg.rand(2)
    state = tg.get_rng_state()
    first = g(ramp(3))
    tg.set_rng_state(state)
    yield first, g(ramp(3)), tg.rand(2)


@hazard
def random_in_a_branch(compile):
    def f(x):
        if x.sum() > 0:
            x = x + tg.rand(3)
        return x + tg.rand(3)

    g = compile(f)
    for sign in (1, -1, 1, -1):
        yield g((ramp(3) + 1) * sign)
    yield tg.rand(2)


@hazard
def generator_of_your_own(compile):
    generator = tg.Generator().manual_seed(5)
    g = compile(lambda x: x + tg.rand(3, generator=generator))
    yield g(ramp(3)), g(ramp(3))
    generator.manual_seed(5)
    yield g(ramp(3)), tg.rand(2, generator=generator)


@hazard
def dropout_at_many_shapes(compile):
    m = tg.nn.Dropout(0.5)
    g = compile(lambda x: m(x) + m(x))
    for n in (4, 8, 4, 2):
        yield g(tg.ones(n))
    yield tg.rand(3)


@hazard
def random_in_a_loop(compile):
    def f(x):
        n = 0
        while x.sum() < 2:
            x = x + tg.rand(3)
            n += 1
        return x, n

    g = compile(f)
    for _ in range(5):
        yield g(tg.zeros(3))
    yield tg.rand(2)


@hazard
def seed_set_between_calls(compile):
    g = compile(lambda: tg.randperm(5))
    for _ in range(3):
        yield g()
    tg.manual_seed(1)
    yield g()


@hazard
def dropout_in_a_branch(compile):
    d = tg.nn.Dropout(0.5)

    def f(x):
        y = d(x)
        if y.sum() > 8:
            return d(y)
        return y

    g = compile(f)
    for _ in range(8):
        yield g(tg.ones(10))
    yield tg.rand(2)


@hazard
def generator_with_a_seed_made_inside(compile):
    """`default_rng` is written in Cython: its class has no module's name."""
    g = compile(lambda x: x * float(np.random.default_rng(3).random()))
    for _ in range(2):
        yield g(ramp(3))
