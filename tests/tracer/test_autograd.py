"""The tape and the compiled gradient against PyTorch: every way to ask for a gradient."""

import numpy as np
import pytest
import torch

import tracegrad as tg

BOTH = pytest.mark.parametrize("lib", [tg, torch], ids=["tracegrad", "torch"])
ERRORS = (RuntimeError, tg.TracegradError)


def leaf(lib, values, grad=True):
    array = np.asarray(values, np.float64)
    result = lib.tensor(array)
    return result.requires_grad_() if grad else result


def plain(value):
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (tg.Tensor, torch.Tensor)):
        return np.array(value.detach().numpy())
    return value


def equal(mine, theirs):
    if isinstance(theirs, list):
        assert len(mine) == len(theirs)
        for a, b in zip(mine, theirs):
            equal(a, b)
    elif isinstance(theirs, np.ndarray):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)
    else:
        assert mine == theirs


CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def f(lib, x):
    return lib.sin(x) * x * x + lib.exp(x * 0.5) / (1.0 + x * x)


@case
def grad_of_several_inputs(lib):
    x, y = leaf(lib, [0.3, 0.7]), leaf(lib, [1.0, -2.0])
    return lib.autograd.grad((x * y + lib.sin(y)).sum(), [x, y]), x.grad, y.grad


@case
def grad_with_cotangents_of_several_outputs(lib):
    x = leaf(lib, [0.3, 0.7])
    weights = [leaf(lib, [1.0, 2.0], False), leaf(lib, [-1.0, 0.5], False)]
    return lib.autograd.grad([lib.sin(x), x * x], [x], weights)


@case
def third_order(lib):
    x = leaf(lib, [0.3, 0.7, -1.2])
    total = f(lib, x).sum()
    found = []
    for _ in range(3):
        (g,) = lib.autograd.grad(total, [x], create_graph=True)
        found.append(g)
        total = (g * g).sum()
    return found


@case
def second_order_through_a_matrix_product(lib):
    x, w = leaf(lib, [[0.3, 0.7], [0.1, -0.4]]), leaf(lib, [[1.0, 2.0], [3.0, 4.0]])
    (g,) = lib.autograd.grad(lib.tanh(x @ w).sum(), [x], create_graph=True)
    (g * g).sum().backward()
    return x.grad, w.grad


@case
def backward_with_create_graph(lib):
    x = leaf(lib, [0.3, 0.7])
    (g,) = lib.autograd.grad((x * x * x).sum(), [x], create_graph=True)
    assert g.requires_grad
    g.sum().backward()
    return g, x.grad


@case
def gradients_accumulate(lib):
    x = leaf(lib, [0.3, 0.7])
    (x * x).sum().backward()
    held = x.grad
    (x * 3.0).sum().backward()
    assert held is x.grad
    return x.grad


@case
def retained_graph(lib):
    x = leaf(lib, [0.3, 0.7])
    loss = f(lib, x).sum()
    loss.backward(retain_graph=True)
    loss.backward()
    return x.grad


@case
def freed_graph(lib):
    x = leaf(lib, [0.3, 0.7])
    loss = f(lib, x).sum()
    loss.backward()
    with pytest.raises(ERRORS, match="second time"):
        loss.backward()
    return x.grad


@case
def shared_part_freed(lib):
    x = leaf(lib, [0.3, 0.7])
    shared = lib.sin(x)
    (shared * shared).sum().backward()
    with pytest.raises(ERRORS, match="second time"):
        (shared * 2.0).sum().backward()
    return x.grad


@case
def hooks(lib):
    x = leaf(lib, [0.3, 0.7])
    y = x * x
    seen = []
    first = y.register_hook(lambda g: seen.append(plain(g)))
    y.register_hook(lambda g: g * 10.0)
    x.register_hook(lambda g: g + 1.0)
    (y * 3.0).sum().backward(retain_graph=True)
    first.remove()
    (y * 3.0).sum().backward()
    return seen, x.grad


