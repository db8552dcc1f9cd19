"""The tape against PyTorch: what backward gives, what it refuses, hooks, gradients of gradients, custom functions."""

import numpy as np
import pytest
import torch

import tracegrad as tg
from tracegrad.tracer import backward as backward_module
from tracegrad.tracer import compiled_backward

BACKENDS = ["eager", "numpy", "jax"]
RNG = np.random.default_rng(3)


def pair(*shape, grad=True):
    """The same random leaf for us and for PyTorch, in float64."""
    array = RNG.uniform(0.2, 1.5, shape)
    return tg.tensor(array.copy()).requires_grad_(grad), torch.tensor(array.copy()).requires_grad_(grad)


def close(mine, theirs, tolerance=1e-9):
    if theirs is None:
        assert mine is None
        return
    assert tuple(mine.shape) == tuple(theirs.shape)
    np.testing.assert_allclose(
        mine.detach().numpy(), theirs.detach().numpy(), rtol=tolerance, atol=tolerance
    )


def both(program, *leaves, repeat=3):
    """Run `program(library, *leaves)` in both libraries; the repetitions reach the compiled backward."""
    for _ in range(repeat):
        for mine, theirs in leaves:
            mine.grad = theirs.grad = None
        ours = program(tg, *(mine for mine, _ in leaves))
        other = program(torch, *(theirs for _, theirs in leaves))
        assert len(ours) == len(other)
        for a, b in zip(ours, other):
            if isinstance(b, torch.Tensor) or b is None:
                close(a, b)
            else:
                assert a == b
        for mine, theirs in leaves:
            close(mine.grad, theirs.grad)


# -- backward() and grad() --------------------------------------------------------------------------------------


def test_backward_accumulates():
    def program(lib, x, w):
        for k in range(3):
            (x @ w * (k + 1)).sin().sum().backward()
        return []

    both(program, pair(2, 3), pair(3, 4))


def test_a_leaf_used_many_times():
    def program(lib, x):
        y = x * x + x.exp() * x - x / (x + 1)
        y.sum().backward()
        return []

    both(program, pair(5))


def test_scalars_and_shapes_are_not_confused_by_the_compiled_backward():
    """One structure, other Python numbers and other values: one compiled gradient, right each time."""
    x, tx = pair(4)
    for k in (2.0, 3.5, -1.0, 0.0):
        for mine, theirs in ((x, tx),):
            mine.grad = theirs.grad = None
        ((x * k + 1.5) ** 2).sum().backward()
        ((tx * k + 1.5) ** 2).sum().backward()
        close(x.grad, tx.grad)


def test_backward_with_a_cotangent():
    def program(lib, x):
        ct = lib.arange(3.0, dtype=lib.float64)
        (x**3).backward(ct)
        return []

    both(program, pair(3))


def test_several_roots():
    def program(lib, x):
        a, b = x.sin().sum(), (x * x).sum()
        lib.autograd.backward([a, b, a], [None, lib.tensor(2.0, dtype=lib.float64), None])
        return []

    both(program, pair(3))


def test_grad_leaves_grad_alone():
    def program(lib, x, w):
        y = (x * w).tanh().sum()
        return [*lib.autograd.grad(y, [w, x]), x.grad, w.grad]

    both(program, pair(3), pair(3))


def test_grad_of_an_intermediate():
    def program(lib, x):
        h = x.exp()
        y = (h * h).sum()
        return list(lib.autograd.grad(y, [h, x]))

    both(program, pair(3))


def test_grad_of_several_outputs_with_weights():
    def program(lib, x):
        a, b = x.exp(), x.sum()
        weights = [lib.ones(3, dtype=lib.float64) * 2, lib.tensor(3.0, dtype=lib.float64)]
        return list(lib.autograd.grad([a, b], x, weights))

    both(program, pair(3))


def test_unused_inputs():
    def program(lib, x, w):
        with pytest.raises(RuntimeError):
            lib.autograd.grad((x * 2).sum(), [x, w])
        return list(lib.autograd.grad((x * 2).sum(), [x, w], allow_unused=True))

    both(program, pair(3), pair(3))


