"""Compiled functions that meet: inside each other, in a chain, sharing state with eager code."""

import tracegrad as tg
from tests.runtime.hazards.registry import hazard, linear, train_step
from tests.runtime.programs import ramp


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
def compiled_functions_in_a_chain(compile):
    w = tg.nn.Parameter(ramp(3))
    a = compile(lambda x: w * x)
    b = compile(lambda x: x.sin().sum())
    for _ in range(3):
        w.grad = None
        b(a(ramp(3))).backward()
        yield w.grad


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


@hazard
def two_functions_share_state(compile):
    m = linear()
    o = tg.optim.SGD(m.parameters(), lr=0.1, momentum=0.9)
    a = train_step(compile, m, o)
    b = train_step(compile, m, o)
    for _ in range(3):
        yield a(ramp(2, 3)), b(ramp(2, 3, start=1.0)), m.weight


@hazard
def eager_and_compiled_in_turn(compile):
    m = linear()
    o = tg.optim.Adam(m.parameters(), lr=0.1)

    def s(x):
        o.zero_grad()
        l = m(x).square().mean()
        l.backward()
        o.step()
        return l

    g = compile(s)
    for _ in range(3):
        yield g(ramp(2, 3)), s(ramp(2, 3)), m.weight
