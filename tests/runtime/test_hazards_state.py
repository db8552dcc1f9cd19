"""Trace hazards of state, aliases and names, as in test_hazards.py: all equal eager."""

import copy
import math

import numpy as np
import pytest

import tracegrad as tg
from tests.runtime.programs import BACKENDS, agree, ramp

F = tg.nn.functional
HAZARDS = {}


def hazard(function):
    HAZARDS[function.__name__] = function
    return function


def lin():
    return tg.nn.Linear(3, 1)


def stepper(compile, m, opt):
    def step(x):
        opt.zero_grad()
        loss = m(x).square().mean()
        loss.backward()
        opt.step()
        return loss

    return compile(step)


@hazard
def numpy_view_of_param_across_steps(compile):
    m = lin()
    opt = tg.optim.SGD(m.parameters(), lr=0.1)
    g = stepper(compile, m, opt)
    g(ramp(2, 3))
    a = m.weight.detach().numpy()
    yield a.copy()
    g(ramp(2, 3))
    yield a.copy(), m.weight
    a[:] = 1
    yield g(ramp(2, 3)), m.weight, a.copy()


@hazard
def detached_held_across_steps(compile):
    m = lin()
    opt = tg.optim.Adam(m.parameters(), lr=0.1)
    g = stepper(compile, m, opt)
    g(ramp(2, 3))
    d = m.weight.detach()
    c = m.weight.detach().clone()
    v = m.weight[0]
    da = m.weight.data
    g(ramp(2, 3))
    yield d, c, v.detach(), da, m.weight
    g(ramp(2, 3))
    yield d, c, v.detach(), da, m.weight


@hazard
def state_dict_held(compile):
    m = lin()
    opt = tg.optim.Adam(m.parameters(), lr=0.1)
    g = stepper(compile, m, opt)
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
def deepcopy_model_mid(compile):
    m = lin()
    opt = tg.optim.SGD(m.parameters(), lr=0.1)
    g = stepper(compile, m, opt)
    g(ramp(2, 3))
    m2 = copy.deepcopy(m)
    g(ramp(2, 3))
    yield m2.weight, m.weight
    opt2 = tg.optim.SGD(m2.parameters(), lr=0.1)
    g2 = stepper(compile, m2, opt2)
    g2(ramp(2, 3))
    yield m2.weight, m.weight


@hazard
def two_compiled_share(compile):
    m = lin()
    o = tg.optim.SGD(m.parameters(), lr=0.1, momentum=0.9)
    a = stepper(compile, m, o)
    b = stepper(compile, m, o)
    for _ in range(3):
        yield a(ramp(2, 3)), b(ramp(2, 3, start=1.0)), m.weight


@hazard
def eager_and_compiled_mix(compile):
    m = lin()
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


@hazard
def param_as_argument(compile):
    m = lin()
    g = compile(lambda w, x: (w * x).sum())
    yield g(m.weight, ramp(1, 3))
    with tg.no_grad():
        m.weight.add_(1)
    yield g(m.weight, ramp(1, 3))
    g(m.weight, ramp(1, 3)).backward()
    yield m.weight.grad


@hazard
def update_param_argument(compile):
    def up(w, gr):
        with tg.no_grad():
            w.sub_(gr * 0.1)
        return w

    g = compile(up)
    m = lin()
    for _ in range(3):
        r = g(m.weight, tg.ones(1, 3))
        yield r is m.weight, m.weight


@hazard
def functional_state_threaded(compile):
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
def func_grad(compile):
    g = compile(tg.func.grad(lambda w, x: ((w * x) ** 2).sum()))
    for k in range(2):
        yield g(ramp(3, start=float(k)), ramp(3))


@hazard
def func_call(compile):
    m = lin()

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
def branch_then_state(compile):
    c = tg.zeros(3)
    n = tg.zeros((), dtype=tg.int64)

    def f(x):
        c.add_(x)
        if c.sum() > 3:
            c.zero_()
            n.add_(1)
            return c.clone()
        c.mul_(1.5)
        return c * 2

    g = compile(f)
    for _ in range(8):
        yield g(ramp(3, start=0.2)), c, n


