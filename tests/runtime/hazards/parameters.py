"""Parameters: replaced, tied, swapped, frozen, given as state."""

import tracegrad as tg
from tests.runtime.hazards.registry import hazard, linear, train_step
from tests.runtime.programs import ramp


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
    g = train_step(compile, m, opt)
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
def parameters_swapped(compile):
    m = tg.nn.Linear(3, 3)
    g = compile(lambda x: m(x))
    yield g(ramp(2, 3))
    with tg.no_grad():
        for q in m.parameters():
            q.data = q.data * 2
    yield g(ramp(2, 3))
    m.to(tg.float64)
    yield g(ramp(2, 3, dtype=tg.float64))
    m.to(tg.float32)
    yield g(ramp(2, 3))


@hazard
def frozen_and_thawed(compile):
    a, b = tg.nn.Linear(3, 3), linear()
    opt = tg.optim.Adam([*a.parameters(), *b.parameters()], lr=0.01)

    def f(x):
        opt.zero_grad()
        l = b(a(x)).square().mean()
        l.backward()
        opt.step()
        return l

    g = compile(f)
    yield g(ramp(2, 3)), a.weight
    for q in a.parameters():
        q.requires_grad = False
    yield g(ramp(2, 3)), a.weight, b.weight
    yield g(ramp(2, 3)), a.weight, b.weight
    for q in a.parameters():
        q.requires_grad = True
    yield g(ramp(2, 3)), a.weight, b.weight


@hazard
def requires_grad_toggled(compile):
    m = tg.nn.Sequential(tg.nn.Linear(3, 3), tg.nn.Linear(3, 1))
    opt = tg.optim.SGD(m.parameters(), lr=0.1)
    g = train_step(compile, m, opt)
    yield g(ramp(4, 3)), m[0].weight
    m[0].requires_grad_(False)
    yield g(ramp(4, 3)), m[0].weight, m[1].weight
    m[0].requires_grad_(True)
    yield g(ramp(4, 3)), m[0].weight, m[1].weight


@hazard
def requires_grad_set_inside(compile):
    def f(x):
        x = x.detach().requires_grad_()
        y = (x**3).sum()
        y.backward()
        return x.grad

    g = compile(f)
    for k in range(3):
        yield g(ramp(3, start=float(k)))


@hazard
def functional_call(compile):
    m = linear()

    def loss(ps, x):
        return tg.func.functional_call(m, ps, (x,)).square().sum()

    g = compile(lambda ps, x: tg.func.grad(loss)(ps, x))
    ps = {k: v.detach().clone() for k, v in m.named_parameters()}
    yield g(ps, ramp(2, 3)), m.weight
    ps["weight"].mul_(2)
    yield g(ps, ramp(2, 3)), m.weight
    with tg.no_grad():
        m.weight.zero_()
    yield g(ps, ramp(2, 3)), m.weight


@hazard
def func_grad(compile):
    g = compile(tg.func.grad(lambda w, x: ((w * x) ** 2).sum()))
    for k in range(2):
        yield g(ramp(3, start=float(k)), ramp(3))


@hazard
def data_replaced_after_a_look(compile):
    m = linear()
    opt = tg.optim.SGD(m.parameters(), lr=0.1, momentum=0.9)
    g = train_step(compile, m, opt)
    m.state_dict()  # an alias that is gone at once
    yield g(ramp(4, 3)), m.weight
    for factor in (0.5, 2.0, 0.25, 3.0, 1.5):
        m.weight.data = m.weight.data * factor
        yield g(ramp(4, 3)), m.weight


@hazard
def data_replaced_while_an_alias_lives(compile):
    m = linear()
    opt = tg.optim.SGD(m.parameters(), lr=0.1)
    look = m.weight.detach()
    g = train_step(compile, m, opt)
    yield g(ramp(4, 3)), m.weight, look
    m.weight.data = tg.ones(1, 3)
    yield g(ramp(4, 3)), m.weight, look
    look.zero_()  # no longer an alias
    yield g(ramp(4, 3)), m.weight, look


@hazard
def data_of_one_another(compile):
    a, b = tg.nn.Parameter(ramp(3)), tg.nn.Parameter(ramp(3) + 2)
    opt = tg.optim.SGD([a, b], lr=0.1)

    def step(x):
        opt.zero_grad()
        loss = (a * x).sum().square() + (b.sum() - 1).square()
        loss.backward()
        opt.step()
        return loss

    g = compile(step)
    yield g(ramp(3)), a, b
    for _ in range(2):
        a.data, b.data = b.data, a.data
        yield g(ramp(3)), a, b
        yield g(ramp(3)), a, b


@hazard
def two_parameters_come_to_share_memory(compile):
    a, b = tg.nn.Parameter(ramp(3)), tg.nn.Parameter(ramp(3) + 2)

    def step(x):
        with tg.no_grad():
            a.mul_(2.0)
            b.add_(x)
        return (a + b).detach()

    g = compile(step)
    yield g(ramp(3)), a, b
    b.data = a.data
    yield g(ramp(3)), a, b
    yield g(ramp(3)), a, b
    b.data = tg.ones(3)
    yield g(ramp(3)), a, b


@hazard
def data_taken_from_a_tensor_that_lives_on(compile):
    w, source = tg.nn.Parameter(ramp(3)), ramp(3) + 1
    opt = tg.optim.SGD([w], lr=0.1)

    def step(x):
        opt.zero_grad()
        (w * x).sum().square().backward()
        opt.step()

    g = compile(step)
    g(ramp(3))
    w.data = source
    g(ramp(3))
    yield w, source
    source.mul_(0.5)
    g(ramp(3))
    yield w, source
