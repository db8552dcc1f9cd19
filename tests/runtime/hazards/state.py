"""State that a function keeps from call to call: under names, in caches, threaded through."""

import copy

import tracegrad as tg
from tests.runtime.hazards.registry import hazard, linear, train_step
from tests.runtime.programs import ramp


@hazard
def recurrent_state(compile):
    class R(tg.nn.Module):
        def __init__(s):
            super().__init__()
            s.h = tg.zeros(3)
            s.l = tg.nn.Linear(3, 3)

        def forward(s, x):
            s.h = (s.h * 0.5 + s.l(x)).detach()
            return s.h.sum() + s.l(x).sum()

    m = R()
    g = compile(m)
    for k in range(8):
        yield g(ramp(3, start=float(k))), m.h
    m.h = tg.ones(3)
    yield g(ramp(3)), m.h
    m.h.mul_(5)
    yield g(ramp(3)), m.h
    held = m.h
    g(ramp(3))
    yield held, m.h
    m.h = tg.ones(2, 3)
    yield g(ramp(3)), m.h


@hazard
def previous_value(compile):
    class R:
        pass

    o = R()
    o.a = tg.zeros(2)
    o.b = tg.ones(2)

    def f(x):
        old = o.a
        o.b = o.a
        o.a = o.a + x
        return old, o.b, o.a

    g = compile(f)
    for k in range(6):
        r = g(ramp(2, start=float(k)))
        yield r, o.a, o.b, r[0] is o.b, r[2] is o.a


@hazard
def state_that_is_an_argument(compile):
    class R:
        pass

    o = R()
    o.a = tg.zeros(2)

    def f(x):
        x.add_(1)
        o.a = o.a + x
        return o.a * 1

    g = compile(f)
    for _ in range(3):
        yield g(ramp(2)), o.a
    x = o.a
    yield g(x), o.a, x
    yield g(ramp(2)), o.a, x


@hazard
def state_with_gradients(compile):
    w = tg.nn.Parameter(ramp(3))
    h = tg.zeros(3)

    def f(x):
        nonlocal h
        y = (w * h * x).sum() + (w * x).sum()
        h = (h * 0.5 + x * w).detach()
        return y

    g = compile(f)
    for k in range(5):
        w.grad = None
        g(ramp(3, start=float(k))).backward()
        yield w.grad, h
    y = g(ramp(3))
    h.zero_()
    w.grad = None
    y.backward()
    yield w.grad


@hazard
def state_in_a_branch(compile):
    class R:
        pass

    o = R()
    o.n = tg.zeros(())

    def f(x):
        o.n = o.n + 1
        if o.n > 3:
            o.n = o.n * 0
        return x + o.n

    g = compile(f)
    for _ in range(10):
        yield g(ramp(2)), o.n


@hazard
def state_in_a_rare_branch(compile):
    class R:
        pass

    o = R()
    o.n = tg.zeros(())

    def f(x):
        if x.sum() > 0:
            o.n = o.n + x.sum()
        return x + o.n

    g = compile(f)
    for s in (1, -1, 1, 1, -1, -1, 1):
        yield g((ramp(2) + 1) * s), o.n


@hazard
def cache_of_keys(compile):
    k = tg.zeros(4, 2)

    def f(x, pos):
        k[pos : pos + 1] = x
        return k[: pos + 1].sum(0)

    g = compile(f)
    for i in range(4):
        yield g(ramp(1, 2, start=float(i)), i), k


@hazard
def cache_at_a_tensor_position(compile):
    k = tg.zeros(4, 2)

    def f(x, pos):
        k.index_copy_(0, pos, x)
        return k.sum(0)

    g = compile(f)
    for i in range(4):
        yield g(ramp(1, 2, start=float(i)), tg.tensor([i])), k


@hazard
def cache_behind_a_flag(compile):
    m = tg.zeros(3, dtype=tg.bool)

    def f(i):
        m[i] = True
        return m.sum()

    g = compile(f)
    for i in (0, 1, 1):
        yield g(i), m