@hazard
def branch_effect_attr(compile):
    class Box:
        flag = "none"

    o = Box()

    def f(x):
        if x.sum() > 0:
            o.flag = "pos"
            o.val = x * 2
        else:
            o.flag = "neg"
        return x

    g = compile(f)
    for s in (1, -1, 1, -1):
        g((ramp(3) + 1) * s)
        yield o.flag, o.val


@hazard
def branch_reads_new_attr(compile):
    m = tg.nn.Linear(3, 3)
    m.a = 2.0
    m.b = 3.0
    g = compile(lambda x: m(x) * m.a if x.sum() > 0 else m(x) * m.b)
    for s in (1, -1, 1, -1):
        yield g((ramp(2, 3) + 1) * s)
    m.b = 7.0
    for s in (1, -1):
        yield g((ramp(2, 3) + 1) * s)
    m.a = 9.0
    for s in (-1, 1):
        yield g((ramp(2, 3) + 1) * s)


@hazard
def branch_new_params(compile):
    a, b = lin(), lin()
    oa = tg.optim.SGD([*a.parameters(), *b.parameters()], lr=0.1)

    def f(x):
        oa.zero_grad()
        l = (a(x) if x.sum() > 0 else b(x)).square().sum()
        l.backward()
        oa.step()
        return l

    g = compile(f)
    for s in (1, -1, 1, -1):
        yield (
            g((ramp(2, 3) + 1) * s),
            a.weight,
            b.weight,
        )


@hazard
def branch_dropout(compile):
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
def branch_on_state_then_eager_change(compile):
    s = tg.tensor(1.0)
    g = compile(lambda x: x if s > 0 else -x)
    yield g(ramp(3))
    s.neg_()
    yield g(ramp(3))
    s.neg_()
    yield g(ramp(3))


@hazard
def item_as_index(compile):
    t = ramp(5)
    g = compile(lambda i: t[i.item()] * 2)
    for k in (0, 3, 0, 4, -1):
        yield g(tg.tensor(k))


@hazard
def range_of_item_state(compile):
    n = tg.tensor(2)

    def f(x):
        for _ in range(n.item()):
            x = x + 1
        return x

    g = compile(f)
    yield g(ramp(2))
    n.add_(1)
    yield g(ramp(2))
    n.fill_(2)
    yield g(ramp(2))


@hazard
def while_with_python_counter(compile):
    def f(x, limit):
        k = 0
        while k < limit and x.abs().max() > 0.1:
            x = x * 0.5
            k += 1
        return x, k

    g = compile(f)
    for l in (3, 10, 3):
        yield g(ramp(3), l)


@hazard
def try_finally(compile):
    log = tg.zeros(())

    def f(x):
        try:
            if x.sum() < 0:
                raise ValueError
            return x
        except ValueError:
            return -x
        finally:
            log.add_(1)

    g = compile(f)
    for s in (1, -1, 1):
        yield g((ramp(3) + 1) * s), log


@hazard
def any_all_python(compile):
    g = compile(lambda xs: any(x.sum() > 1 for x in xs))
    yield g([ramp(3), ramp(3)])
    yield g([ramp(3), ramp(3) + 1])
    yield g([ramp(3), ramp(3)])


@hazard
def in_operator(compile):
    a, b = ramp(3), ramp(3)
    g = compile(lambda x: (0.0 in x, any(x is t for t in (a, b))))
    yield g(a)
    yield g(b + 1)
    yield g(b)


@hazard
def identity_of_args(compile):
    g = compile(lambda a, b: 1 if a is b else 2)
    x, y = ramp(3), ramp(3)
    yield g(x, y), g(x, x), g(x, x.view(3)), g(y, y)


@hazard
def tensor_dict_keys(compile):
    w = tg.nn.Parameter(ramp(3))
    table = {w: 2.0}
    g = compile(lambda x: x * table[w])
    yield g(ramp(3))
    table[w] = 5.0
    yield g(ramp(3))


