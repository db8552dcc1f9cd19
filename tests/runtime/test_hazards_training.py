"""Trace hazards in whole training programs, as in test_hazards.py: all equal eager."""

import copy

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


@hazard
def data_set_inside(compile):
    w = tg.nn.Parameter(ramp(3))

    def f(x):
        w.data = w.data * 0.5 + x
        return (w * x).sum()

    g = compile(f)
    for k in range(3):
        yield g(ramp(3, start=float(k))), w


@hazard
def data_inplace_inside(compile):
    w = tg.nn.Parameter(ramp(3))

    def f(x):
        l = (w * w * x).sum()
        l.backward()
        w.data.add_(w.grad, alpha=-0.1)
        w.grad.zero_()
        return l

    g = compile(f)
    for k in range(4):
        yield g(ramp(3, start=float(k))), w, w.grad


@hazard
def grad_data_clamp(compile):
    m = lin()
    opt = tg.optim.SGD(m.parameters(), lr=0.1)

    def f(x):
        opt.zero_grad()
        l = m(x).square().sum()
        l.backward()
        for q in m.parameters():
            q.grad.data.clamp_(-0.01, 0.01)
        opt.step()
        return l

    g = compile(f)
    for _ in range(3):
        yield g(ramp(2, 3)), m.weight


@hazard
def skip_step_on_nan(compile):
    m = lin()
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
def closure_step(compile):
    m = lin()
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
def gan(compile):
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
def grads_after_gan(compile):
    G, D = tg.nn.Linear(2, 3), tg.nn.Linear(3, 1)

    def f(z):
        D(G(z)).sum().backward()

    g = compile(f)
    for _ in range(3):
        g(ramp(4, 2))
        yield G.weight.grad, D.weight.grad
    D.zero_grad()
    g(ramp(4, 2))
    yield G.weight.grad, D.weight.grad


@hazard
def freeze_unfreeze(compile):
    a, b = tg.nn.Linear(3, 3), lin()
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
def metrics(compile):
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
def returned_numbers(compile):
    g = compile(
        lambda x: {
            "loss": x.sum().item(),
            "f": x.max().item(),
            "n": x.shape[0],
            "b": (x.sum() > 0).item(),
        }
    )
    for k in (0, 1, 2):
        yield g(ramp(3, start=float(k)) - 1)


@hazard
def tensor_of_numbers(compile):
    g = compile(lambda x: tg.tensor([x.sum().item(), x.max().item() * 2]))
    for k in range(3):
        yield g(ramp(3, start=float(k)))


@hazard
def stack_items(compile):
    g = compile(
        lambda x: tg.stack([x[i] * i for i in range(x.shape[0])]) + tg.as_tensor(x.mean().item())
    )
    for k in range(3):
        yield g(ramp(3, start=float(k)))


@hazard
def one_hot_dynamic(compile):
    g = compile(lambda i: F.one_hot(i, int(i.max()) + 1))
    yield g(tg.tensor([0, 1, 2]))
    yield g(tg.tensor([0, 3, 2]))
    yield g(tg.tensor([2, 1, 0]))


@hazard
def nonzero_len(compile):
    g = compile(lambda x: x * len([v for v in x.tolist() if v > 0.5]))
    for k in range(3):
        yield g(ramp(3, start=k * 0.3))


@hazard
def state_dict_inside(compile):
    m = lin()
    g = compile(lambda x: {k: v * 2 for k, v in m.state_dict().items()})
    yield g(ramp(1))
    with tg.no_grad():
        m.weight.add_(1)
    yield g(ramp(1))


@hazard
def load_inside(compile):
    m = lin()
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


@hazard
def deepcopy_inside(compile):
    m = lin()

    def f(x):
        c = copy.deepcopy(m)
        return c(x)

    g = compile(f)
    yield g(ramp(2, 3))
    with tg.no_grad():
        m.weight.add_(1)
    yield g(ramp(2, 3))


@hazard
def layer_made_inside(compile):
    def f(x):
        l = tg.nn.Linear(3, 2)
        return l(x)

    g = compile(f)
    yield g(ramp(2, 3)), g(ramp(2, 3)), tg.rand(2)


@hazard
def requires_grad_inside(compile):
    def f(x):
        x = x.detach().requires_grad_()
        y = (x**3).sum()
        y.backward()
        return x.grad

    g = compile(f)
    for k in range(3):
        yield g(ramp(3, start=float(k)))


