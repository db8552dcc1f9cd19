"""State kept as a tuple of tensors that every call binds anew, as the hidden state of an LSTM is."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
from tracegrad import nn
from tracegrad.tracer.trees import flatten

Pair = namedtuple("Pair", "h c")


class Carried(nn.Module):
    """An LSTM cell whose state goes on from call to call, without its gradients."""

    def __init__(self) -> None:
        super().__init__()
        tg.manual_seed(0)
        self.cell = nn.LSTMCell(3, 4)
        self.state: Any = (tg.zeros(2, 4), tg.zeros(2, 4))
        self.extra: Any = None

    def forward(self, x: Any) -> Any:
        h, c = self.cell(x, self.state)
        self.state = (h.detach(), c.detach())
        return h if self.extra is None else h + self.extra


class Stacked(Carried):
    def __init__(self) -> None:
        super().__init__()
        self.upper = nn.LSTMCell(4, 4)
        self.state = ((tg.zeros(2, 4), tg.zeros(2, 4)), (tg.zeros(2, 4), tg.zeros(2, 4)))

    def forward(self, x: Any) -> Any:
        lower, upper = self.state
        lower = self.cell(x, lower)
        upper = self.upper(lower[0], upper)
        self.state = tuple(tuple(t.detach() for t in layer) for layer in (lower, upper))
        return upper[0]


def values(model: Any, result: Any) -> list[np.ndarray]:
    return [leaf.detach().numpy().copy() for leaf in flatten((result, model.state))[0]]


def edits(model: Any) -> Iterator[None]:
    """What is done between calls."""
    yield
    yield
    model.state = (tg.ones(2, 4), tg.zeros(2, 4))  # a new sequence begins
    yield
    same = tg.full((2, 4), 0.5)
    model.state = (same, same)
    yield
    old = model.state
    kept = [part.numpy().copy() for part in old]
    yield
    for part, value in zip(old, kept):  # who holds it sees what it was
        np.testing.assert_array_equal(part.numpy(), value)
    model.extra = model.state[0]
    yield
    model.extra = None
    model.state[1].add_(1)
    yield
    model.state = Pair(tg.ones(2, 4), tg.ones(2, 4))
    yield
    model.state = [tg.ones(2, 4), tg.zeros(2, 4)]
    yield
    model.state = (tg.ones(2, 4) * 2, tg.zeros(2, 4))
    yield


def test_it_goes_on_as_in_eager(backend: str) -> None:
    found = []
    for compile in (lambda model: model, tg.compile(backend=backend)):
        model = Carried()
        step = compile(model)
        x = tg.arange(6.0).reshape(2, 3) / 6
        found.append([values(model, step(x)) for _ in edits(model)])
    for eager, compiled in zip(*found, strict=True):
        for a, b in zip(eager, compiled, strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [Carried, Stacked])
def test_one_recording_for_all_calls(kind: Callable[[], Any], backend: str) -> None:
    model, eager = kind(), kind()
    eager.load_state_dict(model.state_dict())
    step = tg.compile(model, backend=backend, fullgraph=True)
    for k in range(6):
        x = tg.full((2, 3), float(k))
        for a, b in zip(values(eager, eager(x)), values(model, step(x)), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)
    assert step.stats()["recordings"] == 1


def test_truncated_backpropagation_is_one_graph(backend: str) -> None:
    def trained(compile: Callable[[Any], Any]) -> tuple[Any, list[float]]:
        model = Carried()
        optimizer = tg.optim.Adam(model.parameters(), lr=0.05)

        @compile
        def step(x: Any) -> Any:
            optimizer.zero_grad()
            loss = sum((model(x[k]) - 0.3).square().mean() for k in range(3))
            loss.backward()
            optimizer.step()
            return loss

        tg.manual_seed(1)
        return step, [step(tg.randn(3, 2, 3)).item() for _ in range(12)]

    _, eager = trained(lambda step: step)
    step, losses = trained(tg.compile(backend=backend, fullgraph=True))
    np.testing.assert_allclose(losses, eager, rtol=1e-4)
    assert step.stats()["recordings"] <= 2


def test_an_argument_in_the_state(backend: str) -> None:
    """The same tensor by two ways, one of which the function writes through."""

    def run(compile: Callable[[Any], Any]) -> list[Any]:
        model = Carried()

        @compile
        def step(x: Any, y: Any) -> Any:
            y.mul_(2)
            return model(x)

        x, found = tg.ones(2, 3), []
        for k in range(6):
            y = model.state[k % 2] if k > 2 else tg.ones(2, 4)
            found += values(model, [step(x, y), y])
        return found

    for a, b in zip(run(lambda step: step), run(tg.compile(backend=backend)), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)


def test_a_failed_call_leaves_the_state(backend: str) -> None:
    model = Carried()

    @tg.compile(backend=backend)
    def step(x: Any, index: Any) -> Any:
        return model(x)[index]

    x = tg.ones(2, 3)
    step(x, tg.tensor([1]))
    before = model.state
    with pytest.raises(IndexError):
        step(x, tg.tensor([7])).numpy()
    assert model.state is before


def test_another_form_is_recorded_anew() -> None:
    model = Carried()
    step = tg.compile(model)
    x = tg.ones(2, 3)
    step(x)
    model.state = (*model.state, tg.zeros(1))
    with pytest.raises(ValueError):
        step(x)
    model.state = (tg.zeros(2, 4, dtype=tg.float64), tg.zeros(2, 4))
    expected = Carried()
    expected.state = (tg.zeros(2, 4, dtype=tg.float64), tg.zeros(2, 4))
    try:
        wanted = expected(x)
    except tg.TracegradError as error:
        with pytest.raises(type(error)):
            step(x)
    else:
        assert step(x).dtype is wanted.dtype