@hazard
def set_of_params(compile):
    a, b = lin(), lin()
    ps = set(a.parameters())
    g = compile(lambda x: sum(p.sum() for p in ps) * 0 + len(ps) + x)
    yield g(ramp(2))
    ps.update(b.parameters())
    yield g(ramp(2))


@hazard
def string_formatting(compile):
    g = compile(lambda x: f"{x.sum().item():.2f}")
    yield g(ramp(3))
    yield g(ramp(3))
    yield g(ramp(3, start=1.0))


@hazard
def math_functions(compile):
    g = compile(lambda x: x * math.sqrt(x.sum().item()) + math.floor(x.max().item()))
    for k in (0, 1, 0):
        yield g(ramp(3, start=float(k)))


@hazard
def round_and_abs(compile):
    g = compile(
        lambda x: (
            round(x.sum().item(), 1),
            abs(x.min().item()),
            -x.max().item(),
            x.sum().item() // 1,
            x.sum().item() % 1,
        )
    )
    for k in (0, 1):
        yield g(ramp(3, start=float(k)))


@hazard
def numpy_inside(compile):
    g = compile(lambda x: tg.tensor(np.sort(x.detach().numpy())[::-1].copy()) * 2)
    yield g(ramp(3))
    yield g(-ramp(3))
    yield g(ramp(3))


@hazard
def inference_then_train_flag(compile):
    m = tg.nn.Sequential(lin(), tg.nn.Dropout(0.5))
    g = compile(lambda x: m(x))
    with tg.inference_mode():
        yield g(ramp(2, 3)), g(ramp(2, 3)).requires_grad
    yield g(ramp(2, 3)).requires_grad


@hazard
def module_call_kwargs(compile):
    class M(tg.nn.Module):
        def forward(s, x, *, scale=1.0, mask=None):
            return x * scale if mask is None else x * mask

    g = compile(M())
    yield g(ramp(3)), g(ramp(3), scale=2.0), g(ramp(3), mask=ramp(3)), g(x=ramp(3))


@hazard
def attn_cache(compile):
    k = tg.zeros(4, 2)

    def f(x, pos):
        k[pos : pos + 1] = x
        return k[: pos + 1].sum(0)

    g = compile(f)
    for i in range(4):
        yield g(ramp(1, 2, start=float(i)), i), k


@hazard
def attn_cache_tensor_pos(compile):
    k = tg.zeros(4, 2)

    def f(x, pos):
        k.index_copy_(0, pos, x)
        return k.sum(0)

    g = compile(f)
    for i in range(4):
        yield g(ramp(1, 2, start=float(i)), tg.tensor([i])), k


@hazard
def jaxish_bool_cache(compile):
    m = tg.zeros(3, dtype=tg.bool)

    def f(i):
        m[i] = True
        return m.sum()

    g = compile(f)
    for i in (0, 1, 1):
        yield g(i), m


@hazard
def ints_inplace(compile):
    n = tg.zeros(3, dtype=tg.int64)

    def f():
        n.add_(1)
        n[0] += 5
        n.clamp_(max=9)
        return n * 1

    g = compile(f)
    for _ in range(3):
        yield g(), n


@hazard
def grad_accum_inplace_alias(compile):
    w = tg.nn.Parameter(ramp(3))

    def f(x):
        (w * x).sum().backward()
        return w.grad

    g = compile(f)
    a = g(ramp(3))
    yield a
    b = g(ramp(3))
    yield a, b, a is b, w.grad
    w.grad = None
    c = g(ramp(3))
    yield a, c


@hazard
def zero_grad_set_false(compile):
    m = lin()
    o = tg.optim.SGD(m.parameters(), lr=0.1)

    def f(x):
        l = m(x).square().sum()
        l.backward()
        o.step()
        o.zero_grad(set_to_none=False)
        return l

    g = compile(f)
    for _ in range(3):
        yield g(ramp(2, 3)), m.weight, m.weight.grad


@hazard
def step_then_read_grad(compile):
    m = lin()
    o = tg.optim.SGD(m.parameters(), lr=0.1)

    def f(x):
        l = m(x).square().sum()
        l.backward()
        o.step()
        return l

    g = compile(f)
    for _ in range(3):
        yield g(ramp(2, 3)), m.weight.grad
        o.zero_grad()


