"""A step keeps its updated state in jax arrays and finds it there at the next call.

Between two calls anything may be done to a parameter; the next call must see it. Each `between` runs
against an eager twin.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
from tests.runtime.programs import compiled

Between = Callable[[list[Any], Any], Any]


def nothing(parameters, buffer):
    return None


def read_one(parameters, buffer):
    return float(parameters[0].sum())


def read_through_numpy(parameters, buffer):
    return parameters[1].detach().numpy().copy()


def kept_numpy_alias(parameters, buffer):
    return parameters[1].detach().numpy()


def write_through_numpy(parameters, buffer):
    parameters[0].detach().numpy()[0] = 7.0


def new_data(parameters, buffer):
    parameters[1].data = tg.full((3,), 5.0)


def write_in_place(parameters, buffer):
    with tg.no_grad():
        parameters[2].mul_(0.5)


def write_a_view(parameters, buffer):
    with tg.no_grad():
        parameters[0][1:].fill_(2.0)


def write_the_buffer(parameters, buffer):
    buffer.add_(10.0)


def replace_the_buffers_data(parameters, buffer):
    buffer.data = tg.full((3,), -4.0)


def use_in_a_graph(parameters, buffer):
    loss = (parameters[0] * parameters[1]).sum()
    loss.backward()
    gradient = parameters[0].grad.clone()
    parameters[0].grad = parameters[1].grad = None
    return gradient


def deep_copy(parameters, buffer):
    copies = copy.deepcopy(parameters)
    with tg.no_grad():
        copies[0].zero_()
    return [p.detach().numpy().copy() for p in copies]


def detached_alias(parameters, buffer):
    return parameters[2].detach()


def other_step(backend) -> Between:
    """Another compiled function writes the same parameters."""
    made = {}

    def between(parameters, buffer):
        def shrink():
            with tg.no_grad():
                for p in parameters[:2]:
                    p.mul_(0.9)

        step = made.setdefault(id(parameters), compiled(shrink, backend))
        step()

    return between


BETWEEN = {
    function.__name__: function
    for function in (
        nothing, read_one, read_through_numpy, kept_numpy_alias, write_through_numpy, new_data, write_in_place,
        write_a_view, write_the_buffer, replace_the_buffers_data, use_in_a_graph, deep_copy, detached_alias,
    )
}  # fmt: skip
BETWEEN["another_jax_step"] = other_step("jax")
BETWEEN["another_numpy_step"] = other_step("numpy")


def run(backend: str | None, between: Between, on: list[int]) -> list[Any]:
    parameters = [tg.nn.Parameter(tg.arange(3.0) + k) for k in range(3)]
    buffer = tg.tensor([1.0, 2.0, 3.0])

    def step(x):
        with tg.no_grad():
            for k, p in enumerate(parameters):
                p.add_(x * (k + 1) + buffer)
        return parameters[0].sum() + buffer.sum()

    call = compiled(step, backend)
    shown: list[Any] = []
    for k in range(7):
        shown.append(np.asarray(call(tg.tensor([1.0, -2.0, 0.5])).detach()))
        if k in on:
            shown.append(between(parameters, buffer))
    shown.append([p.detach().numpy().copy() for p in parameters])
    if backend:
        assert call.stats()["compiles"] == 1
    return shown


def same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if ours is None or isinstance(ours, float):
        return ours == theirs
    return bool(np.array_equal(np.asarray(ours), np.asarray(theirs)))


@pytest.mark.parametrize("on", [[2], [2, 3, 4], list(range(7))], ids=str)
@pytest.mark.parametrize("name", BETWEEN)
def test_what_happens_between_calls_is_seen(name, on):
    theirs = run(None, BETWEEN[name], on)
    assert same(run("jax", BETWEEN[name], on), theirs)