@hazard
def fgsm(compile):
    m = lin()

    def f(x):
        x = x.clone().requires_grad_(True)
        l = m(x).square().sum()
        (gx,) = tg.autograd.grad(l, [x])
        return (x + 0.1 * gx.sign()).detach()

    g = compile(f)
    for _ in range(3):
        yield g(ramp(2, 3)), m.weight.grad


@hazard
def maml(compile):
    w = tg.nn.Parameter(ramp(3))
    opt = tg.optim.SGD([w], lr=0.1)

    def f(x):
        opt.zero_grad()
        l = ((w * x) ** 2).sum()
        (gw,) = tg.autograd.grad(l, [w], create_graph=True)
        fast = w - 0.1 * gw
        out = ((fast * x) ** 2).sum()
        out.backward()
        opt.step()
        return out

    g = compile(f)
    for _ in range(3):
        yield g(ramp(3, start=1.0)), w


@hazard
def checkpoint_like(compile):
    w = tg.nn.Parameter(ramp(3))

    def f(x):
        with tg.no_grad():
            h = (w * x).sin()
        h = h.detach().requires_grad_()
        o = (h * h).sum()
        o.backward()
        with tg.enable_grad():
            h2 = (w * x).sin()
        h2.backward(h.grad)
        return o

    g = compile(f)
    for _ in range(3):
        yield g(ramp(3, start=1.0)), w.grad


@hazard
def loader_inside(compile):
    data = [ramp(2, 3, start=float(k)) for k in range(3)]
    m = lin()
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


@hazard
def tensor_attributes(compile):
    w = tg.nn.Parameter(ramp(3))
    w.scale = 2.0
    g = compile(lambda x: w * x * w.scale)
    yield g(ramp(3))
    w.scale = 5.0
    yield g(ramp(3))


@hazard
def plateau_outside(compile):
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
def last_lr_read(compile):
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
def buffer_slices(compile):
    m = tg.nn.Module()
    m.register_buffer("q", tg.zeros(4, 3))
    m.register_buffer("ptr", tg.zeros((), dtype=tg.int64))

    def f(x):
        i = m.ptr.item()
        m.q[i] = x
        m.ptr.copy_((m.ptr + 1) % 4)
        return m.q.sum()

    g = compile(f)
    for k in range(6):
        yield g(ramp(3, start=float(k))), m.q, m.ptr


@hazard
def queue_by_index(compile):
    q = tg.zeros(4, 3)
    ptr = tg.zeros((), dtype=tg.int64)

    def f(x):
        q[ptr] = x
        ptr.add_(1).remainder_(4)
        return q.sum()

    g = compile(f)
    for k in range(6):
        yield g(ramp(3, start=float(k))), q, ptr


@hazard
def amp_like(compile):
    m = lin()
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
def accum_every_n(compile):
    m = lin()
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
def weight_norm_like(compile):
    v = tg.nn.Parameter(ramp(3, start=1.0))
    s = tg.nn.Parameter(tg.tensor(2.0))

    def f(x):
        v.grad = s.grad = None
        l = ((v / v.norm() * s) * x).sum()
        l.backward()
        return l, v.grad, s.grad

    g = compile(f)
    for _ in range(2):
        yield g(ramp(3))


@hazard
def output_requires_grad_flags(compile):
    w = tg.nn.Parameter(ramp(3))
    g = compile(lambda x: (w * x, (w * x).detach(), x * 2, w.sum() > 0))
    for _ in range(2):
        yield [t.requires_grad for t in g(ramp(3))], [t.is_leaf for t in g(ramp(3))]


@hazard
def inplace_on_output_then_backward(compile):
    w = tg.nn.Parameter(ramp(3, start=1.0))
    g = compile(lambda x: (w * x).exp())
    for _ in range(2):
        w.grad = None
        y = g(ramp(3))
        y = y * 1
        y.mul_(2)
        y.sum().backward()
        yield w.grad
        w.grad = None
        y = g(ramp(3))
        y.mul_(2)
        y.sum().backward()
        yield w.grad


@hazard
def output_view_backward(compile):
    w = tg.nn.Parameter(ramp(6, start=1.0))
    g = compile(lambda x: (w * x).view(2, 3)[1:].t())
    for _ in range(2):
        w.grad = None
        y = g(ramp(6))
        (y * y).sum().backward()
        yield w.grad, y


@hazard
def arg_leaf_grad_outside(compile):
    g = compile(lambda x: (x * x).sum())
    x = ramp(3).requires_grad_()
    y = ramp(3, start=2.0).requires_grad_()
    for t in (x, y, x):
        g(t).backward()
        yield x.grad, y.grad


