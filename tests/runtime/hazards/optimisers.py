"""Optimisers and schedules: state, groups, options and learning rates that change."""

import copy

import numpy as np

import tracegrad as tg
from tests.runtime.hazards.registry import hazard, linear, train_step
from tests.runtime.programs import ramp


@hazard
def optimiser_state_loaded(compile):
    m = tg.nn.Linear(3, 1)
    opt = tg.optim.Adam(m.parameters(), lr=0.1)
    g = train_step(compile, m, opt)
    yield g(ramp(4, 3))

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
    g = train_step(compile, m, opt)
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


@hazard
def learning_rate_read(compile):
    w = tg.nn.Parameter(ramp(3))
    opt = tg.optim.SGD([w], lr=0.1)

    def step(x):
        opt.zero_grad()
        l = (w * x).sum()
        l.backward()
        opt.step()
        return l, opt.param_groups[0]["lr"]

    g = compile(step)
    for lr in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
        opt.param_groups[0]["lr"] = lr
        yield g(ramp(3)), w


@hazard
def warm_up_inside(compile):
    w = tg.nn.Parameter(ramp(3))
    opt = tg.optim.SGD([w], lr=0.1)

    def step(x, lr):
        for gr in opt.param_groups:
            gr["lr"] = lr
        opt.zero_grad()
        l = (w * x).sum()
        l.backward()
        opt.step()
        return l

    g = compile(step)
    for lr in (0.1, 0.2, 0.3):
        yield g(ramp(3), lr), w, opt.param_groups[0]["lr"]


@hazard
def learning_rate_as_a_tensor(compile):
    w = tg.nn.Parameter(ramp(3))

    def step(x, lr):
        w.grad = None
        (w * x).sum().backward()
        with tg.no_grad():
            w.sub_(w.grad * lr)
        return w.sum()

    g = compile(step)
    for lr in (0.1, 0.2, 0.3):
        yield g(ramp(3), tg.tensor(lr)), w


@hazard
def schedule_outside(compile):
    m = linear()
    o = tg.optim.SGD(m.parameters(), lr=0.1)
    s = tg.optim.lr_scheduler.StepLR(o, 1, 0.5)
    g = train_step(compile, m, o)
    for _ in range(4):
        yield g(ramp(2, 3)), m.weight
        s.step()


@hazard
def weight_decay_changed(compile):
    m = linear()
    o = tg.optim.AdamW(m.parameters(), lr=0.1)
    g = train_step(compile, m, o)
    for wd in (0.1, 0.0, 0.5):
        o.param_groups[0]["weight_decay"] = wd
        yield g(ramp(2, 3)), m.weight


@hazard
def betas_changed(compile):
    m = linear()
    o = tg.optim.Adam(m.parameters(), lr=0.1)
    g = train_step(compile, m, o)
    for b in ((0.9, 0.99), (0.5, 0.9)):
        o.param_groups[0]["betas"] = b
        yield g(ramp(2, 3)), m.weight


@hazard
def amsgrad_switched(compile):
    m = linear()
    o = tg.optim.Adam(m.parameters(), lr=0.1)
    g = train_step(compile, m, o)
    yield g(ramp(2, 3))
    o.param_groups[0]["eps"] = 1.0
    yield g(ramp(2, 3)), m.weight


@hazard
def plateau_schedule_outside(compile):
    w = tg.nn.Parameter(ramp(3))
    opt = tg.optim.SGD([w], lr=0.5)
    s = tg.optim.lr_scheduler.ReduceLROnPlateau(opt, patience=0)

    def f(x):
        opt.zero_grad()
        l = (w * x).sum().square()
        l.backward()
        opt.step()
        return l

    g = compile(f)
    for _ in range(5):
        l = g(ramp(3))
        s.step(l.item())
        yield l, w, opt.param_groups[0]["lr"]