@case
def hooks_under_create_graph(lib):
    x = leaf(lib, [0.3, 0.7])
    y = x * x
    y.register_hook(lambda g: g * g)
    (g,) = lib.autograd.grad((y * y).sum(), [x], create_graph=True)
    g.sum().backward()
    return g, x.grad


@case
def retained_gradient(lib):
    x = leaf(lib, [0.3, 0.7])
    y = x * x
    y.retain_grad()
    (y * y).sum().backward()
    return y.grad, x.grad


@case
def no_grad_and_enable_grad(lib):
    x = leaf(lib, [0.3, 0.7])
    with lib.no_grad():
        a = x * x
        with lib.enable_grad():
            b = x * 3.0
    with lib.set_grad_enabled(False):
        c = x * 5.0
    total = (x * a + b + c).sum()
    total.backward()
    return x.grad, [a.requires_grad, b.requires_grad, c.requires_grad, total.requires_grad]


@case
def detached(lib):
    x = leaf(lib, [0.3, 0.7])
    y = x * x
    (y.detach() * y).sum().backward()
    return x.grad


@case
def unused_input(lib):
    x, y = leaf(lib, [0.3]), leaf(lib, [0.7])
    with pytest.raises(ERRORS):
        lib.autograd.grad((x * x).sum(), [x, y])
    return lib.autograd.grad((x * x).sum(), [x, y], allow_unused=True)


@case
def refused_roots(lib):
    x = leaf(lib, [0.3, 0.7])
    for make in (lambda: x * x, lambda: (x * x).detach().sum()):
        with pytest.raises(ERRORS):
            make().backward()
    with pytest.raises(ERRORS):
        leaf(lib, [1.0], False).sum().backward()
    return x.grad


@case
def backward_to_chosen_inputs(lib):
    x, y = leaf(lib, [0.3]), leaf(lib, [0.7])
    (x * y * y).sum().backward(inputs=[y])
    return x.grad, y.grad


@case
def several_results(lib):
    x = leaf(lib, [[0.3, 0.9], [0.7, -0.1]])
    a, b = x.unbind(0)
    values, _ = x.max(dim=1)
    (a * b).sum().backward(retain_graph=True)
    (values * b).sum().backward()
    return x.grad


@case
def diamond(lib):
    x = leaf(lib, [0.3, 0.7])
    y = x
    for _ in range(30):
        y = y * 0.5 + y * 0.4
    y.sum().backward()
    return x.grad


@case
def leaf_is_the_root(lib):
    x = leaf(lib, 2.0)
    x.backward()
    return x.grad


def cube(lib):
    class Cube(lib.autograd.Function):
        @staticmethod
        def forward(ctx, x, power):
            ctx.save_for_backward(x)
            ctx.power = power
            return x**power

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * ctx.power * x ** (
                ctx.power - 1
            ) * 1.25, None  # wrong on purpose: it must be used

    return Cube


@case
def custom_function(lib):
    x = leaf(lib, [0.3, 0.7])
    cube(lib).apply(x * 2.0, 3).sum().backward()
    return x.grad


@case
def custom_function_twice_differentiated(lib):
    x = leaf(lib, [0.3, 0.7])
    (g,) = lib.autograd.grad(cube(lib).apply(x, 3).sum(), [x], create_graph=True)
    g.sum().backward()
    return g, x.grad


@case
def custom_function_of_two_results(lib):
    class Both(lib.autograd.Function):
        @staticmethod
        def forward(ctx, x, y):
            ctx.save_for_backward(x, y)
            return x * y, x + y

        @staticmethod
        def backward(ctx, a, b):
            x, y = ctx.saved_tensors
            assert ctx.needs_input_grad == (True, False)
            return a * y + b, None

    x, y = leaf(lib, [0.3, 0.7]), leaf(lib, [2.0, 3.0], False)
    a, b = Both.apply(x, y)
    (a * 2.0 + b).sum().backward(retain_graph=True)
    b.sum().backward()
    return x.grad


