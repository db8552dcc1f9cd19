"""Modules: modes, submodules, hooks, buffers, and the settings around them."""

import tracegrad as tg
from tests.runtime.hazards.registry import Scaled, hazard, linear
from tests.runtime.programs import ramp


@hazard
def module_attribute_changed(compile):
    m = Scaled()
    g = compile(m)
    x = ramp(2, 3)
    yield g(x)
    m.scale = 3.0
    yield g(x)
    m.scale = tg.tensor(4.0)
    yield g(x)
    del m.scale
    m.scale = 1.0
    yield g(x)


@hazard
def train_and_eval(compile):
    m = tg.nn.Sequential(tg.nn.Linear(3, 4), tg.nn.BatchNorm1d(4), tg.nn.ReLU(), tg.nn.Dropout(0.5))
    g = compile(m)
    x = ramp(6, 3)
    for training in (True, True, False, False, True, False):
        m.train(training)
        yield g(x)
        yield m[1].running_mean, m[1].num_batches_tracked


@hazard
def train_and_eval_inside_a_function(compile):
    m = tg.nn.Sequential(tg.nn.Linear(3, 4), tg.nn.Dropout(0.5))

    def f(x):
        return m(x)

    g = compile(f)
    x = ramp(6, 3)
    yield g(x)
    m.eval()
    yield g(x)
    m.train()
    yield g(x)
    m[1].eval()
    yield g(x)


@hazard
def dropout_probability_changed(compile):
    m = tg.nn.Dropout(0.5)
    g = compile(m)
    x = ramp(40)
    yield g(x)
    m.p = 0.9
    yield g(x)
    m.p = 0.0
    yield g(x)


@hazard
def batch_norm_momentum_changed(compile):
    m = tg.nn.BatchNorm1d(3)
    g = compile(m)
    yield g(ramp(5, 3)), m.running_mean
    m.momentum = 0.5
    yield g(ramp(5, 3)), m.running_mean
    m.eps = 1.0
    yield g(ramp(5, 3)), m.running_var


@hazard
def submodule_replaced(compile):
    m = tg.nn.Sequential(tg.nn.Linear(3, 3), tg.nn.Tanh())
    g = compile(m)
    yield g(ramp(2, 3))
    m[1] = tg.nn.ReLU()
    yield g(ramp(2, 3))
    m.append(tg.nn.Linear(3, 2))
    yield g(ramp(2, 3))
    m[0] = tg.nn.Linear(3, 3, bias=False)
    yield g(ramp(2, 3))


@hazard
def submodule_in_a_plain_list_replaced(compile):
    layers = [tg.nn.Linear(3, 3), tg.nn.Linear(3, 3)]

    def f(x):
        for layer in layers:
            x = layer(x)
        return x

    g = compile(f)
    yield g(ramp(2, 3))
    layers.pop()
    yield g(ramp(2, 3))
    layers[0] = tg.nn.Linear(3, 2)
    yield g(ramp(2, 3))


@hazard
def forward_hook_added_and_removed(compile):
    m = tg.nn.Linear(3, 3)
    g = compile(m)
    yield g(ramp(2, 3))
    handle = m.register_forward_hook(lambda module, args, output: output * 2)
    yield g(ramp(2, 3))
    handle.remove()
    yield g(ramp(2, 3))


@hazard
def forward_replaced_on_an_instance(compile):
    m = tg.nn.Linear(3, 3)
    g = compile(m)
    yield g(ramp(2, 3))
    m.forward = lambda x: x * 5
    yield g(ramp(2, 3))


@hazard
def gradient_mode_changed(compile):
    m = tg.nn.Linear(3, 3)
    g = compile(lambda x: m(x).requires_grad)
    yield g(ramp(2, 3))
    with tg.no_grad():
        yield g(ramp(2, 3))
    yield g(ramp(2, 3))


@hazard
def default_dtype_changed(compile):
    g = compile(lambda x: tg.ones(3))
    yield g(ramp(3))
    tg.set_default_dtype(tg.float64)
    try:
        yield g(ramp(3))
    finally:
        tg.set_default_dtype(tg.float32)


@hazard
def type_of_a_submodule_changes(compile):
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
def length_of_a_module_list(compile):
    m = tg.nn.ModuleDict({"a": tg.nn.Linear(3, 3)})
    g = compile(lambda x: x * len(m) + ("b" in m))
    yield g(ramp(2, 3))
    m["b"] = tg.nn.ReLU()
    yield g(ramp(2, 3))


@hazard
def parameter_list(compile):
    ps = tg.nn.ParameterList([tg.nn.Parameter(ramp(3))])
    g = compile(lambda x: sum((q * x for q in ps), start=x * 0))
    yield g(ramp(3))
    ps.append(tg.nn.Parameter(ramp(3)))
    yield g(ramp(3))


@hazard
def running_statistics_switched_off(compile):
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
def training_flag_set_by_hand(compile):
    m = tg.nn.Sequential(linear(), tg.nn.Dropout(0.5))
    g = compile(lambda x: m(x))
    with tg.inference_mode():
        yield g(ramp(2, 3)), g(ramp(2, 3)).requires_grad
    yield g(ramp(2, 3)).requires_grad


@hazard
def module_called_with_keywords(compile):
    class M(tg.nn.Module):
        def forward(s, x, *, scale=1.0, mask=None):
            return x * scale if mask is None else x * mask

    g = compile(M())
    yield g(ramp(3)), g(ramp(3), scale=2.0), g(ramp(3), mask=ramp(3)), g(x=ramp(3))


@hazard
def plain_attribute_assigned_in_forward(compile):
    class Keeping(tg.nn.Module):
        def __init__(self):
            super().__init__()
            self.kept = None

        def forward(self, x):
            y = x * 2
            self.kept = y.detach()
            return y

    m = Keeping()
    g = compile(m)
    for k in range(3):
        yield g(ramp(3, start=float(k))), m.kept


@hazard
def buffer_of_a_module(compile):
    class Counting(tg.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", tg.zeros(()))
            self.register_buffer("last", tg.zeros(3))

        def forward(self, x):
            self.count += 1
            self.last = x * 2
            return x * self.count

    m = Counting()
    g = compile(m)
    for k in range(4):
        yield g(ramp(3, start=float(k))), m.count, m.last
    m.count.zero_()
    yield g(ramp(3)), m.count
    m.count = tg.full((), 10.0)
    yield g(ramp(3)), m.count


@hazard
def batch_norm_buffers(compile):
    m = tg.nn.BatchNorm1d(3)
    g = compile(lambda x: m(x).sum())
    for k in range(4):
        yield g(ramp(5, 3) * (k + 1)), m.running_mean, m.running_var, m.num_batches_tracked
    m.reset_running_stats()
    yield g(ramp(5, 3)), m.running_mean


@hazard
def evaluation_after_training(compile):
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
def weight_normalised_in_forward(compile):
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
def layer_made_inside(compile):
    def f(x):
        l = tg.nn.Linear(3, 2)
        return l(x)

    g = compile(f)
    yield g(ramp(2, 3)), g(ramp(2, 3)), tg.rand(2)


@hazard
def iteration_over_a_parameter_dict(compile):
    pd = tg.nn.ParameterDict({"a": tg.nn.Parameter(ramp(3))})
    g = compile(lambda x: sum(v.sum() for v in pd.values()) * x)
    yield g(ramp(3))
    pd["b"] = tg.nn.Parameter(ramp(2))
    yield g(ramp(3))


@hazard
def embedding_with_padding(compile):
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
