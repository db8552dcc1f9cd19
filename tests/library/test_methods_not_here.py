"""Methods of PyTorch's classes that are missing say so, with what to do instead."""

from __future__ import annotations

from typing import Any

import pytest

import tracegrad as tg
from tracegrad import nn
from tracegrad.tracer.errors import MissingNameError, NothingCompiledError


def optimizer() -> Any:
    return tg.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("made", "name", "instead"),
    [
        (lambda: nn.Linear(2, 2), "register_full_backward_hook", "register_hook"),
        (lambda: nn.Linear(2, 2), "share_memory", "state_dict"),
        (optimizer, "register_step_post_hook", "override step"),
    ],
)
def test_it_says_what_to_do_instead(made: Any, name: str, instead: str) -> None:
    owner = made()
    assert not hasattr(owner, name)
    with pytest.raises(MissingNameError) as caught:
        getattr(owner, name)
    text = str(caught.value)
    assert f"{type(owner).__name__} has no {name!r}" in text
    assert "test_methods_not_here.py" in text and instead in text


def test_a_module_may_have_an_attribute_of_the_name() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.type = "double"

        def forward(self, x: Any) -> Any:
            return x * (2 if self.type == "double" else 3)

    model = Scaled()
    compiled = tg.compile(model)
    assert compiled(tg.ones(1)).item() == 2
    model.type = "treble"
    assert compiled(tg.ones(1)).item() == 3


def test_the_context_of_a_function() -> None:
    class Doubled(tg.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.mark_dirty(x)
            return x.mul_(2)

    with pytest.raises(MissingNameError, match=r"(?s)mark_dirty.*copy_\(\)"):
        Doubled.apply(tg.ones(2))


def test_benchmark_before_the_first_call() -> None:
    compiled = tg.compile(lambda x: x * 2)
    with pytest.raises(NothingCompiledError, match="has not been called yet"):
        compiled.benchmark()
    assert tg.compile(lambda: tg.ones(2) * 2).benchmark(repeats=1)["compiled"] > 0
