"""More trace hazards, as in test_hazards.py: results, gradients and state equal eager."""

import enum
import functools
from collections import namedtuple

import numpy as np
import pytest

import tracegrad as tg
from tests.runtime.programs import BACKENDS, agree, ramp

HAZARDS = {}


def hazard(function):
    HAZARDS[function.__name__] = function
    return function


@hazard
def ema_function(compile):
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
def swap_params(compile):
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
def out_alias_state(compile):
    m = tg.nn.BatchNorm1d(3)
    g = compile(lambda x: (m(x), m.running_mean))
    a = g(ramp(4, 3))
    r = a[1]
    yield r
    g(ramp(4, 3) * 3)
    yield r, m.running_mean, r is m.running_mean


@hazard
def returned_param(compile):
    m = tg.nn.Linear(2, 2)
    g = compile(lambda x: m.weight)
    yield g(ramp(2)) is m.weight, g(ramp(2)) is m.weight
    g2 = compile(lambda x: [m.weight.data, m.weight.detach(), m.weight[0]])
    for _ in range(2):
        a, b, c = g2(ramp(2))
        a.zero_()
        yield m.weight, b, c
        with tg.no_grad():
            m.weight.add_(1)


@hazard
def arg_and_return_same(compile):
    g = compile(lambda x: x)
    x = ramp(3)
    y = ramp(3)
    yield g(x) is x, g(y) is y


@hazard
def arg_views_returned(compile):
    g = compile(lambda x: (x.t(), x.T is not None))
    x = ramp(2, 3)
    a, _ = g(x)
    b, _ = g(x)
    a[0, 0] = 100
    yield x, b


@hazard
def inplace_out_then_return(compile):
    def f(x):
        y = x.add_(1)
        return y

    g = compile(f)
    x = ramp(3)
    yield g(x) is x, x
    yield g(x) is x, x


@hazard
def grad_of_arg_accum(compile):
    def f(x):
        (x * x).sum().backward()

    g = compile(f)
    x = ramp(3).requires_grad_()
    y = ramp(3).requires_grad_()
    for t in (x, x, y, x, y, y):
        g(t)
        yield x.grad, y.grad


@hazard
def grad_clip(compile):
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
def detached_alias_state(compile):
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
def view_of_param_state(compile):
    w = tg.nn.Parameter(ramp(4))
    v = w.data[1:3]

    def f(x):
        v.mul_(2)
        return (w * x).sum()

    g = compile(f)
    for _ in range(3):
        yield g(ramp(4)), w, v


@hazard
def lambda_default_loop(compile):
    fs = [(lambda x, k=k: x * k) for k in (1.0, 2.0)]
    g = compile(lambda x: [f(x) for f in fs])
    yield g(ramp(3))
    fs.append(lambda x, k=5.0: x * k)
    yield g(ramp(3))


@hazard
def factory_closures(compile):
    def make(s):
        box = {"s": s}

        def inner(x):
            return x * box["s"]

        return inner, box

    a, ba = make(2.0)
    b, bb = make(3.0)
    reg = {"a": a, "b": b}

    def get(n):
        return reg[n]

    g = compile(lambda x: get("a")(x) + get("b")(x))
    yield g(ramp(3))
    bb["s"] = 10.0
    yield g(ramp(3))
    ba["s"] = 10.0
    yield g(ramp(3))


@hazard
def hidden_registry(compile):
    class Cfg:
        def __init__(self):
            self.k = 2.0

    @functools.lru_cache
    def cfg():
        return Cfg()

    g = compile(lambda x: x * cfg().k)
    cfg()
    yield g(ramp(3))
    cfg().k = 5.0
    yield g(ramp(3))


@hazard
def decorated(compile):
    scale = {"v": 2.0}

    def deco(fn):
        @functools.wraps(fn)
        def w(*a, **k):
            return fn(*a, **k) * scale["v"]

        return w

    @deco
    def h(x):
        return x + 1

    g = compile(lambda x: h(x))
    yield g(ramp(3))
    scale["v"] = 4.0
    yield g(ramp(3))


@hazard
def getattr_dynamic(compile):
    class C:
        pass

    c = C()
    c.a1 = 2.0
    c.a2 = 3.0
    n = 1
    g = compile(lambda x: x * getattr(c, f"a{n}"))
    yield g(ramp(3))
    n = 2
    yield g(ramp(3))
    c.a2 = 7.0
    yield g(ramp(3))


@hazard
def vars_dict(compile):
    class C:
        pass

    c = C()
    c.a = 2.0
    g = compile(lambda x: x * vars(c)["a"] + c.__dict__["a"])
    yield g(ramp(3))
    c.a = 5.0
    yield g(ramp(3))


@hazard
def dict_subclass(compile):
    class D(dict):
        def __getattr__(self, k):
            return self[k]

    d = D(a=2.0)
    g = compile(lambda x: x * d.a)
    yield g(ramp(3))
    d["a"] = 5.0
    yield g(ramp(3))


@hazard
def obj_getitem(compile):
    class D:
        def __init__(self):
            self._d = {"a": 2.0}

        def __getitem__(self, k):
            return self._d[k]

        def __len__(self):
            return len(self._d)

    d = D()
    g = compile(lambda x: x * d["a"] + len(d))
    yield g(ramp(3))
    d._d["a"] = 5.0
    yield g(ramp(3))
    d._d["b"] = 1
    yield g(ramp(3))


