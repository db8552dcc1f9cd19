"""A gradient that a compiled step has kept to itself is unknown, and so is every sum with it."""

import pytest

import tracegrad as tg
from tracegrad import nn
from tracegrad.errors import DroppedGradientError


def layer_and_step(backend):
    layer = nn.Linear(3, 1, bias=False)
    optimiser = tg.optim.SGD(layer.parameters(), lr=0.1)

    def step(x):
        optimiser.zero_grad()
        loss = layer(x).sum()
        loss.backward()
        optimiser.step()
        return loss

    return layer, optimiser, tg.compile(step, backend=backend)


def test_an_eager_backward_adds_to_it_in_vain(backend):
    layer, optimiser, step = layer_and_step(backend)
    step(tg.ones(4, 3))
    layer(tg.ones(4, 3)).sum().backward()  # PyTorch: 8, of both
    with pytest.raises(DroppedGradientError):
        layer.weight.grad  # noqa: B018
    with pytest.raises(DroppedGradientError):
        optimiser.step()
    optimiser.zero_grad()
    layer(tg.ones(4, 3)).sum().backward()
    assert layer.weight.grad.tolist() == [[4.0, 4.0, 4.0]]


def test_another_compiled_function_adds_to_it_in_vain(backend):
    layer, _, step = layer_and_step(backend)

    @tg.compile(backend=backend)
    def further(x):
        layer(x).sum().backward()

    further(tg.ones(4, 3))
    assert layer.weight.grad.tolist() == [[4.0, 4.0, 4.0]]
    step(tg.ones(4, 3))
    for _ in range(2):
        further(tg.ones(4, 3))
        with pytest.raises(DroppedGradientError):
            layer.weight.grad  # noqa: B018
    layer.weight.grad = None
    further(tg.ones(4, 3))
    assert layer.weight.grad.tolist() == [[4.0, 4.0, 4.0]]


def test_two_steps_that_reach_each_others_parameters(backend):
    """As a generator's step reaches the discriminator: its own step clears what came of it."""

    def losses(compile_):
        tg.manual_seed(0)
        first, second = nn.Linear(3, 3), nn.Linear(3, 1)

        def step_of(layer):
            optimiser = tg.optim.SGD(layer.parameters(), lr=0.1)

            def step(x):
                optimiser.zero_grad()
                loss = second(first(x)).mean()
                loss.backward()
                optimiser.step()
                return loss

            return compile_(step)

        steps = [step_of(first), step_of(second)]
        found = [step(tg.ones(4, 3)).item() for _ in range(4) for step in steps]
        return found, [step.stats()["compiles"] for step in steps if hasattr(step, "stats")]

    eager, _ = losses(lambda step: step)
    compiled, compiles = losses(lambda step: tg.compile(step, backend=backend))
    assert compiled == pytest.approx(eager, rel=1e-5)
    assert compiles in ([1, 1], [2, 1])  # the first may meet gradients that nobody has dropped yet


def test_a_sum_with_it_is_not_read_by_a_compiled_step(backend):
    layer, optimiser, step = layer_and_step(backend)
    step(tg.ones(4, 3))

    @tg.compile(backend=backend)
    def accumulating(x):
        layer(x).sum().backward()
        optimiser.step()

    before = layer.weight.tolist()
    with pytest.raises(DroppedGradientError):
        accumulating(tg.ones(4, 3))
    assert layer.weight.tolist() == before


def test_of_an_argument(backend):
    @tg.compile(backend=backend)
    def drops(x):
        x.grad = None
        (x * 2).sum().backward()

    @tg.compile(backend=backend)
    def adds(x):
        (x * 3).sum().backward()

    x = tg.ones(2, requires_grad=True)
    adds(x)
    assert x.grad.tolist() == [3.0, 3.0]
    drops(x)
    adds(x)
    with pytest.raises(DroppedGradientError):
        x.grad  # noqa: B018