def test_backward_into_some_inputs_only():
    def program(lib, x, w):
        (x * w).sum().backward(inputs=[w])
        return []

    both(program, pair(3), pair(3))


def test_second_backward_is_refused_unless_retained():
    def program(lib, x):
        y = (x.exp() * x).sum()
        y.backward(retain_graph=True)
        y.backward()
        with pytest.raises(RuntimeError, match="second time"):
            y.backward()
        return []

    both(program, pair(3))


def test_second_backward_through_a_shared_part():
    def program(lib, x):
        h = x.exp()
        a, b = h.sum(), (h * h).sum()
        a.backward()
        with pytest.raises(RuntimeError, match="second time"):
            b.backward()
        return []

    both(program, pair(3))


def test_refusals():
    def program(lib, x):
        found = []
        for attempt in (
            lambda: (x.detach() * 2).sum().backward(),
            lambda: (x * 2).backward(),
            lambda: lib.autograd.grad((x * 2).sum(), x.detach()),
            lambda: (x * 2).backward(lib.ones(5, dtype=lib.float64)),
            lambda: (x * 2).requires_grad_(False),
            lambda: lib.arange(3).requires_grad_(),
            lambda: setattr(x, "grad", lib.ones(7, dtype=lib.float64)),
        ):
            with pytest.raises(RuntimeError):
                attempt()
            found.append(True)
        return found

    both(program, pair(3))


def test_no_grad_detach_and_set_grad_enabled():
    def program(lib, x):
        with lib.no_grad():
            a = x * 3
        b = x.detach() * x
        with lib.set_grad_enabled(False):
            c = x.exp()
            with lib.enable_grad():
                d = x.sin()
        (a * x + b + c * d).sum().backward()
        return [a.requires_grad, b.requires_grad, c.requires_grad, d.requires_grad]

    both(program, pair(3))


def test_several_results_of_one_op():
    def program(lib, x):
        values, _ = x.sort(dim=1)
        top = x.max(dim=0)
        a, b = x.chunk(2, dim=1)
        (values[:, 0] * 2 + top.values[:3] + a.sum(1) * b.prod(1)).sum().backward()
        return []

    both(program, pair(3, 4))


def test_deep_chains_do_not_recurse():
    def program(lib, x):
        y = x
        for _ in range(3000):
            y = y * 0.999 + 0.001
        y.sum().backward()
        return []

    both(program, pair(2), repeat=2)


def test_leaf_memory_is_not_shared_by_gradients():
    a, b = tg.ones(3).requires_grad_(), tg.ones(3).requires_grad_()
    for _ in range(3):
        a.grad = b.grad = None
        (a + b).sum().backward()
        a.grad.mul_(5)
        assert (b.grad == 1).all()


def test_gradients_of_expanded_and_broadcast_operands():
    def program(lib, x, w):
        (x.expand(4, 3) * w + x).sum().backward()
        return []

    both(program, pair(3), pair(4, 1))


# -- gradients of gradients -------------------------------------------------------------------------------------


def test_create_graph_to_third_order():
    def program(lib, x):
        y = (x**4).sum() + (x.sin() * x).sum()
        (first,) = lib.autograd.grad(y, x, create_graph=True)
        (second,) = lib.autograd.grad(first.sum(), x, create_graph=True)
        (third,) = lib.autograd.grad(second.sum(), x)
        return [first, second, third]

    both(program, pair(3))


def test_gradient_penalty():
    def program(lib, x, w):
        y = (x @ w).tanh().sum()
        (g,) = lib.autograd.grad(y, x, create_graph=True)
        (y + (g * g).sum()).backward()
        return []

    both(program, pair(2, 3), pair(3, 2))


