"""Names that a function reads: closures, globals, defaults, what decorators and factories bind."""

import functools
import os

import numpy as np

import tracegrad as tg
from tests.runtime import helper_module
from tests.runtime.hazards.registry import Scaled, hazard
from tests.runtime.programs import ramp


@hazard
def closure_scalar_changed(compile):
    scale = 2.0

    def f(x):
        return x * scale

    g = compile(f)
    yield g(ramp(3))
    scale = 3.0
    yield g(ramp(3))
    scale = 2.0
    yield g(ramp(3))
    scale = -0.0
    yield g(ramp(3))


@hazard
def closure_of_a_helper_changed(compile):
    offset = 1.0

    def helper(x):
        return x + offset

    def f(x):
        return helper(x) * 2

    g = compile(f)
    yield g(ramp(3))
    offset = 5.0
    yield g(ramp(3))


@hazard
def helper_rebound(compile):
    def helper(x):
        return x + 1

    def f(x):
        return helper(x) * 2

    g = compile(f)
    yield g(ramp(3))

    def helper(x):  # noqa: F811
        return x - 1

    yield g(ramp(3))


GLOBAL_SCALE = 1.5


@hazard
def global_changed(compile):
    global GLOBAL_SCALE

    def inner(x):
        return x * GLOBAL_SCALE

    g = compile(lambda x: inner(x) + 1)
    try:
        yield g(ramp(3))
        GLOBAL_SCALE = 4.0
        yield g(ramp(3))
        GLOBAL_SCALE = 1.5
        yield g(ramp(3))
    finally:
        GLOBAL_SCALE = 1.5


class Settings:
    """A plain object with class-level and instance-level values."""

    power = 2

    def __init__(self):
        self.scale = 1.0
        self.names = {"a": [1.0, 2.0]}


SETTINGS = Settings()


@hazard
def global_object_changed(compile):
    global SETTINGS
    SETTINGS = Settings()
    g = compile(lambda x: x**SETTINGS.power * SETTINGS.scale + SETTINGS.names["a"][1])
    yield g(ramp(3))
    SETTINGS.scale = 3.0
    yield g(ramp(3))
    SETTINGS.names["a"][1] = 7.0
    yield g(ramp(3))
    SETTINGS = Settings()
    yield g(ramp(3))


@hazard
def module_global_changed(compile):

    helper_module.SCALE = 2.0
    g = compile(lambda x: x * helper_module.SCALE + helper_module.offset(x))
    yield g(ramp(3))
    helper_module.SCALE = 3.0
    yield g(ramp(3))
    helper_module.OFFSET = 10.0
    yield g(ramp(3))
    helper_module.OFFSET = 1.0


@hazard
def default_argument_mutated(compile):
    def f(x, steps=[1.0]):  # noqa: B006
        for s in steps:
            x = x + s
        return x

    g = compile(f)
    yield g(ramp(3))
    f.__defaults__[0].append(10.0)
    yield g(ramp(3))
    f.__defaults__ = ([2.0],)
    yield g(ramp(3))


@hazard
def bound_method_stored_in_a_variable(compile):
    m = Scaled()
    call = m.forward
    g = compile(lambda x: call(x))
    yield g(ramp(2, 3))
    m.scale = 6.0
    yield g(ramp(2, 3))
    call = Scaled(2.0).forward
    yield g(ramp(2, 3))


@hazard
def partial_with_changed_keyword(compile):
    part = functools.partial(lambda x, k: x * k, k=2.0)
    g = compile(lambda x: part(x))
    yield g(ramp(3))
    part = functools.partial(part.func, k=4.0)
    yield g(ramp(3))
    part.keywords["k"] = 8.0
    yield g(ramp(3))


@hazard
def default_of_a_lambda_in_a_loop(compile):
    fs = [(lambda x, k=k: x * k) for k in (1.0, 2.0)]
    g = compile(lambda x: [f(x) for f in fs])
    yield g(ramp(3))
    fs.append(lambda x, k=5.0: x * k)
    yield g(ramp(3))


@hazard
def closures_of_one_factory(compile):
    def make(s):
        box = {"s": s}

        def inner(x):
            return x * box["s"]

        return inner, box

    a, ba = make(2.0)
    b, bb = make(3.0)
    reg = {"a": a, "b": b}

    def get(n):
        return reg[n]

    g = compile(lambda x: get("a")(x) + get("b")(x))
    yield g(ramp(3))
    bb["s"] = 10.0
    yield g(ramp(3))
    ba["s"] = 10.0
    yield g(ramp(3))


@hazard
def object_from_a_cached_function(compile):
    class Cfg:
        def __init__(self):
            self.k = 2.0

    @functools.lru_cache
    def cfg():
        return Cfg()

    g = compile(lambda x: x * cfg().k)
    cfg()
    yield g(ramp(3))
    cfg().k = 5.0
    yield g(ramp(3))


@hazard
def decorated_functions(compile):
    scale = {"v": 2.0}

    def deco(fn):
        @functools.wraps(fn)
        def w(*a, **k):
            return fn(*a, **k) * scale["v"]

        return w

    @deco
    def h(x):
        return x + 1

    g = compile(lambda x: h(x))
    yield g(ramp(3))
    scale["v"] = 4.0
    yield g(ramp(3))


@hazard
def environment_variable_changed(compile):

    os.environ["TRACEGRAD_TEST_SCALE"] = "2"
    g = compile(lambda x: x * float(os.environ["TRACEGRAD_TEST_SCALE"]))
    yield g(ramp(3))
    os.environ["TRACEGRAD_TEST_SCALE"] = "3"
    yield g(ramp(3))
    del os.environ["TRACEGRAD_TEST_SCALE"]


@hazard
def nan_in_a_closure(compile):
    v = float("nan")
    g = compile(lambda x: x + v)
    yield g(ramp(2))
    v = 1.0
    yield g(ramp(2))
    v = float("nan")
    yield g(ramp(2))


@hazard
def numpy_scalar_in_a_closure(compile):
    s = np.float32(2)
    g = compile(lambda x: x * s)
    yield g(ramp(2))
    s = np.float32(3)
    yield g(ramp(2))
    s = np.float64(3)
    yield g(ramp(2))


@hazard
def state_in_a_closure(compile):
    h = tg.zeros(3)

    def f(x):
        nonlocal h
        h = (h * 0.5 + x).detach()
        return h.sum()

    g = compile(f)
    for k in range(3):
        yield g(ramp(3, start=float(k))), h


@hazard
def state_in_a_global(compile):
    global HIDDEN
    HIDDEN = tg.zeros(2)

    def f(x):
        global HIDDEN
        HIDDEN = HIDDEN + x
        return HIDDEN.sum()

    g = compile(f)
    for _ in range(6):
        yield g(ramp(2)), HIDDEN


@hazard
def recursive_function(compile):
    def f(x, n):
        return x if n == 0 else f(x * 2, n - 1)

    f = compile(f)
    yield f(ramp(3), 3), f(ramp(3), 1)


@hazard
def cell_emptied(compile):
    factor = 2.0

    def scaled(x):
        return x * factor

    g = compile(scaled)
    yield g(ramp(3))
    del factor
    try:
        g(ramp(3))
    except NameError as error:
        yield str(error)
    factor = 3.0
    yield g(ramp(3))