@pytest.mark.parametrize("name", CASES)
def test_eager_equals_pytorch(name):
    theirs = plain(CASES[name](torch))
    for _ in range(3):  # interpreted, compiled at the second sighting, compiled
        equal(plain(CASES[name](tg)), theirs)


# -- the compiled tape -----------------------------------------------------------------


def test_second_and_third_sighting_equal_the_first():
    from tracegrad.tracer import compiled_backward

    rng = np.random.default_rng(0)
    w = leaf(tg, rng.standard_normal((4, 4)))
    weights = rng.standard_normal((3, 5, 4))
    for values in weights:
        gradients = []
        for round in range(3):
            before = len(compiled_backward._compiled)
            x = leaf(tg, values)
            hidden = tg.tanh(x @ w) * 1.7 + x.sum(dim=0)
            parts = hidden.unbind(0)
            tg.softmax(hidden * parts[1], dim=-1).max(dim=1)[0].sum().backward()
            gradients.append((plain(x.grad), plain(w.grad)))
            w.grad = None
            if round == 0 and values is weights[0]:
                assert len(compiled_backward._compiled) == before
        for a, b in gradients[1:]:
            np.testing.assert_allclose(a, gradients[0][0], rtol=1e-12)
            np.testing.assert_allclose(b, gradients[0][1], rtol=1e-12)


def test_python_numbers_are_no_part_of_the_structure():
    for k in range(5):
        x = leaf(tg, [0.5, 2.0])
        (x * float(k) + (x * x) * 0.5).sum().backward()
        np.testing.assert_allclose(plain(x.grad), np.array([0.5, 2.0]) + k)


@pytest.mark.parametrize("sighting", ["interpreted", "recording"])
def test_a_long_chain_does_not_recurse(sighting):
    x = leaf(tg, [1.0])
    y = x
    for _ in range(20_000):
        y = y + x
    if sighting == "recording":
        (g,) = tg.autograd.grad(y.sum(), [x], create_graph=True)
    else:
        y.sum().backward()
        g = x.grad
    assert plain(g) == [20_001.0]
    del y, g  # dropping the chain must not recurse either


# -- through compiled functions --------------------------------------------------------

BACKENDS = pytest.mark.parametrize("backend", ["numpy", "jax"])


@BACKENDS
@pytest.mark.parametrize("name", ["custom_function", "custom_function_of_two_results", "detached",
    "no_grad_and_enable_grad", "third_order", "retained_graph", "freed_graph", "retained_gradient",
    "backward_to_chosen_inputs", "several_results", "second_order_through_a_matrix_product",
    "custom_function_twice_differentiated", "grad_of_several_inputs", "unused_input"])  # fmt: skip
def test_recorded_equals_pytorch(name, backend):
    theirs = plain(CASES[name](torch))
    run = tg.compile(lambda: CASES[name](tg), backend=backend)
    for _ in range(2):
        equal(plain(run()), theirs)


@BACKENDS
def test_gradients_of_gradients_through_a_compiled_function(backend):
    def answers(lib, function):
        x, w = leaf(lib, [0.3, 0.7]), leaf(lib, [1.1, -0.4])
        (g,) = lib.autograd.grad(function(x * 2.0, w).sum(), [x], create_graph=True)
        (h,) = lib.autograd.grad((g * g).sum(), [x], create_graph=True)
        (h * w).sum().backward()
        return plain([g, h, x.grad, w.grad])

    run = tg.compile(lambda x, w: f(tg, x) * w, backend=backend)
    theirs = answers(torch, lambda x, w: f(torch, x) * w)
    for _ in range(2):
        equal(answers(tg, run), theirs)