@pytest.mark.filterwarnings("ignore:Using backward:UserWarning")
def test_backward_with_create_graph_keeps_history():
    def program(lib, x):
        (x**3).sum().backward(create_graph=True)
        first = x.grad
        x.grad = None
        (first * first).sum().backward()
        return [first]

    both(program, pair(3))


# -- hooks ------------------------------------------------------------------------------------------------------


def test_hooks_see_and_replace_gradients():
    def program(lib, x):
        seen = []
        h = x.exp()
        h.register_hook(lambda g: seen.append(g.clone()))
        h.register_hook(lambda g: g * 2)
        handle = x.register_hook(lambda g: seen.append(g.clone()))
        (h * h).sum().backward(retain_graph=True)
        handle.remove()
        (h * h).sum().backward()
        return seen

    both(program, pair(3))


def test_retain_grad():
    def program(lib, x):
        h = x * 2
        h.retain_grad()
        x.retain_grad()  # nothing to do for a leaf
        (h * h).sum().backward()
        return [h.grad, h.retains_grad if hasattr(h, "retains_grad") else True]

    both(program, pair(3))


def test_non_leaf_grad_is_none():
    x, _ = pair(3)
    h = x * 2
    (h * h).sum().backward()
    assert h.grad is None


# -- custom functions -------------------------------------------------------------------------------------------


def square_function(lib):
    class Square(lib.autograd.Function):
        @staticmethod
        def forward(ctx, x, scale):
            ctx.save_for_backward(x)
            ctx.scale = scale
            return x * x * scale

        @staticmethod
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            return gradient * 2 * x * ctx.scale, None

    return Square.apply


