"""Steps of whole training programs."""

import tracegrad as tg
from tests.runtime.hazards.registry import hazard, linear
from tests.runtime.programs import ramp
from tracegrad.nn import functional as F


@hazard
def correct_answers_counted(compile):
    correct = tg.zeros((), dtype=tg.int64)
    m = tg.nn.Linear(3, 4)

    def f(x, y):
        o = m(x)
        correct.add_((o.argmax(1) == y).sum())
        return F.cross_entropy(o, y)

    g = compile(f)
    for _ in range(3):
        yield g(ramp(5, 3), tg.arange(5) % 4), correct
    correct.zero_()
    yield g(ramp(5, 3), tg.arange(5) % 4), correct.item()


@hazard
def two_optimisers_in_turn(compile):
    G, D = tg.nn.Linear(2, 3), tg.nn.Linear(3, 1)
    og, od = tg.optim.Adam(G.parameters(), lr=0.01), tg.optim.Adam(D.parameters(), lr=0.01)

    def f(z, x):
        od.zero_grad()
        fake = G(z)
        ld = F.softplus(-D(x)).mean() + F.softplus(D(fake.detach())).mean()
        ld.backward()
        od.step()
        og.zero_grad()
        lg = F.softplus(-D(fake)).mean()
        lg.backward()
        og.step()
        return ld, lg

    g = compile(f)
    for _ in range(4):
        yield (
            g(ramp(4, 2), ramp(4, 3)),
            G.weight,
            D.weight,
        )


@hazard
def step_skipped_on_nan(compile):
    m = linear()
    opt = tg.optim.SGD(m.parameters(), lr=0.1)
    skipped = tg.zeros(())

    def f(x):
        opt.zero_grad()
        l = m(x).square().sum()
        l.backward()
        if tg.isnan(l):
            skipped.add_(1)
            return l
        opt.step()
        return l

    g = compile(f)
    for v in (1.0, float("nan"), 2.0, float("nan"), 1.0):
        yield g(ramp(2, 3) * v), m.weight, skipped


@hazard
def loss_scaling(compile):
    m = linear()
    opt = tg.optim.SGD(m.parameters(), lr=0.1)
    scale = tg.tensor(8.0)

    def f(x):
        opt.zero_grad()
        l = m(x).square().sum()
        (l * scale).backward()
        inf = False
        for q in m.parameters():
            q.grad.div_(scale)
            inf = inf or not bool(q.grad.isfinite().all())
        if inf:
            scale.mul_(0.5)
        else:
            opt.step()
        return l

    g = compile(f)
    for v in (1.0, 1e38, 1.0):
        yield g(ramp(2, 3) * v), m.weight, scale


@hazard
def step_at_every_third_call(compile):
    m = linear()
    opt = tg.optim.SGD(m.parameters(), lr=0.1)

    def f(x, last):
        l = m(x).square().mean()
        l.backward()
        if last:
            opt.step()
            opt.zero_grad()
        return l

    g = compile(f)
    for k in range(6):
        yield g(ramp(2, 3, start=float(k)), k % 3 == 2), m.weight, m.weight.grad


@hazard
def data_loader_inside(compile):
    data = [ramp(2, 3, start=float(k)) for k in range(3)]
    m = linear()
    opt = tg.optim.SGD(m.parameters(), lr=0.1)

    def epoch():
        tot = 0.0
        for x in data:
            opt.zero_grad()
            l = m(x).square().mean()
            l.backward()
            opt.step()
            tot += l.item()
        return tot / len(data)

    g = compile(epoch)
    for _ in range(3):
        yield g(), m.weight
    data[0].zero_()
    yield g()
    data[1] = ramp(2, 3) * 9
    yield g()
    data.append(ramp(2, 3))
    yield g()