@hazard
def scheduler_outside(compile):
    m = lin()
    o = tg.optim.SGD(m.parameters(), lr=0.1)
    s = tg.optim.lr_scheduler.StepLR(o, 1, 0.5)
    g = stepper(compile, m, o)
    for _ in range(4):
        yield g(ramp(2, 3)), m.weight
        s.step()


@hazard
def weight_decay_change(compile):
    m = lin()
    o = tg.optim.AdamW(m.parameters(), lr=0.1)
    g = stepper(compile, m, o)
    for wd in (0.1, 0.0, 0.5):
        o.param_groups[0]["weight_decay"] = wd
        yield g(ramp(2, 3)), m.weight


@hazard
def betas_change(compile):
    m = lin()
    o = tg.optim.Adam(m.parameters(), lr=0.1)
    g = stepper(compile, m, o)
    for b in ((0.9, 0.99), (0.5, 0.9)):
        o.param_groups[0]["betas"] = b
        yield g(ramp(2, 3)), m.weight


@hazard
def amsgrad_flag(compile):
    m = lin()
    o = tg.optim.Adam(m.parameters(), lr=0.1)
    g = stepper(compile, m, o)
    yield g(ramp(2, 3))
    o.param_groups[0]["eps"] = 1.0
    yield g(ramp(2, 3)), m.weight


@hazard
def embedding_padding(compile):
    e = tg.nn.Embedding(5, 2, padding_idx=0)
    o = tg.optim.SGD(e.parameters(), lr=0.1)

    def f(i):
        o.zero_grad()
        l = e(i).square().sum()
        l.backward()
        o.step()
        return l

    g = compile(f)
    for ix in ([0, 1], [2, 2], [0, 4]):
        yield g(tg.tensor(ix)), e.weight


@hazard
def slot_state(compile):
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
def slot_prev(compile):
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
def slot_arg_alias(compile):
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
def slot_gradient(compile):
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
def slot_branch(compile):
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
def slot_branch_sometimes(compile):
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
def ema_buffers_functional(compile):
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
    g = stepper(compile, m, opt)
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
def global_hidden(compile):
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
def dropout_second_order(compile):
    x = ramp(20, start=1.0).requires_grad_()
    g = compile(lambda x: F.dropout(x**3, 0.5))
    for s in (1, 2):
        tg.manual_seed(s)
        (gg,) = tg.autograd.grad(g(x).sum(), x, create_graph=True)
        x.grad = None
        gg.sum().backward()
        yield gg, x.grad


@hazard
def host_lr_second_order(compile):
    w = ramp(3, start=1.0).requires_grad_()
    opt = tg.optim.SGD([w], lr=0.5)
    s = tg.optim.lr_scheduler.StepLR(opt, 1, 0.5)

    def f(x):
        y = (w**3 * opt.param_groups[0]["lr"]).sum()
        s.step()
        return y

    g = compile(f)
    for _ in range(3):
        (gg,) = tg.autograd.grad(g(ramp(3)), w, create_graph=True)
        w.grad = None
        gg.sum().backward()
        yield gg, w.grad


@hazard
def big_dict_tensor_keys(compile):
    ws = [tg.nn.Parameter(ramp(3)) for _ in range(3)]
    lr = {w: float(k) for k, w in enumerate(ws)}
    g = compile(lambda x: sum(w * x * lr[w] for w in ws))
    yield g(ramp(3))
    lr[ws[0]] = 5.0
    yield g(ramp(3))
    ws.append(tg.nn.Parameter(ramp(3)))
    lr[ws[3]] = 2.0
    yield g(ramp(3))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", HAZARDS)
def test_equals_eager(name, backend):
    agree(HAZARDS[name], backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_state_kept_under_a_name_is_recorded_once(backend):
    (compiled,) = agree(HAZARDS["slot_branch"], backend)
    assert compiled.stats()["recordings"] == 2
    (compiled,) = agree(HAZARDS["slot_prev"], backend)
    assert compiled.stats()["recordings"] <= 2