@hazard
def average_of_weights(compile):
    m = tg.nn.Linear(3, 3)
    ema = {k: v.detach().clone() for k, v in m.named_parameters()}
    opt = tg.optim.SGD(m.parameters(), lr=0.1)

    def step(x):
        opt.zero_grad()
        l = m(x).square().mean()
        l.backward()
        opt.step()
        with tg.no_grad():
            for k, v in m.named_parameters():
                ema[k].mul_(0.9).add_(v, alpha=0.1)
        return l

    g = compile(step)
    for _ in range(4):
        yield g(ramp(2, 3)), list(ema.values())
    for v in ema.values():
        v.zero_()
    yield g(ramp(2, 3)), list(ema.values())


@hazard
def averages_in_buffers(compile):
    class BN(tg.nn.Module):
        def __init__(s):
            super().__init__()
            s.register_buffer("m", tg.zeros(3))
            s.w = tg.nn.Parameter(tg.ones(3))

        def forward(s, x):
            if s.training:
                s.m = 0.9 * s.m + 0.1 * x.detach().mean(0)
            return (x - s.m) * s.w

    m = BN()
    opt = tg.optim.SGD(m.parameters(), lr=0.1)
    g = train_step(compile, m, opt)
    for k in range(6):
        yield g(ramp(4, 3, start=float(k))), m.m, m.w
    m.eval()
    yield g(ramp(4, 3)), m.m
    yield g(ramp(4, 3)), m.m
    m.train()
    yield g(ramp(4, 3)), m.m
    sd = copy.deepcopy(m.state_dict())
    g(ramp(4, 3))
    m.load_state_dict(sd)
    yield g(ramp(4, 3)), m.m


@hazard
def state_threaded_through(compile):
    def step(params, x):
        ws = [q.detach().requires_grad_() for q in params]
        l = ((ws[0] * x).sum() + ws[1]).square()
        gs = tg.autograd.grad(l, ws)
        return [(w - 0.1 * gg).detach() for w, gg in zip(ws, gs)], l

    g = compile(step)
    ps = [ramp(3), tg.tensor(1.0)]
    for _ in range(3):
        ps, l = g(ps, ramp(3))
        yield ps, l


@hazard
def hidden_state_passed_back(compile):
    lstm = tg.nn.LSTM(3, 4, batch_first=True)
    h = None

    def f(x, h):
        y, h = lstm(x, h)
        return y, h

    g = compile(f)
    y, h = g(ramp(2, 5, 3), None)
    yield y, h
    for _ in range(2):
        y, h = g(ramp(2, 5, 3), h)
        yield y, h


@hazard
def deepcopy_inside(compile):
    m = linear()

    def f(x):
        c = copy.deepcopy(m)
        return c(x)

    g = compile(f)
    yield g(ramp(2, 3))
    with tg.no_grad():
        m.weight.add_(1)
    yield g(ramp(2, 3))


@hazard
def model_copied_between_calls(compile):
    m = linear()
    opt = tg.optim.SGD(m.parameters(), lr=0.1)
    g = train_step(compile, m, opt)
    g(ramp(2, 3))
    m2 = copy.deepcopy(m)
    g(ramp(2, 3))
    yield m2.weight, m.weight
    opt2 = tg.optim.SGD(m2.parameters(), lr=0.1)
    g2 = train_step(compile, m2, opt2)
    g2(ramp(2, 3))
    yield m2.weight, m.weight


@hazard
def state_dict_held(compile):
    m = linear()
    opt = tg.optim.Adam(m.parameters(), lr=0.1)
    g = train_step(compile, m, opt)
    g(ramp(2, 3))
    sd = m.state_dict()
    osd = opt.state_dict()
    dc = copy.deepcopy(sd)
    odc = copy.deepcopy(osd)
    g(ramp(2, 3))
    yield sd, dc, osd["state"], odc["state"]
    m.load_state_dict(dc)
    opt.load_state_dict(odc)
    yield g(ramp(2, 3)), m.weight


@hazard
def state_dict_inside(compile):
    m = linear()
    g = compile(lambda x: {k: v * 2 for k, v in m.state_dict().items()})
    yield g(ramp(1))
    with tg.no_grad():
        m.weight.add_(1)
    yield g(ramp(1))


@hazard
def state_dict_loaded_inside(compile):
    m = linear()
    saved = {k: v.clone() for k, v in m.state_dict().items()}

    def f(x):
        m.load_state_dict(saved)
        return m(x)

    g = compile(f)
    with tg.no_grad():
        m.weight.add_(1)
    yield g(ramp(2, 3)), m.weight
    with tg.no_grad():
        m.weight.add_(1)
    yield g(ramp(2, 3)), m.weight