@hazard
def namedtuple_cfg(compile):
    T = namedtuple("T", "a b")
    t = T(1.0, [2.0])
    g = compile(lambda x: x * t.a + t.b[0])
    yield g(ramp(3))
    t.b[0] = 5.0
    yield g(ramp(3))
    t = T(3.0, [1.0])
    yield g(ramp(3))


@hazard
def hasattr_later(compile):
    m = tg.nn.Linear(3, 3)
    g = compile(lambda x: m(x) if not hasattr(m, "extra") else m(x) * m.extra)
    yield g(ramp(2, 3))
    m.extra = 5.0
    yield g(ramp(2, 3))
    del m.extra
    yield g(ramp(2, 3))


@hazard
def isinstance_type_changes(compile):
    m = tg.nn.ModuleList([tg.nn.Linear(3, 3)])

    def f(x):
        for l in m:
            x = l(x) if isinstance(l, tg.nn.Linear) else x
        return x

    g = compile(f)
    yield g(ramp(2, 3))
    m[0] = tg.nn.ReLU()
    yield g(ramp(2, 3))


@hazard
def module_len(compile):
    m = tg.nn.ModuleDict({"a": tg.nn.Linear(3, 3)})
    g = compile(lambda x: x * len(m) + ("b" in m))
    yield g(ramp(2, 3))
    m["b"] = tg.nn.ReLU()
    yield g(ramp(2, 3))


@hazard
def paramlist(compile):
    ps = tg.nn.ParameterList([tg.nn.Parameter(ramp(3))])
    g = compile(lambda x: sum((q * x for q in ps), start=x * 0))
    yield g(ramp(3))
    ps.append(tg.nn.Parameter(ramp(3)))
    yield g(ramp(3))


@hazard
def training_only_submodule(compile):
    m = tg.nn.Sequential(tg.nn.Linear(3, 3), tg.nn.BatchNorm1d(3))

    def step(x):
        return m(x)

    g = compile(step)
    yield g(ramp(4, 3)), m[1].running_mean
    m[1].eval()
    yield g(ramp(4, 3)), m[1].running_mean
    m[1].track_running_stats = False
    m[1].train()
    yield g(ramp(4, 3)), m[1].running_mean


@hazard
def lr_read(compile):
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
def warmup_in_step(compile):
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
def tensor_lr(compile):
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
def kwargs_order(compile):
    g = compile(lambda **k: list(k.items())[0][1] * 2)
    yield g(a=ramp(2), b=ramp(3))
    yield g(b=ramp(3), a=ramp(2))


@hazard
def dict_arg_order(compile):
    g = compile(lambda d: list(d.values())[0] * 2)
    yield g({"a": ramp(2), "b": ramp(2) * 5})
    yield g({"b": ramp(2) * 5, "a": ramp(2)})


@hazard
def arg_module_attr_store(compile):
    class M(tg.nn.Module):
        def __init__(s):
            super().__init__()
            s.seen = None

        def forward(s, x):
            s.seen = x.mean()
            return x

    a, b = M(), M()
    g = compile(lambda m, x: m(x))
    for k in range(2):
        yield g(a, ramp(3, start=float(k))), a.seen
        yield g(b, ramp(3, start=float(k))), b.seen


@hazard
def device_str_enum(compile):
    class E(enum.Enum):
        A = 1
        B = 2

    g = compile(lambda x, e: x * e.value)
    yield g(ramp(2), E.A), g(ramp(2), E.B)


@hazard
def float_nan_closure(compile):
    v = float("nan")
    g = compile(lambda x: x + v)
    yield g(ramp(2))
    v = 1.0
    yield g(ramp(2))
    v = float("nan")
    yield g(ramp(2))


@hazard
def default_dtype_in_branch(compile):
    g = compile(lambda x: tg.arange(3) * x.sum())
    yield g(ramp(3))
    yield g(ramp(3, dtype=tg.float64))


@hazard
def same_tensor_in_two_attrs(compile):
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
def generator_result(compile):
    g = compile(lambda x: tuple(x * k for k in range(3)))
    yield g(ramp(2))


@hazard
def int_args_many(compile):
    g = compile(lambda x, n: x * n)
    for n in range(25):
        yield g(ramp(2), n)


@hazard
def varying_shapes_many(compile):
    g = compile(lambda x: x.sum())
    for n in range(1, 25):
        yield g(ramp(n))


@hazard
def exception_type_arg(compile):
    def f(x):
        if x.shape[0] == 2:
            raise ValueError("two")
        return x

    g = compile(f)
    for n in (3, 2, 3, 2):
        try:
            yield g(ramp(n))
        except ValueError as e:
            yield e


@hazard
def state_written_then_raise(compile):
    c = tg.zeros(2)

    def f(x):
        c.add_(1)
        if x.sum() > 3:
            raise ValueError("big")
        return x

    g = compile(f)
    for k in (0, 5, 0, 5, 0):
        try:
            yield g(ramp(2, start=float(k)))
        except ValueError as e:
            yield e


@hazard
def numpy_scalar_closure(compile):
    s = np.float32(2)
    g = compile(lambda x: x * s)
    yield g(ramp(2))
    s = np.float32(3)
    yield g(ramp(2))
    s = np.float64(3)
    yield g(ramp(2))


@hazard
def torch_like_hidden(compile):
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
def nonlocal_hidden(compile):
    h = tg.zeros(3)

    def f(x):
        nonlocal h
        h = (h * 0.5 + x).detach()
        return h.sum()

    g = compile(f)
    for k in range(3):
        yield g(ramp(3, start=float(k))), h


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", HAZARDS)
def test_equals_eager(name, backend):
    agree(HAZARDS[name], backend)
