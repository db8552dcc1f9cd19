"""XLA's rewrites for real numbers change floats: compiled for it, these give what eager gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegrad as tg

pytest.importorskip("jax", reason="the JAX backend needs jax")
INF, NAN = float("inf"), float("nan")
Program = Callable[[Any], Any]

REAL_NUMBERS: dict[str, Program] = {
    "(x + c) - c": lambda x: (x + 12582912.0) - 12582912.0,
    "(x - c) + d": lambda x: (x - 1e30) + 3.0,
    "x * c * d": lambda x: x * 1e30 * 1e30,
    "x * c / c": lambda x: x * 1e30 / 1e30,
    "x / c * c": lambda x: x / 1e30 * 1e30,
    "x / x / x": lambda x: x / x / x,
    "x / (x / x)": lambda x: x / (x / x),
    "exp over exp": lambda x: x.exp() / x.exp(),
    "exp times exp": lambda x: (x * 100).exp() * (-x * 100).exp(),
    "log of exp": lambda x: x.exp().log(),
    "log of a power": lambda x: ((x - 2) ** 3).log(),
    "root of a square": lambda x: (x**2).sqrt(),
    "power of a power": lambda x: (x**2) ** 0.5,
    "power of exp": lambda x: x.exp() ** 0.25,
    "through a reshape": lambda x: x.exp().reshape(2, -1).log().reshape(-1),
}
MASKS: dict[str, Program] = {
    "a mask": lambda x: (x > 1.0).float() * x.log(),
    "a mask, broadcast": lambda x: (x > 1.0).float().unsqueeze(1) * x.log().unsqueeze(0),
    "a mask divided by zero": lambda x: (x > 1.0).float() / 0.0,
    "a mask by promotion": lambda x: x.isfinite() * x,
}


@pytest.mark.parametrize(
    "program", [*REAL_NUMBERS.values(), *MASKS.values()], ids=[*REAL_NUMBERS, *MASKS]
)
def test_a_rule_for_real_numbers_does_not_apply(program: Program) -> None:
    x = tg.tensor([0.0, 1e-30, 2.6, 1e30, -3.0, INF, -INF, NAN])
    np.testing.assert_allclose(
        tg.compile(program, backend="jax")(x).numpy(), program(x).numpy(), rtol=1e-5
    )


@pytest.mark.parametrize("dtype", [tg.float32, tg.float64, tg.float16])
@pytest.mark.parametrize("divisor", [7, 41, 49, 10, 0.3, 8])
def test_a_division_by_a_constant_is_a_division(dtype: Any, divisor: float) -> None:
    """A product with the inverse has whole quotients just above or below the whole number."""
    x = tg.arange(1, 400).to(dtype)
    programs = [
        lambda x: x / divisor,
        lambda x: (x / divisor).ceil(),
        lambda x: x // divisor,
        lambda x: x % divisor,
    ]
    compiled = tg.compile(lambda x: [program(x) for program in programs], backend="jax")
    for found, program in zip(compiled(x), programs):
        np.testing.assert_array_equal(found.numpy(), program(x).numpy())


def test_complex_numbers_by_a_constant() -> None:
    x = tg.tensor([3 + 4j, -1j, 7.0])
    program = lambda x: (x / (3 + 1j), x / 7, x / 2)
    for found, expected in zip(tg.compile(program, backend="jax")(x), program(x)):
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-6)


def test_a_step_is_skipped_for_what_a_mask_hides() -> None:
    """`if not isfinite(loss)` goes the same way."""

    def trained(compile: Callable[[Any], Any]) -> list[Any]:
        w = tg.nn.Parameter(tg.ones(2))
        optimizer = tg.optim.SGD([w], 0.1)

        @compile
        def step(x: Any, keep: Any) -> Any:
            optimizer.zero_grad()
            loss = (keep.float() * (w * x).log()).sum()
            if not tg.isfinite(loss):
                return "skipped"
            loss.backward()
            optimizer.step()
            return "stepped"

        keep = tg.tensor([True, False])
        return [step(tg.tensor([2.0, 3.0]), keep), step(tg.tensor([2.0, -1.0]), keep), w.tolist()]

    eager = trained(lambda function: function)
    assert eager[:2] == ["stepped", "skipped"]
    assert trained(tg.compile(backend="jax")) == eager


@pytest.mark.parametrize("dtype", [tg.int64, tg.int32, tg.uint8, tg.int8])
def test_powers_of_whole_numbers(dtype: Any) -> None:
    base, exponent = np.meshgrid([0, 1, 2, 3, 5, 7], [0, 1, 2, 6, 63, 64, 65, 100, 127])
    x, y = tg.tensor(base).to(dtype), tg.tensor(exponent).to(dtype)
    found = tg.compile(lambda x, y: x**y, backend="jax")(x, y)
    np.testing.assert_array_equal(found.numpy(), (x**y).numpy())
