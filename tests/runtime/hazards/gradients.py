"""Gradients: accumulated, cleared, held, clipped, of higher order."""

import tracegrad as tg
from tests.runtime.hazards.registry import hazard, linear
from tests.runtime.programs import ramp
from tracegrad.nn import functional as F


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
def gradients_clipped(compile):
    m = tg.nn.Linear(3, 3)
    opt = tg.optim.AdamW(m.parameters(), lr=0.1)

    def step(x):
        opt.zero_grad()
        l = m(x).square().mean()
        l.backward()
        n = tg.nn.utils.clip_grad_norm_(m.parameters(), 0.1)
        opt.step()
        return l, n

    g = compile(step)
    for _ in range(4):
        yield g(ramp(2, 3)), m.weight


@hazard
def alias_of_an_accumulated_gradient(compile):
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
def zero_grad_to_zeros_inside(compile):
    m = linear()
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
def gradient_read_after_the_step(compile):
    m = linear()
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
def gradient_held_across_calls(compile):
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
def gradient_of_the_input(compile):
    m = linear()

    def f(x):
        x = x.clone().requires_grad_(True)
        l = m(x).square().sum()
        (gx,) = tg.autograd.grad(l, [x])
        return (x + 0.1 * gx.sign()).detach()

    g = compile(f)
    for _ in range(3):
        yield g(ramp(2, 3)), m.weight.grad


@hazard
def gradient_through_a_step(compile):
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
def forward_run_again_for_backward(compile):
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
def second_order_through_dropout(compile):
    x = ramp(20, start=1.0).requires_grad_()
    g = compile(lambda x: F.dropout(x**3, 0.5))
    for s in (1, 2):
        tg.manual_seed(s)
        (gg,) = tg.autograd.grad(g(x).sum(), x, create_graph=True)
        x.grad = None
        gg.sum().backward()
        yield gg, x.grad


@hazard
def second_order_with_a_changing_number(compile):
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
def no_grad_as_decorator(compile):
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
def gradients_through_two_models(compile):
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
def gradient_data_clamped(compile):
    m = linear()
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


def values(gradient):
    """Read without giving the gradient an alias: it is kept under its name only."""
    return None if gradient is None else gradient.tolist()


@hazard
def accumulated_gradient_moved_away(compile):
    """Under another name, while the parameter's own is cleared."""

    class Keeper:
        gradient = None

    keeper, w = Keeper(), ramp(3).requires_grad_()

    def f(x, last):
        (w * x).sum().backward()
        if last:
            keeper.gradient = w.grad
            w.grad = None
        return x * 1

    g = compile(f)
    for k in range(8):
        g(ramp(3, start=float(k)), k % 2 == 1)
        yield values(keeper.gradient), values(w.grad)


@hazard
def gradient_cleared_beside_a_result_with_history(compile):
    """In a branch on a flag, and in one on a counter that is a tensor."""
    w, n = ramp(3).requires_grad_(), tg.zeros(())

    def by_flag(x, last):
        (w * x).sum().backward()
        if last:
            w.grad = None
        return w * x

    def by_counter(x):
        (w * x).sum().backward()
        n.add_(1)
        if n % 2 == 0:
            w.grad = None
        return w * x

    g, h = compile(by_flag), compile(by_counter)
    for k in range(8):
        result = g(ramp(3, start=float(k)), k % 2 == 1)
        yield result, values(w.grad)
    w.grad = None
    for k in range(8):
        result = h(ramp(3, start=float(k)))
        yield result, values(w.grad), n


@hazard
def second_order_past_values_made_under_no_grad(compile):
    w = tg.nn.Parameter(ramp(3, start=0.5))

    def f(x):
        with tg.no_grad():
            old = tg.log_softmax(w * x, -1)
        new = tg.log_softmax(w * x, -1)
        (first,) = tg.autograd.grad((old.exp() * (old - new)).sum(), w, create_graph=True)
        return tg.autograd.grad((first * x).sum(), w)[0]

    g = compile(f)
    yield g(ramp(3, start=1.0))
    yield g(ramp(3, start=-1.0))
