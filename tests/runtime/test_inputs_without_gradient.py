"""A compiled call is linked to the history of the inputs that gradients flow to, and to no other."""

import gc
import weakref

import pytest

import tracegrad as tg
import tracegrad.nn.functional as F
from tracegrad import nn
from tracegrad.tracer.errors import GradientError


def uses_detached(x, h):
    return x * 2 + h.detach() * h.shape[0]


def uses_under_no_grad(x, h):
    with tg.no_grad():
        scale = h.abs().max()
    return x * scale


def compares(x, h):
    return tg.where(h > 0, x, -x)


@pytest.mark.parametrize("function", [uses_detached, uses_under_no_grad, compares])
def test_the_history_of_such_an_input_is_left_alone(function, backend):
    compiled = tg.compile(function, backend=backend, fullgraph=True)
    grads = []
    for call in (function, compiled):
        x, leaf = (tg.tensor([1.0, -2.0], requires_grad=True) for _ in range(2))
        h = leaf * 3
        call(x, h).sum().backward()
        assert leaf.grad is None
        h.sum().backward()
        grads.append([x.grad.tolist(), leaf.grad.tolist()])
    assert grads[0] == grads[1]


def test_its_history_is_not_kept_alive(backend):
    step = tg.compile(lambda x, h: (h.detach() * 0.5 + x * w).tanh(), backend=backend)
    w = tg.ones(2, requires_grad=True)
    h, seen = tg.zeros(2), []
    for _ in range(4):
        h = step(tg.ones(2), h)
        seen.append(weakref.ref(h._entry))
    gc.collect()
    assert [entry() is not None for entry in seen] == [False, False, False, True]


def test_a_state_detached_inside(backend):
    """Truncated backpropagation through time, as it is usually written."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.out = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x, state):
            y, state = self.rnn(x, tuple(t.detach() for t in state))
            return self.out(y), state

    losses = []
    for compiled in (False, True):
        tg.manual_seed(0)
        model = Model()
        optimizer = tg.optim.SGD(model.parameters(), lr=0.5)
        call = tg.compile(model, backend=backend) if compiled else model
        state = (tg.zeros(1, 2, 4), tg.zeros(1, 2, 4))
        for _ in range(5):
            y, state = call(tg.randn(2, 5, 3), state)
            optimizer.zero_grad()
            loss = y.square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[5:] == pytest.approx(losses[:5], rel=1e-5)


def test_a_discriminator_that_detaches_inside(backend):
    found = []
    for compiled in (False, True):
        tg.manual_seed(1)
        generator, critic = nn.Linear(2, 3), nn.Linear(3, 1)
        optimizers = [tg.optim.SGD(m.parameters(), lr=0.1) for m in (generator, critic)]

        def loss_of(real, fake, critic=critic):
            return F.softplus(critic(fake.detach())).mean() + F.softplus(-critic(real)).mean()

        call = tg.compile(loss_of, backend=backend) if compiled else loss_of
        for _ in range(3):
            fake = generator(tg.ones(4, 2))
            optimizers[1].zero_grad()
            call(tg.ones(4, 3), fake).backward()
            optimizers[1].step()
            optimizers[0].zero_grad()
            F.softplus(-critic(fake)).mean().backward()
            optimizers[0].step()
        found.append([p.detach().numpy() for p in (*generator.parameters(), *critic.parameters())])
    for a, b in zip(*found, strict=True):
        assert a == pytest.approx(b, rel=1e-5)


def test_results_apart_are_walked_backwards_each_for_itself(backend):
    """An actor's and a critic's loss of one call; results that share nothing."""
    actor, critic = nn.Linear(3, 2), nn.Linear(3, 1)

    def losses(x, h):
        return actor(x).square().mean(), critic(x).tanh().mean(), h * 2

    found = []
    for call in (losses, tg.compile(losses, backend=backend, fullgraph=True)):
        leaf = tg.ones(3, requires_grad=True)
        h = leaf * 3
        x = tg.arange(6.0).reshape(2, 3)
        first, second, third = call(x, h)
        second.backward()
        first.backward()
        h.sum().backward()
        found.append([p.grad.tolist() for p in (*actor.parameters(), *critic.parameters(), leaf)])
        with pytest.raises(GradientError):
            third.sum().backward()
        for p in (*actor.parameters(), *critic.parameters()):
            p.grad = None
    for a, b in zip(*found, strict=True):
        assert tg.allclose(tg.tensor(a), tg.tensor(b))


def test_the_gradient_computes_no_layer_anew(backend):
    """What it reads of several-result ops is kept, as of others: no layer runs in the backward again."""
    layer, norm = nn.LSTM(3, 4), nn.LayerNorm(4)
    call = tg.compile(lambda x: norm(layer(x)[0]).topk(2).values, backend=backend)
    call(tg.randn(5, 2, 3)).sum().backward()
    programs = [
        lowered for kept in call._compiler._cache.values() for lowered in kept.values()
        if lowered.graph.name.startswith("vjp")
    ]  # fmt: skip
    (backward,) = programs
    assert not {"lstm", "layer_norm", "topk"} & {node.op.name for node in backward.graph.nodes}


def test_a_retained_gradient_of_a_result_that_was_walked_concerns_nobody_else(backend):
    call = tg.compile(lambda x: ((x * 2).sin(), (x * 2).cos()), backend=backend)
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    y, z = call(x)
    y.retain_grad()
    (y.sum() + z.sum()).backward()
    assert y.grad.tolist() == [1.0, 1.0]
    (x * 3).sum().backward()


def test_results_with_a_value_in_common_are_walked_together(backend):
    w = tg.ones(3, requires_grad=True)
    call = tg.compile(lambda x: ((x * w).tanh(), (x * w).tanh().exp()), backend=backend)
    first, second = call(tg.ones(3))
    (first.sum() + second.sum()).backward()
    both, w.grad = w.grad, None
    first, second = call(tg.ones(3))
    first.sum().backward(retain_graph=True)
    second.sum().backward()
    assert tg.allclose(both, w.grad)
