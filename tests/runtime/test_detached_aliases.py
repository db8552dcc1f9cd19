"""A tensor and its detached alias share elements, not history: what a call writes and differentiates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import tracegrad as tg


def alias_written(w: Any, alias: Any, p: Any, x: Any) -> Any:
    alias.mul_(p * x)
    return x * 1


def alias_written_base_read(w: Any, alias: Any, p: Any, x: Any) -> Any:
    y = w * x
    alias.mul_(p * x)
    return y


def base_written_alias_read(w: Any, alias: Any, p: Any, x: Any) -> Any:
    y = alias * x
    w.mul_(p * x)
    return y


def detached_again(w: Any, alias: Any, p: Any, x: Any) -> Any:
    once_more = w.detach()
    alias.mul_(p * x)
    once_more.mul_(p)
    return x * 1


def written_by_state_alone(w: Any, alias: Any, p: Any, x: Any) -> Any:
    alias.mul_(p)
    return x * 1


PROGRAMS = [
    alias_written, alias_written_base_read, base_written_alias_read, detached_again, written_by_state_alone,
]  # fmt: skip


def outcome(lib: Any, program: Callable[..., Any], compiled: Callable[[Any], Any]) -> Any:
    w = lib.ones(3)
    alias = w.detach()
    p = lib.full((3,), 2.0, requires_grad=True)
    compiled(lambda x: program(w, alias, p, x))(lib.full((3,), 3.0))
    for tensor in (w, alias):
        if tensor.requires_grad:
            tensor.sum().backward(retain_graph=True)
    return w.requires_grad, alias.requires_grad, w.tolist(), alias.tolist(), p.grad.tolist()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)
def test_what_is_written_has_the_history(program: Callable[..., Any], backend: str) -> None:
    wanted = outcome(torch, program, lambda step: step)
    assert outcome(tg, program, lambda step: step) == wanted
    assert outcome(tg, program, lambda step: tg.compile(step, backend=backend)) == wanted


def test_an_alias_that_wants_gradients_is_met_after_a_detach_inside(backend: str) -> None:
    def gradient(lib: Any, compiled: Callable[[Any], Any]) -> Any:
        w = lib.ones(3)
        alias = w.detach().requires_grad_()

        def step(x: Any) -> Any:
            constant = w.detach()
            (alias * x).sum().backward()
            return constant.sum()

        call = compiled(step)
        return [call(lib.ones(3)).item() for _ in range(2)], alias.grad.tolist()

    assert gradient(tg, lambda step: tg.compile(step, backend=backend)) == gradient(
        torch, lambda step: step
    )


def test_two_histories_of_one_value_are_left_to_eager() -> None:
    w, p, q = tg.ones(3), tg.ones(3, requires_grad=True), tg.ones(3, requires_grad=True)
    alias = w.detach()

    def step(x: Any) -> Any:
        w.mul_(p * x)
        alias.mul_(q * x)
        return x * 1

    compiled = tg.compile(step, backend="numpy")
    with pytest.warns(UserWarning, match="detached alias"):
        compiled(tg.full((3,), 2.0))
    (w.sum() + alias.sum()).backward()
    assert (p.grad.tolist(), q.grad.tolist()) == ([2.0] * 3, [4.0] * 3)