def straight_through(lib):
    class Straight(lib.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.round()

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    return Straight.apply


def two_results(lib):
    class Two(lib.autograd.Function):
        @staticmethod
        def forward(ctx, a, b):
            ctx.save_for_backward(a, b)
            return a * b, a + b

        @staticmethod
        def backward(ctx, first, second):
            a, b = ctx.saved_tensors
            return first * b + second, first * a + second

    return Two.apply


def test_custom_function():
    both(lambda lib, x: [square_function(lib)(x, 3.0).sum().backward(), x.requires_grad], pair(4))


def test_straight_through_estimator():
    def program(lib, x):
        (straight_through(lib)(x) * x).sum().backward()
        return []

    both(program, pair(4))


def test_custom_function_of_two_results():
    def program(lib, a, b):
        p, s = two_results(lib)(a, b)
        (p * s).sum().backward()
        return [p, s]

    both(program, pair(3), pair(3))


def test_custom_function_with_one_result_unused():
    def program(lib, a, b):
        p, _ = two_results(lib)(a, b)
        p.sum().backward()
        return []

    both(program, pair(3), pair(3))


def test_second_order_through_a_custom_function():
    def program(lib, x):
        y = square_function(lib)(x, 2.0).sin().sum()
        (g,) = lib.autograd.grad(y, x, create_graph=True)
        g.sum().backward()
        return [g]

    both(program, pair(3))


def test_custom_function_with_wrong_number_of_gradients():
    class Wrong(tg.autograd.Function):
        @staticmethod
        def forward(ctx, a, b):
            return a * b

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    a, b = pair(2)[0], pair(2)[0]
    with pytest.raises(tg.errors.ArgumentError, match="1 gradients for 2 arguments"):
        Wrong.apply(a, b).sum().backward()


@pytest.mark.parametrize("backend", ["numpy", "jax"])
def test_custom_functions_compiled(backend):
    x, tx = pair(4)
    square, straight = square_function(tg), straight_through(tg)

    def f(x):
        return (straight(square(x, 3.0)) * x).sum()

    def step(x):
        x.grad = None
        loss = f(x)
        loss.backward()
        return loss

    other = (straight_through(torch)(square_function(torch)(tx, 3.0)) * tx).sum()
    other.backward()
    inside = tg.compile(step, backend=backend, keep_grads=True)
    outside = tg.compile(f, backend=backend)
    for _ in range(2):
        close(inside(x), other, 1e-6)
        close(x.grad, tx.grad, 1e-6)
        x.grad = None
        loss = outside(x)
        loss.backward()
        close(x.grad, tx.grad, 1e-6)


# -- the compiled backward --------------------------------------------------------------------------------------


def test_second_sighting_is_compiled_and_equal(monkeypatch):
    calls = []
    original = compiled_backward.CompiledBackward.__call__
    monkeypatch.setattr(
        compiled_backward.CompiledBackward,
        "__call__",
        lambda self, *rest: (calls.append(1), original(self, *rest))[1],
    )
    w1, w2, x = (tg.tensor(RNG.standard_normal(s)) for s in ((7, 5), (5, 3), (4, 7)))
    w1.requires_grad_(), w2.requires_grad_()
    found = []
    for _ in range(3):
        w1.grad = w2.grad = None
        h = (x @ w1).relu()
        loss = ((h @ w2).softmax(1).log() * (h.sum(1, keepdim=True) + 1.7)).mean()
        loss.backward()
        found.append((w1.grad.numpy().copy(), w2.grad.numpy().copy()))
    assert len(calls) == 2
    for a, b in found[1:]:
        np.testing.assert_allclose(a, found[0][0], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(b, found[0][1], rtol=1e-12, atol=1e-14)


def test_compiled_backward_does_not_keep_gradients_alive_or_shared():
    x, _ = pair(3)
    kept = []
    for _ in range(4):
        x.grad = None
        (x * x).sum().backward()
        kept.append(x.grad)
    for g in kept:
        np.testing.assert_allclose(g.numpy(), 2 * x.detach().numpy())
    kept[-1].zero_()
    np.testing.assert_allclose(kept[-2].numpy(), 2 * x.detach().numpy())


def test_hooks_bypass_the_compiled_backward():
    assert backward_module._hooks is not None
    x, tx = pair(3)
    for _ in range(3):
        x.grad = tx.grad = None
        for leaf in (x, tx):
            h = leaf * 2
            h.register_hook(lambda g: g * 10)
            (h * leaf).sum().backward()
        close(x.grad, tx.grad)


# -- compiled functions under an outer tape ---------------------------------------------------------------------


def models(lib):
    return lib.nn.Sequential(
        lib.nn.Linear(3, 8), lib.nn.BatchNorm1d(8), lib.nn.ReLU(), lib.nn.Linear(8, 2)
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_loss_backward_outside_a_compiled_model(backend):
    mine, theirs = models(tg), models(torch)
    mine.load_state_dict({k: tg.tensor(v.numpy().copy()) for k, v in theirs.state_dict().items()})
    fast = tg.compile(mine, backend=backend)
    opt = tg.optim.SGD(mine.parameters(), lr=0.1, momentum=0.9)
    other = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    x = RNG.standard_normal((6, 3)).astype(np.float32)
    y = RNG.standard_normal((6, 2)).astype(np.float32)
    for _ in range(4):
        opt.zero_grad()
        other.zero_grad()
        a = ((fast(tg.tensor(x)) - tg.tensor(y)) ** 2).mean()
        b = ((theirs(torch.tensor(x)) - torch.tensor(y)) ** 2).mean()
        a.backward()
        b.backward()
        opt.step()
        other.step()
        close(a, b, 1e-4)
    for (name, v), (_, t) in zip(mine.state_dict().items(), theirs.state_dict().items()):
        if name != "0.bias":  # its gradient is zero up to rounding: batch norm subtracts it
            close(v, t, 2e-4)
    mine.eval(), theirs.eval()
    close(fast(tg.tensor(x)), theirs(torch.tensor(x)), 1e-3)


@pytest.mark.parametrize("backend", ["numpy", "jax"])
def test_dropout_outside_backward_uses_the_forward_mask(backend):
    layer = tg.nn.Dropout(0.5)
    fast = tg.compile(layer, backend=backend)
    x = tg.ones(200).requires_grad_()
    for seed in (1, 2):
        x.grad = None
        tg.manual_seed(seed)
        y = fast(x)
        y.sum().backward()
        np.testing.assert_array_equal(x.grad.numpy() != 0, y.detach().numpy() != 0)
        tg.manual_seed(seed)
        np.testing.assert_array_equal(layer(tg.ones(200)).numpy(), y.detach().numpy())


@pytest.mark.parametrize("backend", ["numpy", "jax"])
def test_gradient_of_a_gradient_through_a_compiled_function(backend):
    x, tx = pair(3)
    w, tw = pair(3)
    f = tg.compile(lambda x: (x**3 * w).sin(), backend=backend)
    for _ in range(2):
        x.grad = tx.grad = w.grad = tw.grad = None
        (g,) = tg.autograd.grad(f(x).sum(), x, create_graph=True)
        (t,) = torch.autograd.grad((tx**3 * tw).sin().sum(), tx, create_graph=True)
        close(g, t, 1e-6)
        (g * g).sum().backward()
        (t * t).sum().backward()
        close(x.grad, tx.grad, 1e-6)
        close(w.grad, tw.grad, 1e-6)


@pytest.mark.parametrize("backend", ["numpy", "jax"])
def test_compiled_function_in_the_middle_of_a_tape(backend):
    x, tx = pair(3)
    f = tg.compile(lambda a, b: (a * b, (a + b).exp()), backend=backend)
    for _ in range(3):
        x.grad = tx.grad = None
        h = x.sin()
        p, q = f(h, x)
        (p * q + h).sum().backward()
        th = tx.sin()
        (th * tx * (th + tx).exp() + th).sum().backward()
        close(x.grad, tx.grad, 1e-6)


@pytest.mark.parametrize("backend", ["numpy", "jax"])
def test_second_backward_through_a_compiled_function(backend):
    x, tx = pair(3)
    f = tg.compile(lambda a: a.exp().sum(), backend=backend)
    for _ in range(2):
        y = f(x)
        y.backward(retain_graph=True)
        y.backward()
        with pytest.raises(tg.errors.GradientError, match="second time"):
            y.backward()
    t = tx.exp().sum()
    for _ in range(4):
        t.backward(retain_graph=True)
    close(x.grad, tx.grad, 1e-6)


@pytest.mark.parametrize("backend", ["numpy", "jax"])
def test_parameter_updated_between_forward_and_backward(backend):
    """PyTorch stops here; the gradient of the values that forward used is computed."""
    w = tg.nn.Parameter(tg.full((3,), 2.0))
    f = tg.compile(lambda x: (w * w * x).sum(), backend=backend)
    f(tg.ones(3))
    loss = f(tg.ones(3))
    with tg.no_grad():
        w.mul_(100)
    loss.backward()
    np.testing.assert_allclose(w.grad.numpy(), np.full(3, 4.0))


@pytest.mark.parametrize("backend", ["numpy", "jax"])
def test_input_updated_between_forward_and_backward(backend):
    w = tg.nn.Parameter(tg.ones(3))
    x = tg.full((3,), 5.0)
    f = tg.compile(lambda x: (w * x).sum(), backend=backend)
    f(x)
    loss = f(x)
    x.zero_()
    loss.backward()
    np.testing.assert_allclose(w.grad.numpy(), np.full(3, 5.0))


@pytest.mark.parametrize("backend", ["numpy", "jax"])
def test_other_compiled_step_between_forward_and_backward(backend):
    """A compiled update writes parameters in place; what an earlier forward saved must not move."""
    w = tg.nn.Parameter(tg.full((3,), 2.0))
    forward = tg.compile(lambda x: (w * w * x).sum(), backend=backend)

    def update():
        with tg.no_grad():
            w.mul_(100)

    update = tg.compile(update, backend=backend)
    for _ in range(2):
        with tg.no_grad():
            w.fill_(2.0)
        w.grad = None
        loss = forward(tg.ones(3))
        eager = (w * w).sum()
        update()
        loss.backward()
        np.testing.assert_allclose(w.grad.numpy(), np.full(3, 4.0))
        w.grad = None
        eager.backward()
        np.testing.assert_allclose(w.grad.numpy(), np.full(3, 4.0))


@pytest.mark.parametrize("backend", ["numpy", "jax"])
def test_retain_grad_and_grad_inside_a_compiled_step(backend):
    x, tx = pair(3)

    def step(x):
        h = x * 2
        h.retain_grad()
        y = (h * h).sum()
        (first,) = tg.autograd.grad(y, x, create_graph=True)
        (first * first).sum().backward()
        return h.grad, first, x.grad

    f = tg.compile(step, backend=backend)
    th = tx * 2
    th.retain_grad()
    (first,) = torch.autograd.grad((th * th).sum(), tx, create_graph=True)
    (first * first).sum().backward()
    for _ in range(2):
        x.grad = None
        for a, b in zip(f(x), (th.grad, first, tx.grad)):
            close(a, b, 1e-6)


@pytest.mark.parametrize("backend", ["numpy", "jax"])
def test_errors_while_recording_are_those_of_eager(backend):
    def attempts(x):
        yield lambda: (x.detach() * 2).sum().backward()
        yield lambda: (x * 2).backward()
        yield lambda: tg.autograd.grad((x * 2).sum(), x.detach())

    x = tg.ones(3).requires_grad_()
    for k in range(3):
        f = tg.compile(lambda x, k: list(attempts(x))[k](), backend=backend)
        with pytest.raises(tg.errors.GradientError) as caught:
            f(x, k)
        assert "test_autograd.py" in str(caught.value)

    def twice(x):
        y = x.exp().sum()
        y.backward()
        y.backward()

    with pytest.raises(tg.errors.GradientError, match="second time"):
        tg.compile(twice, backend=backend)(x)
    assert x.grad is None


@pytest.mark.parametrize("backend", ["numpy", "jax"])
def test_backward_inside_reaching_outside_history_is_refused(backend):
    x = tg.ones(3).requires_grad_()
    f = tg.compile(lambda h: h.sum().backward(), backend=backend)
    with pytest.raises(tg.errors.GradientError, match="outside"):
        f(x * 2)


def test_no_grad_parts_stay_without_gradient_when_compiled():
    def program(x):
        with tg.no_grad():
            a = x * 3
        b = x.detach() * x
        return (a * x + b).sum()

    x, tx = pair(3)
    with torch.no_grad():
        a = tx * 3
    (a * tx + tx.detach() * tx).sum().backward()
    for backend in ("numpy", "jax"):
        f = tg.compile(program, backend=backend)
        for _ in range(2):
            x.grad = None
            f(x).backward()
            close(x.grad, tx.grad, 1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_detached_alias_with_a_gradient_of_its_own(backend):
    """Two histories on one buffer: the gradient goes to the one that was passed."""
    x = tg.ones(3).requires_grad_()
    y = x.detach().requires_grad_()
    f = tg.compile(lambda a: (a * a * 3).sum(), backend=backend)
    for _ in range(2):
        x.grad = y.grad = None
        f(y).backward()
        assert x.grad is None
        np.testing.assert_allclose(y.grad.numpy(), np.full(3, 6.0))
        y.grad = None
        f(x).backward()
        assert y.grad is None
        np.testing.assert_allclose(x.grad.numpy(), np.full(3, 6.0))


@pytest.mark.parametrize("backend", BACKENDS)
def test_view_arguments_carry_gradients_to_their_base(backend):
    base = tg.arange(6.0).requires_grad_()
    f = tg.compile(lambda a, b: (a * b).sum(), backend=backend)
    for _ in range(2):
        base.grad = None
        h = base * 2
        f(h[:3], h[3:]).backward()
        np.testing.assert_allclose(base.grad.numpy(), [12, 16, 20, 0, 4, 8])
        base.grad = None
        f(base[:3], base[1:4]).backward()
        np.testing.assert_allclose(base.grad.numpy(), [1, 2, 4, 2, 0, 0])
