"""Results: their structure, what they share memory with, and what may be done with them."""

import dataclasses

import tracegrad as tg
from tests.runtime.hazards.registry import hazard
from tests.runtime.programs import ramp


@hazard
def non_tensor_outputs(compile):
    g = compile(lambda x, k: (x, k, "text", None, [1, 2.5], {"shape": tuple(x.shape)}))
    yield g(ramp(3), 1)
    yield g(ramp(4), 2)


@hazard
def mutable_output_is_fresh(compile):
    g = compile(lambda x: {"x": x, "list": [1, 2]})
    first = g(ramp(3))
    first["list"].append(3)
    first["new"] = 1
    yield g(ramp(3))


@hazard
def output_count_varies(compile):
    g = compile(lambda x, n: [x * k for k in range(n)])
    for n in (1, 3, 0, 2):
        yield g(ramp(3), n)


@hazard
def two_views_of_one_base(compile):
    def f(a, b):
        a.mul_(2)
        return a + b

    g = compile(f)
    base = ramp(6)
    yield g(base[:3], base[3:]), base
    yield g(base[:3], base[:3]), base
    yield g(base[0:4], base[2:6]), base
    other = ramp(6)
    yield g(base[:3], other[:3]), base, other


@hazard
def output_fed_back(compile):
    g = compile(lambda x: x * 0.5 + 1)
    x = ramp(3)
    for _ in range(5):
        x = g(x)
        yield x


@hazard
def several_outputs_fed_back(compile):
    g = compile(lambda h, c: (h + c, h * 0.9))
    h, c = ramp(3), ramp(3)
    for _ in range(4):
        h, c = g(h, c)
        yield h, c
    h, c = g(c, h)
    yield h, c


@hazard
def held_outputs_survive(compile):
    g = compile(lambda x: (x * 2, (x + 1).sum(), x.exp().reshape(-1)[1:]))
    held = [g(ramp(2, 2, start=float(k))) for k in range(4)]
    yield held


@hazard
def held_outputs_of_a_training_step_survive(compile):
    w = tg.nn.Parameter(ramp(3))
    opt = tg.optim.SGD([w], lr=0.1, momentum=0.9)

    def step(x):
        opt.zero_grad()
        y = (w * x).sin()
        loss = y.sum()
        loss.backward()
        before = w.detach().clone()
        opt.step()
        return loss, y, before

    g = compile(step)
    held = [g(ramp(3, start=float(k))) for k in range(4)]
    yield [tuple(part.detach() for part in parts) for parts in held]
    yield w


@hazard
def returned_state_is_live(compile):
    counter = tg.zeros(3)

    def f(x):
        counter.add_(x)
        return counter

    g = compile(f)
    first = g(ramp(3))
    yield first
    second = g(ramp(3))
    yield first, second, counter, first is counter or bool((first == counter).all())
    counter.zero_()
    yield first


@hazard
def returned_copy_of_state_is_not_live(compile):
    counter = tg.zeros(3)

    def f(x):
        counter.add_(x)
        return counter.clone(), counter + 0, counter * 1

    g = compile(f)
    first = g(ramp(3))
    g(ramp(3))
    yield first


@hazard
def returned_input_is_the_input(compile):
    g = compile(lambda x: (x, x[1:], x.view(-1)))
    x = ramp(3)
    a, b, c = g(x)
    x.add_(1)
    yield a, b, c
    b.mul_(0)
    yield x, a
    a, b, c = g(x)
    c.add_(2)
    yield x, a, b


@hazard
def output_views_share_memory(compile):
    def f(x):
        y = x * 2
        return y, y[1:]

    g = compile(f)
    for _ in range(2):
        y, tail = g(ramp(3))
        tail.zero_()
        yield y


@hazard
def output_written_afterwards(compile):
    g = compile(lambda x: x * 2)
    first = g(ramp(3))
    first.add_(100)
    yield g(ramp(3)), first
    alias = first.numpy()
    alias[0] = -1
    yield g(ramp(3)), first


@hazard
def constant_output_written_afterwards(compile):
    g = compile(lambda x: (tg.zeros(3), tg.ones(2, 2), tg.tensor([1.0, 2.0])))
    for _ in range(3):
        a, b, c = g(ramp(3))
        a.add_(1)
        b.add_(1)
        c.add_(1)
        yield a, b, c


@hazard
def returned_parameter(compile):
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
def argument_returned(compile):
    g = compile(lambda x: x)
    x = ramp(3)
    y = ramp(3)
    yield g(x) is x, g(y) is y


@hazard
def views_of_an_argument_returned(compile):
    g = compile(lambda x: (x.t(), x.T is not None))
    x = ramp(2, 3)
    a, _ = g(x)
    b, _ = g(x)
    a[0, 0] = 100
    yield x, b


@hazard
def written_argument_returned(compile):
    def f(x):
        y = x.add_(1)
        return y

    g = compile(f)
    x = ramp(3)
    yield g(x) is x, x
    yield g(x) is x, x


@hazard
def generator_consumed_inside(compile):
    g = compile(lambda x: tuple(x * k for k in range(3)))
    yield g(ramp(2))


@hazard
def result_that_aliases_state(compile):
    m = tg.nn.BatchNorm1d(3)
    g = compile(lambda x: (m(x), m.running_mean))
    a = g(ramp(4, 3))
    r = a[1]
    yield r
    g(ramp(4, 3) * 3)
    yield r, m.running_mean, r is m.running_mean


@hazard
def requires_grad_of_results(compile):
    w = tg.nn.Parameter(ramp(3))
    g = compile(lambda x: (w * x, (w * x).detach(), x * 2, w.sum() > 0))
    for _ in range(2):
        yield [t.requires_grad for t in g(ramp(3))], [t.is_leaf for t in g(ramp(3))]


@hazard
def result_written_before_backward(compile):
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
def view_of_a_result_before_backward(compile):
    w = tg.nn.Parameter(ramp(6, start=1.0))
    g = compile(lambda x: (w * x).view(2, 3)[1:].t())
    for _ in range(2):
        w.grad = None
        y = g(ramp(6))
        (y * y).sum().backward()
        yield w.grad, y


@hazard
def new_objects_that_hold_tensors(compile):
    """Of plain classes and dataclasses, inside each other, one found twice."""

    @dataclasses.dataclass(frozen=True)
    class Output:
        loss: tg.Tensor
        extra: dict
        step: int = 3

    class Wrapper:
        pass

    def forward(x):
        outer = Wrapper()
        outer.inner = Output(x.sum(), {"a": [x * 2, None]})
        outer.again, outer.number = outer.inner, x.sum().item()
        return outer, [outer.inner]

    g = compile(forward)
    kept = []
    for k in range(3):
        outer, (inner,) = g(ramp(3, start=float(k)))
        kept.append(outer)
        yield outer.inner is inner is outer.again, type(inner) is Output, outer.number, inner.step
    yield [(o.inner.loss, o.inner.extra) for o in kept]


@hazard
def objects_of_a_module_that_hold_gradients(compile):
    class Output:
        def __init__(self, loss):
            self.loss = loss

    w = tg.nn.Parameter(ramp(3, start=1.0))
    g = compile(lambda x: Output((w * x).sum()))
    for _ in range(2):
        w.grad = None
        g(ramp(3)).loss.backward()
        yield w.grad
