"""The trace hazards: programs that a tracing compiler gets silently wrong. Each must equal eager.

A program gets `compile` (the identity, or a backend's) and yields reports. Falling back to eager
warns, and warnings are errors here, so passing means that the program really ran compiled
(test_side_effects.py has the others).
"""

import dataclasses

import numpy as np
import pytest

import tracegrad as tg
from tests.runtime.programs import BACKENDS, agree, ramp

HAZARDS = {}


def hazard(function):
    HAZARDS[function.__name__] = function
    return function


# -- captured Python state -------------------------------------------------------------


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
def class_attribute_changed(compile):
    class Local:
        factor = 2.0

    instance = Local()
    g = compile(lambda x: x * instance.factor)
    yield g(ramp(3))
    Local.factor = 5.0
    yield g(ramp(3))


@hazard
def class_attribute_read_on_the_class_changed(compile):
    class Local:
        factor = 2.0

    g = compile(lambda x: x * Local.factor)
    yield g(ramp(3))
    Local.factor = 5.0
    yield g(ramp(3))


@hazard
def method_of_a_class_replaced(compile):
    class Local:
        def scale(self, x):
            return x * 2

    instance = Local()
    g = compile(lambda x: instance.scale(x))
    yield g(ramp(3))
    Local.scale = lambda self, x: x * 3
    yield g(ramp(3))


@hazard
def module_global_changed(compile):
    from tests.runtime import helper_module

    helper_module.SCALE = 2.0
    g = compile(lambda x: x * helper_module.SCALE + helper_module.offset(x))
    yield g(ramp(3))
    helper_module.SCALE = 3.0
    yield g(ramp(3))
    helper_module.OFFSET = 10.0
    yield g(ramp(3))
    helper_module.OFFSET = 1.0