@BACKENDS
def test_several_calls_alive_at_once(backend):
    w = leaf(tg, [1.0, 2.0])
    run = tg.compile(lambda x: (tg.sin(x * w), x * x), backend=backend)
    xs = [leaf(tg, [0.1 * k, 1.0]) for k in range(4)]
    results = [run(x) for x in xs]
    for a, b in reversed(results):
        (a * b).sum().backward()
    v = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    ys = [leaf(torch, [0.1 * k, 1.0]) for k in range(4)]
    for y in ys:
        (torch.sin(y * v) * y * y).sum().backward()
    equal(plain([w.grad, *(x.grad for x in xs)]), plain([v.grad, *(y.grad for y in ys)]))


@BACKENDS
def test_a_compiled_result_keeps_the_gradient_of_its_time(backend):
    """A parameter written after the call: the gradient is that of the values the call used."""
    w = leaf(tg, [1.0, 2.0])
    run = tg.compile(lambda x: w * w * x, backend=backend)
    for _ in range(3):
        w.grad = None
        used = plain(w)
        result = run(leaf(tg, [3.0, 4.0], False))
        with tg.no_grad():
            w.mul_(5.0)
        result.sum().backward()
        np.testing.assert_allclose(plain(w.grad), 2 * used * np.array([3.0, 4.0]))


class Net(tg.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = tg.nn.Linear(4, 6)
        self.norm = tg.nn.BatchNorm1d(6)
        self.drop = tg.nn.Dropout(0.5)
        self.last = tg.nn.Linear(6, 2)

    def forward(self, x):
        return self.last(self.drop(tg.relu(self.norm(self.first(x)))))


@BACKENDS
def test_a_compiled_model_with_the_backward_outside(backend):
    x = tg.tensor(np.random.default_rng(1).standard_normal((8, 4)).astype(np.float32))

    def history(compile):
        tg.manual_seed(3)
        model = Net()
        call = tg.compile(model, backend=backend) if compile else model
        optimizer = tg.optim.SGD(model.parameters(), lr=0.1)
        found = []
        for k in range(6):
            model.train(k not in (2, 5))
            optimizer.zero_grad()
            loss = (call(x) ** 2).mean()
            loss.backward()
            found += [loss, *(p.grad for p in model.parameters())]
            found = plain(found)
            optimizer.step()
        return found + plain([model.norm.running_mean, model.norm.running_var, *model.parameters()])

    for mine, eager in zip(history(True), history(False), strict=True):
        np.testing.assert_allclose(mine, eager, rtol=2e-4, atol=1e-6)


def old_value_read(y, z):
    """The gradient reads what the same call then overwrites."""
    loss = (y * y).sum()
    with tg.no_grad():
        y.mul_(5.0)
    return loss


def leaf_written_first(y, z):
    with tg.no_grad():
        y.mul_(5.0)
    return (y * y).sum()


def argument_written_with_gradients(y, z):
    z.add_(y * 0.5)
    return (z * z).sum() + tg.sin(z).sum()


def argument_read_around_a_write(y, z):
    first = y * z
    z.mul_(3.0)
    return (y * 2.0 * z).sum() + first.sum()


@BACKENDS
@pytest.mark.parametrize("function", [old_value_read, leaf_written_first,
    argument_written_with_gradients, argument_read_around_a_write])  # fmt: skip
def test_a_compiled_call_that_overwrites_what_its_gradient_reads(function, backend):
    def history(call):
        y = leaf(tg, [1.0, 2.0])
        found = []
        for _ in range(3):
            z = leaf(tg, [3.0, 4.0], False)
            y.grad = None
            call(y, z).backward(retain_graph=True)
            found += plain([y, y.grad, z]) + [z.requires_grad]
            if z.requires_grad:  # written state has a history of its own afterwards
                y.grad = None
                z.sum().backward()
                found.append(plain(y.grad))
        return found

    equal(history(tg.compile(function, backend=backend)), history(function))