@hazard
def no_grad_decorator(compile):
    w = tg.nn.Parameter(ramp(3))

    @tg.no_grad()
    def f(x):
        return w * x

    g = compile(f)
    for _ in range(2):
        r = g(ramp(3))
        yield r, r.requires_grad
    h = tg.no_grad()(compile(lambda x: w * x))
    r = h(ramp(3))
    yield r, r.requires_grad


@hazard
def random_shapes_dropout(compile):
    m = tg.nn.Dropout(0.5)
    g = compile(lambda x: m(x) + m(x))
    for n in (4, 8, 4, 2):
        yield g(tg.ones(n))
    yield tg.rand(3)


@hazard
def random_in_while(compile):
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
def int_state_and_modulo(compile):
    n = tg.zeros((), dtype=tg.int64)

    def f(x):
        n.add_(1)
        if n % 2 == 0:
            return x * 2
        return x

    g = compile(f)
    for _ in range(5):
        yield g(ramp(3)), n


@hazard
def chained_compiled(compile):
    w = tg.nn.Parameter(ramp(3))
    a = compile(lambda x: w * x)
    b = compile(lambda x: x.sin().sum())
    for _ in range(3):
        w.grad = None
        b(a(ramp(3))).backward()
        yield w.grad


@hazard
def eval_after_train_shares(compile):
    m = tg.nn.Sequential(tg.nn.Linear(3, 3), tg.nn.BatchNorm1d(3))
    opt = tg.optim.SGD(m.parameters(), lr=0.1)

    def tr(x):
        m.train()
        opt.zero_grad()
        l = m(x).square().mean()
        l.backward()
        opt.step()
        return l

    def ev(x):
        m.eval()
        with tg.no_grad():
            return m(x)

    tr, ev = compile(tr), compile(ev)
    for _ in range(3):
        yield tr(ramp(4, 3)), ev(ramp(4, 3)), m.training


@hazard
def views_of_arg_written(compile):
    def f(a):
        b = a[1:]
        b.mul_(2)
        a[0] = b.sum()
        return b

    g = compile(f)
    x = ramp(4)
    for _ in range(3):
        yield g(x), x


@hazard
def swap_buffers(compile):
    a, b = tg.zeros(3), tg.ones(3)

    def f(x):
        t = a.clone()
        a.copy_(b)
        b.copy_(t + x)
        return a + b

    g = compile(f)
    for _ in range(4):
        yield g(ramp(3)), a, b


@hazard
def parameter_dict_iter(compile):
    pd = tg.nn.ParameterDict({"a": tg.nn.Parameter(ramp(3))})
    g = compile(lambda x: sum(v.sum() for v in pd.values()) * x)
    yield g(ramp(3))
    pd["b"] = tg.nn.Parameter(ramp(2))
    yield g(ramp(3))


@hazard
def global_generator_seed_inside_loop(compile):
    g = compile(lambda: tg.randperm(5))
    for _ in range(3):
        yield g()
    tg.manual_seed(1)
    yield g()


@hazard
def fp64_arg(compile):
    g = compile(lambda x, k: x * k)
    for k in (0.1, 1 / 3):
        yield g(ramp(3, dtype=tg.float64), k)


@hazard
def big_int_arg(compile):
    g = compile(lambda x, k: x * k)
    for k in (2**40, 3):
        yield g(ramp(3, dtype=tg.float64), k), g(tg.arange(3), k)


@hazard
def held_grad_across(compile):
    w = tg.nn.Parameter(ramp(3))
    opt = tg.optim.SGD([w], lr=0.1)

    def f(x):
        opt.zero_grad()
        (w * w * x).sum().backward()
        opt.step()
        return [q.grad for q in [w]]

    g = compile(f)
    held = [g(ramp(3, start=float(k))) for k in range(3)]
    yield held


@hazard
def loss_fn_object(compile):
    crit = tg.nn.CrossEntropyLoss(label_smoothing=0.1)
    g = compile(lambda o, y: crit(o, y))
    yield g(ramp(4, 3), tg.arange(4) % 3)
    crit.label_smoothing = 0.3
    yield g(ramp(4, 3), tg.arange(4) % 3)


@hazard
def where_bool_mask_write(compile):
    def f(x):
        y = x.clone()
        y[y > 0.4] = 0
        return y

    g = compile(f)
    for k in range(3):
        yield g(ramp(4, start=k * 0.2))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", HAZARDS)
def test_equals_eager(name, backend):
    agree(HAZARDS[name], backend)