@hazard
def last_learning_rate_read(compile):
    w = tg.nn.Parameter(ramp(3))
    opt = tg.optim.SGD([w], lr=0.5)
    s = tg.optim.lr_scheduler.StepLR(opt, 1, 0.5)

    def f(x):
        opt.zero_grad()
        l = (w * x).sum().square()
        l.backward()
        opt.step()
        s.step()
        return l, s.get_last_lr()[0]

    g = compile(f)
    for _ in range(4):
        yield g(ramp(3)), w


@hazard
def step_with_a_closure(compile):
    m = linear()
    opt = tg.optim.SGD(m.parameters(), lr=0.1)

    def f(x):
        def closure():
            opt.zero_grad()
            l = m(x).square().sum()
            l.backward()
            return l

        return opt.step(closure)

    g = compile(f)
    for _ in range(3):
        yield g(ramp(2, 3)), m.weight


@hazard
def learning_rate_of_other_types(compile):
    m = linear()
    opt = tg.optim.SGD(m.parameters(), lr=0.5)
    g = train_step(compile, m, opt)
    yield g(ramp(4, 3)), m.weight
    for lr in (np.float64(0.3), np.float32(0.2), 1, tg.tensor(0.1), tg.tensor(0.05), 0.25, True):
        opt.param_groups[0]["lr"] = lr
        yield g(ramp(4, 3)), m.weight
        yield g(ramp(4, 3)), m.weight


@hazard
def learning_rate_that_is_no_number(compile):
    m = linear()
    opt = tg.optim.SGD(m.parameters(), lr=0.5)
    g = train_step(compile, m, opt)
    yield g(ramp(4, 3)), m.weight
    for lr in (None, "0.3"):
        opt.param_groups[0]["lr"] = lr
        try:
            g(ramp(4, 3))
        except (TypeError, tg.TracegradError) as error:
            yield type(error).__name__
        yield m.weight
    opt.param_groups[0]["lr"] = 0.5
    yield g(ramp(4, 3)), m.weight


@hazard
def option_deleted(compile):
    m = linear()
    opt = tg.optim.SGD(m.parameters(), lr=0.5)
    g = train_step(compile, m, opt)
    yield g(ramp(4, 3)), m.weight
    del opt.param_groups[0]["maximize"]
    try:
        g(ramp(4, 3))
    except KeyError as error:
        yield str(error)
    opt.param_groups[0]["maximize"] = True
    yield g(ramp(4, 3)), m.weight


@hazard
def schedule_outside_of_a_tensor(compile):
    m = linear()
    rate = tg.tensor(0.1)
    opt = tg.optim.SGD(m.parameters(), lr=rate)
    schedule = tg.optim.lr_scheduler.ExponentialLR(opt, 0.5)
    g = train_step(compile, m, opt)
    for _ in range(6):
        yield g(ramp(4, 3)), m.weight, rate, schedule.get_last_lr()
        schedule.step()
    assert not hasattr(g, "stats") or g.stats()["compiles"] == 1


@hazard
def optimiser_reset_with_dampening(compile):
    m = linear()
    opt = tg.optim.SGD(m.parameters(), lr=0.1, momentum=0.9, dampening=0.5)
    g = train_step(compile, m, opt)
    start = copy.deepcopy(opt.state_dict())
    for _ in range(3):
        yield g(ramp(4, 3)), m.weight
    later = copy.deepcopy(opt.state_dict())
    for state in (start, later):
        opt.load_state_dict(state)
        yield g(ramp(4, 3)), m.weight
        yield g(ramp(4, 3)), m.weight


@hazard
def schedule_of_a_step_that_fails(compile):
    table = tg.nn.Embedding(4, 2)
    opt = tg.optim.SGD(table.parameters(), lr=0.5)
    schedule = tg.optim.lr_scheduler.ExponentialLR(opt, 0.5)

    def step(index):
        opt.zero_grad()
        loss = table(index).square().sum()
        loss.backward()
        opt.step()
        schedule.step()
        return loss

    g = compile(step)
    for index in (1, 2, 9, 9, 3):
        try:
            yield g(tg.tensor([index])).item()
        except IndexError as error:
            yield type(error).__name__
        yield opt.param_groups[0]["lr"], schedule.last_epoch, table.weight
