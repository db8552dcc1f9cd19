"""A step called again and again takes the short way; anything unusual is noticed all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import tracegrad as tg

pytest.importorskip("jax")


class World:
    """A step that updates two parameters, eager or compiled, and what it depends on."""

    def __init__(self, compiled: bool):
        self.first = tg.nn.Parameter(tg.tensor([1.0, 2.0, 3.0]))
        self.second = tg.nn.Parameter(tg.tensor([0.5]))
        self.optimizer = tg.optim.SGD([self.first, self.second], lr=0.1)
        self.scale = 2.0
        self.step = tg.compile(self.work, backend="jax") if compiled else self.work

    def work(self, x: tg.Tensor, y: tg.Tensor, power: int = 1) -> tg.Tensor:
        self.optimizer.zero_grad()
        loss = ((self.first * x - y) ** 2).sum() * self.scale * power + self.second.sum()
        if tg.is_grad_enabled():
            loss.backward()
            self.optimizer.step()
        return loss

    def state(self) -> list[Any]:
        return [self.first.tolist(), self.second.tolist()]


def data(seed: float = 1.0, n: int = 3, dtype: Any = None) -> tuple[tg.Tensor, tg.Tensor]:
    x = (tg.arange(n, dtype=tg.float32) * 0.25 + seed).to(dtype or tg.float32)
    return x, x * 0.5


def again(world: World) -> Any:
    return world.step(*data(2.0))


def new_scale(world: World) -> Any:
    world.scale = 3.0
    return world.step(*data())


def new_rate(world: World) -> Any:
    world.optimizer.param_groups[0]["lr"] = 0.01
    return world.step(*data())


def another_shape(world: World) -> Any:
    return world.step(*data(n=1))


def another_dtype(world: World) -> Any:
    return world.step(*data(dtype=tg.float64))


def without_gradients(world: World) -> Any:
    with tg.no_grad():
        return world.step(*data())


def by_keyword(world: World) -> Any:
    x, y = data()
    return world.step(x, y=y)


def one_more(world: World) -> Any:
    return world.step(*data(), 2)


def one_tensor_twice(world: World) -> Any:
    x, _ = data()
    return world.step(x, x)


def a_parameter_as_argument(world: World) -> Any:
    return world.step(world.first, data()[1])


def an_argument_with_history(world: World) -> Any:
    x, y = data()
    x.requires_grad_()
    product = x * 1.0
    with tg.no_grad():
        loss = world.step(product, y)
    product.sum().backward()
    return loss, x.grad


def a_leaf(world: World) -> Any:
    x, y = data()
    x.requires_grad_()
    loss = world.step(x, y)
    return loss, x.grad


def a_view(world: World) -> Any:
    x, y = data(n=6)
    return world.step(x[::2], y[3:])


def a_number(world: World) -> Any:
    return world.step(1.5, data()[1])


def a_parameter_written(world: World) -> Any:
    with tg.no_grad():
        world.first.mul_(2.0)
    return world.step(*data())


def a_parameter_seen(world: World) -> Any:
    seen = world.first.detach().numpy().copy()
    loss = world.step(*data())
    return loss, tg.tensor(seen)


def a_parameter_frozen(world: World) -> Any:
    world.second.requires_grad_(False)
    return world.step(*data())


def a_parameter_replaced(world: World) -> Any:
    world.first = tg.nn.Parameter(tg.tensor([3.0, 2.0, 1.0]))
    return world.step(*data())


def parameters_that_share(world: World) -> Any:
    world.second.data = world.first.data
    return world.step(*data())


VARIATIONS = [
    again, new_scale, new_rate, another_shape, another_dtype, without_gradients, by_keyword, one_more,
    one_tensor_twice, a_parameter_as_argument, an_argument_with_history, a_leaf, a_view, a_number,
    a_parameter_written, a_parameter_seen, a_parameter_frozen, a_parameter_replaced, parameters_that_share,
]  # fmt: skip


def values(result: Any) -> list[Any]:
    parts = result if isinstance(result, tuple) else (result,)
    return [part.tolist() if part is not None else None for part in parts]


def flat(nested: Any) -> list[Any]:
    if isinstance(nested, list):
        return [number for part in nested for number in flat(part)]
    return [nested]


@pytest.mark.parametrize("vary", VARIATIONS, ids=lambda vary: vary.__name__)
def test_whatever_is_unusual_is_noticed(vary: Callable[[World], Any]) -> None:
    eager, compiled = World(compiled=False), World(compiled=True)
    for seed in range(5):
        for world in (eager, compiled):
            world.step(*data(float(seed)))
    assert compiled.step._usual is not None
    calls = compiled.step._calls
    for k in range(3):  # before, at and after the variation
        act = vary if k == 1 else again
        wanted, actual = act(eager), act(compiled)
        assert flat(values(actual)) == pytest.approx(flat(values(wanted)), rel=1e-5)
        assert flat(compiled.state()) == pytest.approx(flat(eager.state()), rel=1e-5)
    assert compiled.step._calls == calls + 3


def test_the_short_way_is_taken() -> None:
    world = World(compiled=True)
    for _ in range(5):
        world.step(*data())
    world.step._forest.trees.clear()  # nothing to look a call up in
    for _ in range(3):
        world.step(*data())
    assert not world.step._forest.trees and world.step.stats()["compiles"] == 1


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"])
def test_the_short_way_is_open_to_every_optimizer(name: str) -> None:
    def train(compiled: bool) -> tuple[Any, list[Any]]:
        tg.manual_seed(0)
        model = tg.nn.Sequential(tg.nn.Linear(4, 8), tg.nn.BatchNorm1d(8), tg.nn.Linear(8, 2))
        options = {"momentum": 0.9} if name in ("SGD", "RMSprop") else {}
        optimizer = getattr(tg.optim, name)(model.parameters(), lr=0.01, **options)

        def step(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
            optimizer.zero_grad()
            loss = ((model(x) - y) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        run = tg.compile(step, backend="jax") if compiled else step
        losses = [run(tg.randn(5, 4), tg.randn(5, 2)).item() for _ in range(8)]
        return run, losses

    run, losses = train(compiled=True)
    assert run._usual is not None
    assert losses == pytest.approx(train(compiled=False)[1], rel=1e-4)


def test_a_recheck_records_all_the_same() -> None:
    world = World(compiled=True)
    world.step = tg.compile(world.work, backend="jax", recheck=3)
    for _ in range(7):
        world.step(*data())
    assert world.step._usual is None and world.step._recordings > 2


def test_the_graph_shown_is_the_one_that_ran_last() -> None:
    world = World(compiled=True)
    for _ in range(5):
        world.step(*data())
    trained = world.step.graph
    with tg.no_grad():
        world.step(*data())
    assert world.step.graph is not trained
    world.step(*data())
    assert world.step.graph is trained


def test_a_first_call_of_another_form_does_not_keep_the_short_way_closed() -> None:
    world = World(compiled=True)
    world.step(*data())
    world.step(tg.arange(6.0)[::2] + 0, data()[1])
    x, y = data()
    x + 1  # the tape knows it now
    world.step(x, y)
    for _ in range(3):
        world.step(*data())
    assert world.step._usual is not None
