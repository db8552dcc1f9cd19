"""Numbers under attributes that change at every call, and attributes set to what they were."""

import numbers

import tracegrad as tg
from tests.runtime.hazards.registry import hazard
from tests.runtime.programs import ramp


class Counting:
    def __init__(self, **fields):
        vars(self).update(fields)


@hazard
def counter_in_a_module(compile):
    class Module(tg.nn.Module):
        def __init__(self):
            super().__init__()
            self.count = 0

        def forward(self, x):
            self.count += 1
            return x * self.count

    m = Module()
    g = compile(m)
    for k in range(9):
        yield g(ramp(3)), m.count
        if k == 6:
            m.count = 100


@hazard
def counter_beside_tensors_in_self(compile):
    class Moving:
        def __init__(self):
            self.mean, self.count = ramp(3), 0

        def scale(self, x):
            self.count += 1
            return x * self.count + self.mean

    Moving.scale = compile(Moving.scale)
    o = Moving()
    for _ in range(7):
        yield o.scale(ramp(3)), o.count


@hazard
def number_that_is_annealed(compile):
    o = Counting(temperature=2.0, rate=0.9, seen=[])

    @compile
    def f(x):
        y = (x / o.temperature).softmax(0)
        o.temperature = max(o.temperature * o.rate, 1.5)
        return y

    for k in range(8):
        yield f(ramp(4)), o.temperature
        o.rate = 0.9 - 0.01 * k


@hazard
def counter_that_branches(compile):
    o = Counting(step=0)

    @compile
    def f(x):
        o.step += 1
        if o.step % 4 == 0:
            x = x + 10
        return x * 2 if o.step > 6 else x

    for _ in range(12):
        yield f(ramp(3)), o.step


@hazard
def counter_that_is_asked_what_it_is(compile):
    o = Counting(step=0, total=0.0)

    @compile
    def f(x):
        o.step, o.total = o.step + 1, o.total + 0.5
        match o.step:
            case int():
                x = x + 1
        kinds = isinstance(o.step, int), isinstance(o.total, float), isinstance(o.step, float)
        return x * o.total, kinds, isinstance(o.total, numbers.Real)

    for _ in range(5):
        yield f(ramp(3)), o.step, o.total


@hazard
def number_of_a_tensor_that_is_asked_what_it_is(compile):
    @compile
    def f(x):
        total, count, holds = x.sum().item(), (x > 0).sum().item(), (x.sum() > 0).item()
        y = x * 2 if isinstance(total, float) and not isinstance(total, int) else x * 3
        y = y + count if isinstance(count, int) and not isinstance(count, bool) else y
        return y - 1 if isinstance(holds, bool) else y

    for k in range(4):
        yield f(ramp(3) + k)


@hazard
def divisor_that_becomes_zero(compile):
    o = Counting(count=5, total=2.0)

    @compile
    def f(x):
        o.count -= 1
        return x * (o.total / o.count)

    for _ in range(7):
        try:
            yield f(ramp(3)), o.count
        except ZeroDivisionError as error:
            yield error
            o.count = 0  # a compiled call that fails has changed nothing


@hazard
def attribute_that_is_set_to_what_it_was(compile):
    class Stopper:
        def __init__(self):
            self.best, self.bad = tg.tensor(9.0), 0

        def update(self, loss):
            if loss < self.best:
                self.best, self.bad = loss, 0
            else:
                self.bad += 1

    s = Stopper()
    f = compile(lambda x: s.update(x.sum()))
    for value in (5.0, 7.0, 8.0, 3.0, 2.0, 4.0, 1.0):
        f(tg.tensor([value]))
        yield s.bad, s.best.item()


@hazard
def mode_that_a_step_sets_itself(compile):
    model = tg.nn.Sequential(tg.nn.Linear(2, 2), tg.nn.BatchNorm1d(2))
    opt = tg.optim.SGD(model.parameters(), 0.1)

    @compile
    def train_step(x):
        model.train()
        opt.zero_grad()
        loss = model(x).pow(2).sum()
        loss.backward()
        opt.step()
        return loss

    @compile
    def evaluate(x):
        model.eval()
        y = model(x)
        model.train()
        return y

    x = ramp(6).reshape(3, 2)
    for k in range(4):
        yield train_step(x), [m.training for m in model.modules()]
        if k % 2:
            model.eval()
        yield evaluate(x), [m.training for m in model.modules()]
        model[1].eval()


@hazard
def gradients_that_a_step_switches(compile):
    for switch in (
        lambda w: w.requires_grad_(False),
        lambda w: setattr(w, "requires_grad", False),
        lambda w: w.requires_grad_(not w.requires_grad),
    ):
        w = tg.nn.Parameter(ramp(3))

        def f(x, w=w, switch=switch):
            y = (w * x).sum() if w.requires_grad else x.sum() * 10
            switch(w)
            return y

        g = compile(f)
        for _ in range(4):
            yield g(ramp(3)), w.requires_grad
        w.requires_grad_(True)
        yield g(ramp(3)), w.requires_grad


@hazard
def model_that_is_frozen_by_a_step(compile):
    model, head = tg.nn.Linear(3, 3), tg.nn.Linear(3, 1)

    @compile
    def f(x):
        free = sum(p.requires_grad for p in model.parameters())
        loss = head(model(x)).sum() * (1 + free)
        model.requires_grad_(False)
        loss.backward()
        return loss, free

    for _ in range(3):
        yield f(ramp(6).reshape(2, 3)), [p.requires_grad for p in model.parameters()]
        yield [
            None if p.grad is None else p.grad for p in (*model.parameters(), *head.parameters())
        ]


@hazard
def hook_that_a_step_registers_itself(compile):
    """The library counts its hooks: these numbers are keys."""
    layer = tg.nn.Linear(3, 3)

    @compile
    def f(x):
        handle = layer.register_forward_hook(lambda module, args, output: output + 1)
        y = layer(x)
        handle.remove()
        return y

    for _ in range(3):
        yield f(ramp(3))
