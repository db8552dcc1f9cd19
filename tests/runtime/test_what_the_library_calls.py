"""Functions of the user's that the library calls (hooks, custom gradients, transforms, properties):
what they read is watched, what they change is not lost, as if the step had called them itself.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import pytest

import tracegrad as tg
from tests.runtime.programs import BACKENDS
from tracegrad import nn

Step = Callable[[tg.Tensor], tg.Tensor]


class Config:
    def __init__(self) -> None:
        self.scale = 1.0
        self.calls = 0


def gradient_of(weight: tg.Tensor) -> Step:
    def step(x: tg.Tensor) -> tg.Tensor:
        weight.grad = None
        (weight * x).sum().backward()
        return weight.grad.clone()

    return step


def leaf() -> tg.Tensor:
    return tg.ones(2, requires_grad=True)


def hook(config: Config) -> Step:
    weight = leaf()
    weight.register_hook(lambda g: g * config.scale)
    return gradient_of(weight)


def hook_after_accumulating(config: Config) -> Step:
    weight = leaf()
    weight.register_post_accumulate_grad_hook(lambda p: p.grad.mul_(config.scale))
    return gradient_of(weight)


class Scaling:
    def __init__(self, config: Config):
        self.config = config

    def __call__(self, g: tg.Tensor) -> tg.Tensor:
        return g * self.config.scale

    def method(self, g: tg.Tensor) -> tg.Tensor:
        return g * self.config.scale


def object_as_a_hook(config: Config) -> Step:
    weight = leaf()
    weight.register_hook(Scaling(config))
    return gradient_of(weight)


def method_as_a_hook(config: Config) -> Step:
    weight = leaf()
    weight.register_hook(Scaling(config).method)
    return gradient_of(weight)


def scaled(config: Config, g: tg.Tensor) -> tg.Tensor:
    return g * config.scale


def partial_as_a_hook(config: Config) -> Step:
    weight = leaf()
    weight.register_hook(functools.partial(scaled, config))
    return gradient_of(weight)


def default_of_a_hook(config: Config) -> Step:
    weight = leaf()
    weight.register_hook(lambda g, config=config: g * config.scale)
    return gradient_of(weight)


def custom_gradient(config: Config) -> Step:
    class Reversed(tg.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: tg.Tensor) -> tg.Tensor:
            return x.view_as(x)

        @staticmethod
        def backward(ctx: Any, g: tg.Tensor) -> tg.Tensor:
            return -config.scale * g

    weight = leaf()

    def step(x: tg.Tensor) -> tg.Tensor:
        weight.grad = None
        Reversed.apply(weight * x).sum().backward()
        return weight.grad.clone()

    return step


def vmap_made_before(config: Config) -> Step:
    function = tg.vmap(lambda row: row * config.scale)
    return lambda x: function(x)


def gradient_made_before(config: Config) -> Step:
    function = tg.func.grad(lambda x: (x * x).sum() * config.scale)
    return lambda x: function(x)


def getter(config: Config) -> Step:
    class Model(nn.Module):
        @property
        def scale(self) -> float:
            return config.scale

        def forward(self, x: tg.Tensor) -> tg.Tensor:
            return x * self.scale

    return Model()


def context_manager(config: Config) -> Step:
    @contextlib.contextmanager
    def scale() -> Any:
        yield config.scale

    def step(x: tg.Tensor) -> tg.Tensor:
        with scale() as factor:
            return x * factor

    return step


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "program",
    [
        hook, hook_after_accumulating, object_as_a_hook, method_as_a_hook, partial_as_a_hook,
        default_of_a_hook, custom_gradient, vmap_made_before, gradient_made_before, getter,
        context_manager,
    ],
)  # fmt: skip
def test_what_it_reads_is_noticed(program: Callable[[Config], Step], backend: str) -> None:
    results: list[list[float]] = []
    for compiled in (False, True):
        config = Config()
        step = program(config)
        if compiled:
            step = tg.compile(step, backend=backend, fullgraph=True)
        for scale in (1.0, 2.0, 2.0, 3.0):
            config.scale = scale
            results.append(step(tg.tensor([1.0, 2.0])).tolist())
        if compiled:
            assert step.stats()["recordings"] == 3  # type: ignore[attr-defined]
    assert results[:4] == results[4:]


class Counting:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self, g: tg.Tensor) -> None:
        self.count += 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_it_changes_is_changed_at_every_call(backend: str) -> None:
    """A name bound anew and an attribute are set again by every replay."""
    weight, count, counting = leaf(), 0, Counting()

    def hook(g: tg.Tensor) -> None:
        nonlocal count
        count += 1

    weight.register_hook(hook)
    weight.register_hook(counting)
    step = tg.compile(gradient_of(weight), backend=backend)
    for _ in range(3):
        step(tg.ones(2))
    assert count == counting.count == 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_list_that_it_fills_ends_in_eager_calls(backend: str) -> None:
    weight, norms = leaf(), []
    weight.register_hook(lambda g: norms.append(g.norm().item()))
    step = tg.compile(gradient_of(weight), backend=backend)
    with pytest.warns(UserWarning, match="norms, a list from outside, is changed"):
        step(tg.ones(2))
    for _ in range(2):
        step(tg.ones(2))
    assert norms == [pytest.approx(2**0.5)] * 3


def test_objects_that_have_every_attribute_are_not_followed() -> None:
    """As those that stand in for others in tests do."""

    class Endless:
        def __getattr__(self, name: str) -> Endless:
            return Endless()

    class Model(nn.Module):
        def forward(self, x: tg.Tensor) -> tg.Tensor:
            return x * 2

    Model.other = Endless()  # type: ignore[attr-defined]
    Model.forward, run = Endless(), Model.forward  # type: ignore[assignment, method-assign]
    step = tg.compile(lambda x: run(model, x), backend="numpy")
    model = Model()
    assert step(tg.ones(2)).tolist() == [2.0, 2.0]