class Scaled(tg.nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        self.linear = tg.nn.Linear(3, 3)
        self.scale = scale
        self.steps = [1.0, 2.0]
        self.options = {"shift": 0.0}

    def forward(self, x):
        y = self.linear(x) * self.scale + self.options["shift"]
        for step in self.steps:
            y = y + step
        return y


@hazard
def module_attribute_changed(compile):
    m = Scaled()
    g = compile(m)
    x = ramp(2, 3)
    yield g(x)
    m.scale = 3.0
    yield g(x)
    m.scale = tg.tensor(4.0)
    yield g(x)
    del m.scale
    m.scale = 1.0
    yield g(x)


@hazard
def list_attribute_mutated(compile):
    m = Scaled()
    g = compile(m)
    x = ramp(2, 3)
    yield g(x)
    m.steps.append(5.0)
    yield g(x)
    m.steps[0] = -1.0
    yield g(x)
    m.steps.clear()
    yield g(x)


@hazard
def dict_attribute_mutated(compile):
    m = Scaled()
    g = compile(m)
    x = ramp(2, 3)
    yield g(x)
    m.options["shift"] = 2.5
    yield g(x)
    m.options = {"shift": 1.5}
    yield g(x)


@hazard
def train_and_eval(compile):
    m = tg.nn.Sequential(tg.nn.Linear(3, 4), tg.nn.BatchNorm1d(4), tg.nn.ReLU(), tg.nn.Dropout(0.5))
    g = compile(m)
    x = ramp(6, 3)
    for training in (True, True, False, False, True, False):
        m.train(training)
        yield g(x)
        yield m[1].running_mean, m[1].num_batches_tracked


@hazard
def train_and_eval_inside_a_function(compile):
    m = tg.nn.Sequential(tg.nn.Linear(3, 4), tg.nn.Dropout(0.5))

    def f(x):
        return m(x)

    g = compile(f)
    x = ramp(6, 3)
    yield g(x)
    m.eval()
    yield g(x)
    m.train()
    yield g(x)
    m[1].eval()
    yield g(x)


@hazard
def dropout_probability_changed(compile):
    m = tg.nn.Dropout(0.5)
    g = compile(m)
    x = ramp(40)
    yield g(x)
    m.p = 0.9
    yield g(x)
    m.p = 0.0
    yield g(x)


@hazard
def batch_norm_momentum_changed(compile):
    m = tg.nn.BatchNorm1d(3)
    g = compile(m)
    yield g(ramp(5, 3)), m.running_mean
    m.momentum = 0.5
    yield g(ramp(5, 3)), m.running_mean
    m.eps = 1.0
    yield g(ramp(5, 3)), m.running_var


@hazard
def numpy_constant_mutated(compile):
    constant = np.ones(3, np.float32)
    g = compile(lambda x: x * constant)
    yield g(ramp(3))
    constant[1] = 5
    yield g(ramp(3))
    constant *= 2
    yield g(ramp(3))


@hazard
def large_numpy_constant_mutated(compile):
    constant = np.ones(40_000, np.float32)
    g = compile(lambda x: (x * constant).sum())
    yield g(ramp(40_000))
    constant[100:] = 5
    yield g(ramp(40_000))
    constant = np.zeros(40_000, np.float32)
    yield g(ramp(40_000))


@hazard
def large_numpy_argument_mutated(compile):
    weights = np.ones(40_000, np.float32)
    g = compile(lambda x, w: (x * w).sum())
    yield g(ramp(40_000), weights)
    weights[7:] = 3
    yield g(ramp(40_000), weights)


@hazard
def numpy_constant_in_an_attribute_mutated(compile):
    m = Scaled()
    m.table = np.ones(3, np.float32)
    g = compile(lambda x: m(x) * m.table)
    yield g(ramp(2, 3))
    m.table[0] = 9
    yield g(ramp(2, 3))


@hazard
def numpy_scalar_read_from_an_array(compile):
    schedule = np.linspace(0, 1, 5)
    at = 0
    g = compile(lambda x: x * float(schedule[at]))
    for at in range(3):  # noqa: B007
        yield g(ramp(3))
    schedule[2] = 11.0
    yield g(ramp(3))


@hazard
def tensor_constant_mutated(compile):
    constant = tg.ones(3)
    g = compile(lambda x: x * constant)
    yield g(ramp(3))
    constant[1] = 5
    yield g(ramp(3))
    constant.numpy()[2] = 7
    yield g(ramp(3))
    constant = tg.zeros(3)
    yield g(ramp(3))


@hazard
def method_on_two_instances(compile):
    class Model(Scaled):
        pass

    Model.forward = compile(Model.forward)
    a, b = Model(2.0), Model(5.0)
    x = ramp(2, 3)
    yield a(x)
    yield b(x)
    yield a(x)
    a.scale = 7.0
    yield a(x)
    yield b(x)


@hazard
def plain_method_on_two_instances(compile):
    class Local:
        def __init__(self, factor):
            self.factor = factor
            self.weight = tg.full((3,), factor)

        @compile
        def __call__(self, x):
            return x * self.factor + self.weight

    a, b = Local(2.0), Local(3.0)
    yield a(ramp(3)), b(ramp(3))
    a.factor = 10.0
    yield a(ramp(3)), b(ramp(3))
    b.weight = tg.zeros(3)
    yield a(ramp(3)), b(ramp(3))
    b.weight += 4
    yield a(ramp(3)), b(ramp(3))


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


@dataclasses.dataclass
class Config:
    width: float = 1.0
    flags: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Frozen:
    width: float = 1.0


@hazard
def config_replaced(compile):
    m = Scaled()
    m.config = Config()
    g = compile(lambda x: m(x) * m.config.width + len(m.config.flags))
    yield g(ramp(2, 3))
    m.config = dataclasses.replace(m.config, width=2.0)
    yield g(ramp(2, 3))
    m.config.width = 3.0
    yield g(ramp(2, 3))
    m.config.flags.append("a")
    yield g(ramp(2, 3))
    yield g(ramp(2, 3))
    m.config = Config(5.0)
    yield g(ramp(2, 3))


@hazard
def config_as_an_argument(compile):
    g = compile(lambda x, config: x * config.width)
    config = Config()
    yield g(ramp(3), config)
    config.width = 2.0
    yield g(ramp(3), config)
    yield g(ramp(3), Config(4.0))
    yield g(ramp(3), Frozen(5.0))
    yield g(ramp(3), Frozen(6.0))


class Plain:
    def __init__(self, width):
        self.width = width
        self.inner = {"deep": [width]}


@hazard
def plain_object_as_an_argument_mutated(compile):
    g = compile(lambda x, o: x * o.width + o.inner["deep"][0])
    o = Plain(2.0)
    yield g(ramp(3), o)
    o.width = 3.0
    yield g(ramp(3), o)
    o.inner["deep"][0] = 50.0
    yield g(ramp(3), o)
    yield g(ramp(3), Plain(9.0))


@hazard
def module_as_an_argument(compile):
    g = compile(lambda x, m: m(x))
    a, b = Scaled(1.0), Scaled(4.0)
    yield g(ramp(2, 3), a)
    yield g(ramp(2, 3), b)
    a.scale = 9.0
    yield g(ramp(2, 3), a)


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
def set_attribute_mutated(compile):
    class Local:
        enabled = {"shift"}

    o = Local()
    g = compile(lambda x: x + 1 if "shift" in o.enabled else x)
    yield g(ramp(3))
    o.enabled.discard("shift")
    yield g(ramp(3))


@hazard
def slots_object_changed(compile):
    class Slotted:
        __slots__ = ("factor",)

    o = Slotted()
    o.factor = 2.0
    g = compile(lambda x: x * o.factor)
    yield g(ramp(3))
    o.factor = 3.0
    yield g(ramp(3))


@hazard
def property_that_reads_state(compile):
    class Local:
        def __init__(self):
            self._factor = 2.0

        @property
        def factor(self):
            return self._factor * 2

    o = Local()
    g = compile(lambda x: x * o.factor)
    yield g(ramp(3))
    o._factor = 3.0
    yield g(ramp(3))


@hazard
def partial_with_changed_keyword(compile):
    import functools

    part = functools.partial(lambda x, k: x * k, k=2.0)
    g = compile(lambda x: part(x))
    yield g(ramp(3))
    part = functools.partial(part.func, k=4.0)
    yield g(ramp(3))
    part.keywords["k"] = 8.0
    yield g(ramp(3))


@hazard
def callable_object_compiled(compile):
    class Local:
        def __init__(self):
            self.factor = 2.0

        def __call__(self, x):
            return x * self.factor

    o = Local()
    g = compile(o)
    yield g(ramp(3))
    o.factor = 5.0
    yield g(ramp(3))


@hazard
def deep_containers_mutated(compile):
    tree = {"a": [{"b": [{"c": [1.0]}]}]}
    g = compile(lambda x: x * tree["a"][0]["b"][0]["c"][0])
    yield g(ramp(3))
    tree["a"][0]["b"][0]["c"][0] = 4.0
    yield g(ramp(3))


@hazard
def long_list_mutated(compile):
    values = [1.0] * 3000
    g = compile(lambda x: x * values[2500])
    yield g(ramp(3))
    values[2500] = 4.0
    yield g(ramp(3))


@hazard
def environment_variable_changed(compile):
    import os

    os.environ["TRACEGRAD_TEST_SCALE"] = "2"
    g = compile(lambda x: x * float(os.environ["TRACEGRAD_TEST_SCALE"]))
    yield g(ramp(3))
    os.environ["TRACEGRAD_TEST_SCALE"] = "3"
    yield g(ramp(3))
    del os.environ["TRACEGRAD_TEST_SCALE"]


@hazard
def submodule_replaced(compile):
    m = tg.nn.Sequential(tg.nn.Linear(3, 3), tg.nn.Tanh())
    g = compile(m)
    yield g(ramp(2, 3))
    m[1] = tg.nn.ReLU()
    yield g(ramp(2, 3))
    m.append(tg.nn.Linear(3, 2))
    yield g(ramp(2, 3))
    m[0] = tg.nn.Linear(3, 3, bias=False)
    yield g(ramp(2, 3))


@hazard
def submodule_in_a_plain_list_replaced(compile):
    layers = [tg.nn.Linear(3, 3), tg.nn.Linear(3, 3)]

    def f(x):
        for layer in layers:
            x = layer(x)
        return x

    g = compile(f)
    yield g(ramp(2, 3))
    layers.pop()
    yield g(ramp(2, 3))
    layers[0] = tg.nn.Linear(3, 2)
    yield g(ramp(2, 3))


@hazard
def forward_hook_added_and_removed(compile):
    m = tg.nn.Linear(3, 3)
    g = compile(m)
    yield g(ramp(2, 3))
    handle = m.register_forward_hook(lambda module, args, output: output * 2)
    yield g(ramp(2, 3))
    handle.remove()
    yield g(ramp(2, 3))


@hazard
def forward_replaced_on_an_instance(compile):
    m = tg.nn.Linear(3, 3)
    g = compile(m)
    yield g(ramp(2, 3))
    m.forward = lambda x: x * 5
    yield g(ramp(2, 3))


@hazard
def gradient_mode_changed(compile):
    m = tg.nn.Linear(3, 3)
    g = compile(lambda x: m(x).requires_grad)
    yield g(ramp(2, 3))
    with tg.no_grad():
        yield g(ramp(2, 3))
    yield g(ramp(2, 3))


@hazard
def default_dtype_changed(compile):
    g = compile(lambda x: tg.ones(3))
    yield g(ramp(3))
    tg.set_default_dtype(tg.float64)
    try:
        yield g(ramp(3))
    finally:
        tg.set_default_dtype(tg.float32)


# -- control flow ----------------------------------------------------------------------


@hazard
def python_bool_argument(compile):
    g = compile(lambda x, flip: -x if flip else x)
    for flip in (True, False, True, 1, 0, None):
        yield g(ramp(3), flip)


@hazard
def one_and_true_and_one_point_zero(compile):
    g = compile(lambda x, k: (x * k, type(k).__name__))
    for k in (1, True, 1.0, 0.0, -0.0, float("nan"), 2):
        yield g(ramp(3) + 1, k)


@hazard
def branch_on_a_tensor(compile):
    g = compile(lambda x: x * 2 if x.sum() > 0 else x - 1)
    for sign in (1, -1, 1, -1, 0):
        yield g(ramp(3) * sign)


@hazard
def tensor_or_default(compile):
    g = compile(lambda x: x or tg.full((), 5.0))
    for value in (1.0, 0.0, 2.0, -0.0):
        yield g(tg.tensor(value))


@hazard
def min_max_sorted_on_tensors(compile):
    g = compile(lambda a, b, c: (min(a, b), max(a, b, c), sorted([a, b, c])))
    for values in ((1.0, 2.0, 3.0), (3.0, 2.0, 1.0), (2.0, 2.0, 0.0), (1.0, 5.0, 3.0)):
        yield g(*map(tg.tensor, values))


@hazard
def loop_count_from_item(compile):
    def f(x, n):
        for _ in range(int(n.item())):
            x = x * 2
        return x

    g = compile(f)
    for n in (3, 1, 0, 3, 2):
        yield g(ramp(3), tg.tensor(n))


@hazard
def early_return(compile):
    def f(x):
        if x.max() > 10:
            return x, "large"
        y = x + 1
        if y.min() < 0:
            return y, "negative"
        return y * 2, "plain"

    g = compile(f)
    for start in (0.0, 20.0, -30.0, 0.5, 20.0):
        yield g(ramp(3, start=start))


@hazard
def assertion_on_a_tensor(compile):
    def f(x):
        assert (x >= 0).all(), "negative"
        return x.sqrt()

    g = compile(f)
    for start in (0.0, -1.0, 1.0, -2.0, 0.0):
        try:
            yield g(ramp(3, start=start))
        except AssertionError as error:
            yield error


@hazard
def branch_on_a_shape(compile):
    g = compile(lambda x: x.sum() if x.shape[0] > 2 else x.mean())
    for n in (3, 2, 1, 5):
        yield g(ramp(n))


@hazard
def swallowed_exception(compile):
    def f(x, w):
        try:
            return x @ w
        except RuntimeError:
            return x.sum()

    g = compile(f)
    yield g(ramp(2, 3), ramp(3, 2))
    yield g(ramp(2, 3), ramp(2, 2))
    yield g(ramp(2, 3), ramp(3, 2))


@hazard
def swallowed_exception_that_depends_on_values(compile):
    def f(x):
        try:
            if x.sum() > 1:
                raise KeyError("large")
            return x
        except KeyError:
            return -x

    g = compile(f)
    for start in (0.0, 5.0, 0.0, 6.0):
        yield g(ramp(3, start=start))


@hazard
def tensor_as_a_dictionary_key_by_value(compile):
    table = {0: 10.0, 1: 20.0}
    g = compile(lambda x, k: x * table[k.item()])
    yield g(ramp(3), tg.tensor(0))
    yield g(ramp(3), tg.tensor(1))
    table[1] = 30.0
    yield g(ramp(3), tg.tensor(1))


@hazard
def tolist_and_numpy_inside(compile):
    def f(x):
        values = x.tolist()
        return x * sum(values) + float(x.numpy().max())

    g = compile(f)
    yield g(ramp(3))
    yield g(ramp(3))
    yield g(ramp(3, start=1.0))


# -- inputs and outputs ----------------------------------------------------------------


@hazard
def tensors_in_a_list(compile):
    g = compile(lambda xs: sum(xs))
    yield g([ramp(3)])
    yield g([ramp(3), ramp(3), ramp(3)])
    yield g((ramp(3), ramp(3)))


@hazard
def nested_dict(compile):
    g = compile(lambda d: {"out": [d["a"]["b"] * 2, d["c"]], "n": d["n"]})
    yield g({"a": {"b": ramp(3)}, "c": ramp(2), "n": 1})
    yield g({"c": ramp(2), "n": 2, "a": {"b": ramp(3)}})


@hazard
def same_tensor_twice(compile):
    def f(a, b):
        a.add_(1)
        return a + b

    g = compile(f)
    x, y = ramp(3), ramp(3)
    yield g(x, y), x, y
    yield g(x, x), x
    yield g(x, y), x, y
    yield g(y, y), y


@hazard
def same_tensor_twice_with_gradients(compile):
    g = compile(lambda a, b: (a * b).sum())
    x = ramp(3, start=1.0).requires_grad_()
    y = ramp(3, start=2.0).requires_grad_()
    for a, b in ((x, y), (x, x), (y, x)):
        x.grad = y.grad = None
        g(a, b).backward()
        yield x.grad, y.grad


@hazard
def positional_and_keyword(compile):
    def f(a, b=2.0, *, c=1.0):
        return a * b - c

    g = compile(f)
    yield g(ramp(3))
    yield g(ramp(3), 3.0)
    yield g(ramp(3), b=3.0)
    yield g(a=ramp(3), c=ramp(3))
    yield g(ramp(3), c=3.0)


@hazard
def none_and_tensor(compile):
    g = compile(lambda x, bias=None: x if bias is None else x + bias)
    yield g(ramp(3))
    yield g(ramp(3), ramp(3))
    yield g(ramp(3), None)
    yield g(ramp(3), bias=ramp(3))


@hazard
def non_tensor_outputs(compile):
    g = compile(lambda x, k: (x, k, "text", None, [1, 2.5], {"shape": tuple(x.shape)}))
    yield g(ramp(3), 1)
    yield g(ramp(4), 2)


@hazard
def mutable_output_is_fresh(compile):
    g = compile(lambda x: {"x": x, "list": [1, 2]})
    first = g(ramp(3))
    first["list"].append(3)
    first["new"] = 1
    yield g(ramp(3))


@hazard
def output_count_varies(compile):
    g = compile(lambda x, n: [x * k for k in range(n)])
    for n in (1, 3, 0, 2):
        yield g(ramp(3), n)


@hazard
def two_views_of_one_base(compile):
    def f(a, b):
        a.mul_(2)
        return a + b

    g = compile(f)
    base = ramp(6)
    yield g(base[:3], base[3:]), base
    yield g(base[:3], base[:3]), base
    yield g(base[0:4], base[2:6]), base
    other = ramp(6)
    yield g(base[:3], other[:3]), base, other


@hazard
def output_fed_back(compile):
    g = compile(lambda x: x * 0.5 + 1)
    x = ramp(3)
    for _ in range(5):
        x = g(x)
        yield x


@hazard
def several_outputs_fed_back(compile):
    g = compile(lambda h, c: (h + c, h * 0.9))
    h, c = ramp(3), ramp(3)
    for _ in range(4):
        h, c = g(h, c)
        yield h, c
    h, c = g(c, h)
    yield h, c


@hazard
def held_outputs_survive(compile):
    g = compile(lambda x: (x * 2, (x + 1).sum(), x.exp().reshape(-1)[1:]))
    held = [g(ramp(2, 2, start=float(k))) for k in range(4)]
    yield held


@hazard
def held_outputs_of_a_training_step_survive(compile):
    w = tg.nn.Parameter(ramp(3))
    opt = tg.optim.SGD([w], lr=0.1, momentum=0.9)

    def step(x):
        opt.zero_grad()
        y = (w * x).sin()
        loss = y.sum()
        loss.backward()
        before = w.detach().clone()
        opt.step()
        return loss, y, before

    g = compile(step)
    held = [g(ramp(3, start=float(k))) for k in range(4)]
    yield [tuple(part.detach() for part in parts) for parts in held]
    yield w


@hazard
def returned_state_is_live(compile):
    counter = tg.zeros(3)

    def f(x):
        counter.add_(x)
        return counter

    g = compile(f)
    first = g(ramp(3))
    yield first
    second = g(ramp(3))
    yield first, second, counter, first is counter or bool((first == counter).all())
    counter.zero_()
    yield first


@hazard
def returned_copy_of_state_is_not_live(compile):
    counter = tg.zeros(3)

    def f(x):
        counter.add_(x)
        return counter.clone(), counter + 0, counter * 1

    g = compile(f)
    first = g(ramp(3))
    g(ramp(3))
    yield first


@hazard
def returned_input_is_the_input(compile):
    g = compile(lambda x: (x, x[1:], x.view(-1)))
    x = ramp(3)
    a, b, c = g(x)
    x.add_(1)
    yield a, b, c
    b.mul_(0)
    yield x, a
    a, b, c = g(x)
    c.add_(2)
    yield x, a, b


@hazard
def output_views_share_memory(compile):
    def f(x):
        y = x * 2
        return y, y[1:]

    g = compile(f)
    for _ in range(2):
        y, tail = g(ramp(3))
        tail.zero_()
        yield y


@hazard
def output_written_afterwards(compile):
    g = compile(lambda x: x * 2)
    first = g(ramp(3))
    first.add_(100)
    yield g(ramp(3)), first
    alias = first.numpy()
    alias[0] = -1
    yield g(ramp(3)), first


@hazard
def constant_output_written_afterwards(compile):
    g = compile(lambda x: (tg.zeros(3), tg.ones(2, 2), tg.tensor([1.0, 2.0])))
    for _ in range(3):
        a, b, c = g(ramp(3))
        a.add_(1)
        b.add_(1)
        c.add_(1)
        yield a, b, c


@hazard
def size_one_then_more(compile):
    g = compile(lambda x: (x + tg.ones(4, 1)).sum(0))
    for n in (1, 4, 1, 3):
        yield g(ramp(n))
    h = compile(lambda a, b: a + b)
    yield h(ramp(1, 3), ramp(4, 3))
    yield h(ramp(4, 3), ramp(4, 3))
    yield h(ramp(4, 1), ramp(1, 3))


@hazard
def empty_input(compile):
    g = compile(lambda x: (x.sum(), x * 2))
    for n in (3, 0, 3):
        yield g(ramp(n, 2))


@hazard
def dtype_changes(compile):
    g = compile(lambda x: x * 2 + 1)
    for dtype in (tg.float32, tg.float64, tg.int64, tg.float32, tg.float16):
        yield g(ramp(3, dtype=dtype))


@hazard
def strides_change(compile):
    g = compile(lambda x: (x.contiguous().view(-1), x.is_contiguous(), x.stride()))
    yield g(ramp(2, 3))
    yield g(ramp(3, 2).t())
    yield g(ramp(2, 6)[:, ::2])
    yield g(ramp(2, 3))


@hazard
def requires_grad_of_an_input(compile):
    g = compile(lambda x: ((x * 2).requires_grad, x.is_leaf))
    x = ramp(3)
    yield g(x)
    yield g(x.requires_grad_())
    yield g(x * 1)
    yield g(x.detach())


# -- mutation --------------------------------------------------------------------------


@hazard
def slice_assigned_then_read(compile):
    def f(x):
        y = x.clone()
        y[1:3] = 7
        z = y * 2
        y[0] = z[1]
        return y, z

    g = compile(f)
    yield g(ramp(4))
    yield g(ramp(4, start=1.0))


@hazard
def write_through_a_view(compile):
    def f(x):
        y = x * 1
        v = y.view(2, 3).t()
        v[0].add_(10)
        return y, v

    g = compile(f)
    yield g(ramp(6))
    yield g(ramp(6, start=2.0))


@hazard
def write_on_an_input(compile):
    def f(x):
        x.mul_(2)
        x[0] = -1
        return x.sum()

    g = compile(f)
    x = ramp(3)
    for _ in range(3):
        yield g(x), x
    y = ramp(6)
    yield g(y[::2]), y
    yield g(y.view(2, 3)[1]), y
    alias = x.numpy()
    g(x)
    yield alias.copy()


@hazard
def write_on_an_input_made_of_numpy(compile):
    def f(x):
        x.add_(1)

    g = compile(f)
    array = np.zeros(3, np.float32)
    x = tg.from_numpy(array)
    g(x)
    yield array.copy()
    g(x)
    array += 5
    g(x)
    yield array.copy(), x


@hazard
def buffer_of_a_module(compile):
    class Counting(tg.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", tg.zeros(()))
            self.register_buffer("last", tg.zeros(3))

        def forward(self, x):
            self.count += 1
            self.last = x * 2
            return x * self.count

    m = Counting()
    g = compile(m)
    for k in range(4):
        yield g(ramp(3, start=float(k))), m.count, m.last
    m.count.zero_()
    yield g(ramp(3)), m.count
    m.count = tg.full((), 10.0)
    yield g(ramp(3)), m.count


@hazard
def plain_attribute_assigned_in_forward(compile):
    class Keeping(tg.nn.Module):
        def __init__(self):
            super().__init__()
            self.kept = None

        def forward(self, x):
            y = x * 2
            self.kept = y.detach()
            return y

    m = Keeping()
    g = compile(m)
    for k in range(3):
        yield g(ramp(3, start=float(k))), m.kept


@hazard
def batch_norm_buffers(compile):
    m = tg.nn.BatchNorm1d(3)
    g = compile(lambda x: m(x).sum())
    for k in range(4):
        yield g(ramp(5, 3) * (k + 1)), m.running_mean, m.running_var, m.num_batches_tracked
    m.reset_running_stats()
    yield g(ramp(5, 3)), m.running_mean


@hazard
def parameter_replaced(compile):
    m = tg.nn.Linear(3, 2)
    g = compile(lambda x: m(x))
    yield g(ramp(2, 3))
    m.weight = tg.nn.Parameter(tg.ones(2, 3))
    yield g(ramp(2, 3))
    m.weight.data = tg.full((2, 3), 3.0)
    yield g(ramp(2, 3))
    m.bias = None
    yield g(ramp(2, 3))
    with tg.no_grad():
        m.weight.copy_(tg.zeros(2, 3))
    yield g(ramp(2, 3))
    m.load_state_dict({"weight": ramp(2, 3)})
    yield g(ramp(2, 3))


@hazard
def parameter_replaced_in_a_training_step(compile):
    m = tg.nn.Linear(3, 1)
    opt = tg.optim.SGD(m.parameters(), lr=0.1)

    def step(x):
        opt.zero_grad()
        loss = m(x).square().mean()
        loss.backward()
        opt.step()
        return loss

    g = compile(step)
    x = ramp(4, 3)
    yield g(x), m.weight
    yield g(x), m.weight
    old = m.weight
    m.weight = tg.nn.Parameter(tg.ones(1, 3))
    yield g(x), m.weight, old
    opt = tg.optim.SGD(m.parameters(), lr=0.1)
    yield g(x), m.weight
    yield g(x), m.weight


@hazard
def tied_weights(compile):
    a, b = tg.nn.Linear(3, 3, bias=False), tg.nn.Linear(3, 3, bias=False)
    opt = tg.optim.SGD([*a.parameters(), *b.parameters()], lr=0.1, momentum=0.9)

    def step(x):
        opt.zero_grad()
        loss = b(a(x).tanh()).square().sum()
        loss.backward()
        opt.step()
        return loss

    g = compile(step)
    yield g(ramp(2, 3)), a.weight, b.weight
    yield g(ramp(2, 3)), a.weight, b.weight
    b.weight = a.weight
    opt = tg.optim.SGD(a.parameters(), lr=0.1)
    yield g(ramp(2, 3)), a.weight, b.weight
    yield g(ramp(2, 3)), a.weight, b.weight
    b.weight = tg.nn.Parameter(a.weight.detach().clone())
    yield g(ramp(2, 3)), a.weight, b.weight


@hazard
def alias_appears_between_calls(compile):
    total = tg.zeros(4)

    def f(x):
        total.add_(x)
        return total.sum()

    g = compile(f)
    yield g(ramp(4)), total
    view = total[1:3]
    yield g(ramp(4)), total, view
    view.fill_(100)
    yield g(ramp(4)), total, view
    array = total.numpy()
    yield g(ramp(4)), array.copy(), view
    array[:] = 0
    yield g(ramp(4)), array.copy(), view


@hazard
def argument_becomes_captured_state(compile):
    state = tg.zeros(3)

    def f(x):
        state.add_(1)
        return x * 2 + state

    g = compile(f)
    yield g(ramp(3)), state
    yield g(state), state
    yield g(ramp(3)), state
    yield g(state[:]), state


@hazard
def gradients_accumulate_across_calls(compile):
    w = tg.nn.Parameter(ramp(3))

    def f(x):
        loss = (w * x).sum()
        loss.backward()
        return loss

    g = compile(f)
    for k in range(4):
        yield g(ramp(3, start=float(k))), w.grad
    w.grad = None
    yield g(ramp(3)), w.grad
    held = w.grad
    yield g(ramp(3)), held
    w.grad.zero_()
    yield g(ramp(3)), w.grad, held


@hazard
def gradient_accumulation_over_micro_batches(compile):
    m = tg.nn.Linear(3, 1)
    opt = tg.optim.Adam(m.parameters(), lr=0.01)

    def micro(x):
        loss = m(x).square().mean() / 2
        loss.backward()
        return loss

    def update():
        opt.step()
        opt.zero_grad()

    micro, update = compile(micro), compile(update)
    for k in range(6):
        yield micro(ramp(4, 3, start=float(k)))
        if k % 2:
            update()
            yield m.weight, m.bias, m.weight.grad


@hazard
def gradients_with_zero_grad_to_zeros(compile):
    m = tg.nn.Linear(3, 1)
    opt = tg.optim.SGD(m.parameters(), lr=0.1)

    def step(x):
        opt.zero_grad(set_to_none=False)
        loss = m(x).square().mean()
        loss.backward()
        opt.step()
        return loss

    g = compile(step)
    for k in range(3):
        yield g(ramp(4, 3, start=float(k))), m.weight


@hazard
def requires_grad_toggled(compile):
    m = tg.nn.Sequential(tg.nn.Linear(3, 3), tg.nn.Linear(3, 1))
    opt = tg.optim.SGD(m.parameters(), lr=0.1)

    def step(x):
        opt.zero_grad()
        loss = m(x).square().mean()
        loss.backward()
        opt.step()
        return loss

    g = compile(step)
    yield g(ramp(4, 3)), m[0].weight
    m[0].requires_grad_(False)
    yield g(ramp(4, 3)), m[0].weight, m[1].weight
    m[0].requires_grad_(True)
    yield g(ramp(4, 3)), m[0].weight, m[1].weight


@hazard
def optimiser_state_loaded(compile):
    m = tg.nn.Linear(3, 1)
    opt = tg.optim.Adam(m.parameters(), lr=0.1)

    def step(x):
        opt.zero_grad()
        loss = m(x).square().mean()
        loss.backward()
        opt.step()
        return loss

    g = compile(step)
    yield g(ramp(4, 3))
    import copy

    saved = copy.deepcopy(opt.state_dict())
    weights = copy.deepcopy(m.state_dict())
    yield g(ramp(4, 3)), m.weight
    yield g(ramp(4, 3)), m.weight
    opt.load_state_dict(saved)
    m.load_state_dict(weights)
    yield g(ramp(4, 3)), m.weight
    saved["param_groups"][0]["lr"] = 0.5
    opt.load_state_dict(saved)
    yield g(ramp(4, 3)), m.weight


@hazard
def optimiser_state_written_by_hand(compile):
    m = tg.nn.Linear(3, 1)
    opt = tg.optim.SGD(m.parameters(), lr=0.1, momentum=0.9)

    def step(x):
        opt.zero_grad()
        loss = m(x).square().mean()
        loss.backward()
        opt.step()
        return loss

    g = compile(step)
    yield g(ramp(4, 3)), m.weight
    opt.state[m.weight]["momentum_buffer"].zero_()
    yield g(ramp(4, 3)), m.weight
    opt.state[m.weight]["momentum_buffer"] = tg.ones(1, 3)
    yield g(ramp(4, 3)), m.weight
    opt.param_groups[0]["momentum"] = 0.0
    yield g(ramp(4, 3)), m.weight
    opt.param_groups[0]["nesterov"] = False
    opt.param_groups[0]["weight_decay"] = 0.1
    yield g(ramp(4, 3)), m.weight


@hazard
def parameter_group_added(compile):
    m, extra = tg.nn.Linear(3, 1), tg.nn.Linear(1, 1)
    opt = tg.optim.SGD(m.parameters(), lr=0.1)

    def step(x):
        opt.zero_grad()
        loss = extra(m(x)).square().mean()
        loss.backward()
        opt.step()
        return loss

    g = compile(step)
    yield g(ramp(4, 3)), extra.weight
    opt.add_param_group({"params": list(extra.parameters()), "lr": 0.5})
    extra.zero_grad()
    yield g(ramp(4, 3)), extra.weight


@hazard
def learning_rate_schedule(compile):
    m = tg.nn.Linear(3, 1)
    opt = tg.optim.SGD(m.parameters(), lr=0.1, momentum=0.9)
    schedule = tg.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=10)

    def step(x):
        opt.zero_grad()
        loss = m(x).square().mean()
        loss.backward()
        opt.step()
        schedule.step()
        return loss

    g = compile(step)
    for _ in range(100):
        yield g(ramp(4, 3)), opt.param_groups[0]["lr"]
    yield m.weight
    assert not hasattr(g, "stats") or g.stats()["compiles"] == 1


@hazard
def learning_rate_set_by_hand(compile):
    w = tg.nn.Parameter(ramp(3))
    opt = tg.optim.SGD([w], lr=0.1)

    def step():
        opt.zero_grad()
        (w * w).sum().backward()
        opt.step()

    g = compile(step)
    for lr in (0.1, 0.2, 0.0, 0.05):
        opt.param_groups[0]["lr"] = lr
        g()
        yield w


# -- random numbers and side effects ---------------------------------------------------


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
def gradient_without_use_of_the_result(compile):
    w = tg.nn.Parameter(ramp(3))
    g = compile(lambda x: w * x)
    g(ramp(3))
    y = g(ramp(3))
    (y.sum() + g(ramp(3, start=1.0)).sum()).backward()
    yield w.grad
    with tg.no_grad():
        w.add_(1)
    w.grad = None
    g(ramp(3)).sum().backward()
    yield w.grad


@hazard
def nested_compile(compile):
    scale = 2.0
    inner = compile(lambda x: x * scale)
    outer = compile(lambda x: inner(x) + inner(x + 1))
    yield outer(ramp(3)), inner(ramp(3))
    scale = 5.0
    yield outer(ramp(3)), inner(ramp(3))


@hazard
def compiled_module_inside_a_compiled_step(compile):
    m = tg.nn.Sequential(tg.nn.Linear(3, 3), tg.nn.Dropout(0.5))
    fast = compile(m)
    opt = tg.optim.SGD(m.parameters(), lr=0.1)

    def step(x):
        opt.zero_grad()
        loss = fast(x).square().sum()
        loss.backward()
        opt.step()
        return loss

    g = compile(step)
    for _ in range(3):
        yield g(ramp(2, 3)), m[0].weight
    m.eval()
    yield g(ramp(2, 3)), fast(ramp(2, 3))


@hazard
def compile_of_a_compiled_function(compile):
    g = compile(compile(lambda x: x * 2))
    yield g(ramp(3)), g(ramp(3, start=1.0))


@hazard
def recursive_function(compile):
    def f(x, n):
        return x if n == 0 else f(x * 2, n - 1)

    f = compile(f)
    yield f(ramp(3), 3), f(ramp(3), 1)


@hazard
def recompiled_while_an_old_result_is_in_use(compile):
    w = tg.nn.Parameter(ramp(3))
    g = compile(lambda x: (w * x).exp())
    y = g(ramp(3))
    with tg.no_grad():
        w.mul_(3)
    g(ramp(3, start=1.0))
    g(ramp(3, start=2.0))
    # PyTorch stops here (a saved value was overwritten); the gradient of the values used in forward
    # is computed
    y.sum().backward()
    yield w.grad


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", HAZARDS)
def test_equals_eager(name, backend):
    agree(HAZARDS[name], backend)
