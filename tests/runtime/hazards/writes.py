"""Writes in place: through views, on arguments, on parameters and what shares memory with them."""

import numpy as np

import tracegrad as tg
from tests.runtime.hazards.registry import hazard, linear, train_step
from tests.runtime.programs import ramp


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
def integers_written_in_place(compile):
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
def views_of_an_argument_written(compile):
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
def written_through_a_mask(compile):
    def f(x):
        y = x.clone()
        y[y > 0.4] = 0
        return y

    g = compile(f)
    for k in range(3):
        yield g(ramp(4, start=k * 0.2))


@hazard
def slices_of_a_buffer(compile):
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
def queue_by_an_index(compile):
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
def data_written_inside(compile):
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
def data_set_inside(compile):
    w = tg.nn.Parameter(ramp(3))

    def f(x):
        w.data = w.data * 0.5 + x
        return (w * x).sum()

    g = compile(f)
    for k in range(3):
        yield g(ramp(3, start=float(k))), w


@hazard
def detached_alias_of_state(compile):
    w = tg.nn.Parameter(ramp(3))
    d = w.detach()

    def f(x):
        with tg.no_grad():
            w.add_(1)
        return (d * x).sum()

    g = compile(f)
    for _ in range(3):
        yield g(ramp(3)), w, d


@hazard
def view_of_a_parameter_as_state(compile):
    w = tg.nn.Parameter(ramp(4))
    v = w.data[1:3]

    def f(x):
        v.mul_(2)
        return (w * x).sum()

    g = compile(f)
    for _ in range(3):
        yield g(ramp(4)), w, v


@hazard
def tensor_under_two_names(compile):
    class M(tg.nn.Module):
        def __init__(s):
            super().__init__()
            s.a = tg.zeros(3)
            s.b = s.a

        def forward(s, x):
            s.a.add_(x)
            return s.b.sum()

    m = M()
    g = compile(m)
    yield g(ramp(3)), m.a, m.b
    yield g(ramp(3)), m.a, m.b
    m.b = m.b.clone()
    yield g(ramp(3)), m.a, m.b
    yield g(ramp(3)), m.a, m.b


@hazard
def numpy_view_of_a_parameter(compile):
    m = linear()
    opt = tg.optim.SGD(m.parameters(), lr=0.1)
    g = train_step(compile, m, opt)
    g(ramp(2, 3))
    a = m.weight.detach().numpy()
    yield a.copy()
    g(ramp(2, 3))
    yield a.copy(), m.weight
    a[:] = 1
    yield g(ramp(2, 3)), m.weight, a.copy()


@hazard
def detached_parameter_held(compile):
    m = linear()
    opt = tg.optim.Adam(m.parameters(), lr=0.1)
    g = train_step(compile, m, opt)
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
def buffers_swapped(compile):
    a, b = tg.zeros(3), tg.ones(3)

    def f(x):
        t = a.clone()
        a.copy_(b)
        b.copy_(t + x)
        return a + b

    g = compile(f)
    for _ in range(4):
        yield g(ramp(3)), a, b
