"""Whole training steps: generated code against the kernels, with and without poisoned buffers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.backends.training_steps import mlp_step, transformer_step
from tracegrad.backends.base import Options
from tracegrad.backends.numpy import compile, interpret
from tracegrad.backends.optimise import optimise
from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, placeholder
from tracegrad.ir.ops.build import along
from tracegrad.ir.types import TensorType, f32, i64

Array = np.ndarray[Any, Any]
STEPS = {"mlp": mlp_step, "transformer": transformer_step}


def arrays_for(graph: Graph) -> list[Array]:
    """Weights around zero, second moments positive, labels and tokens in range."""
    rng = np.random.default_rng(0)
    arrays = []
    for name, node in zip(graph.input_names, graph.inputs):
        if node.dtype is i64:
            arrays.append(rng.integers(0, 5, node.shape))
        else:
            array = (rng.standard_normal(node.shape) * 0.5).astype(np.float32)
            arrays.append(np.abs(array) if name.startswith("v.") else array)
    return arrays


def donated(graph: Graph) -> tuple[int, ...]:
    return tuple(k for k, role in enumerate(graph.input_roles) if role == "state")


@pytest.mark.parametrize("poison", [False, True], ids=["plain", "poison"])
@pytest.mark.parametrize("fuse", [False, True], ids=["whole", "fused"])
@pytest.mark.parametrize("build", STEPS.values(), ids=STEPS)
def test_three_steps_in_place(build: Callable[[], Graph], fuse: bool, poison: bool) -> None:
    graph = build()
    options = Options(donate=donated(graph), fuse=fuse, tile_bytes=128, poison=poison)
    run = compile(optimise(graph), options)
    state, expected = arrays_for(graph), arrays_for(graph)
    for _ in range(3):
        results = run(state)
        wanted = interpret(graph, expected)
        for name, result, value in zip(graph.output_names, results, wanted):
            np.testing.assert_allclose(result, value, rtol=2e-4, atol=2e-5, err_msg=name)
        for role, value in zip(graph.output_roles, wanted):
            if role.startswith("state:"):
                expected[graph.input_names.index(role.removeprefix("state:"))] = value


def test_every_gradient_meets_its_weight_without_a_copy() -> None:
    graph = transformer_step()
    source = compile(optimise(graph), Options(donate=donated(graph), tile_bytes=128)).source
    steps = [line.split()[1] for line in source.splitlines() if line.lstrip().startswith("# ")]
    assert {"reshape", "transpose", "copy", "pad"}.isdisjoint(steps)
    assert {"matmul", "fused", "sdpa", "sdpa_backward"} <= set(steps)


def test_the_arena_of_a_deeper_network_grows_by_its_activations_only() -> None:
    width, batch = 64, 64
    shallow = mlp_step(batch, (width,) * 5)
    deep = mlp_step(batch, (width,) * 9)
    sizes = [
        compile(optimise(g), Options(donate=donated(g))).memory.arena_bytes for g in (shallow, deep)
    ]
    # four more layers keep one activation each; gradients and updates reuse what is there
    assert sizes[1] - sizes[0] == 4 * width * batch * 4


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_loops_shared_over_threads(threads: int) -> None:
    x, v = placeholder(TensorType((700, 384), f32)), placeholder(TensorType((384,), f32))
    h = ops.layer_norm(ops.tanh(x * 1.5), v, v * 0.5, ndim=1, eps=1e-5)
    y = ops.softmax(h + along(v, h.shape, (1,)), axis=1)
    graph = optimise(Graph((x, v), (y, ops.tanh(ops.sin(h) * 2.0), ops.max_(h, axes=(1,)))))
    rng = np.random.default_rng(0)
    arrays = [np.asarray(rng.standard_normal(n.shape), np.float32) for n in graph.inputs]
    run = compile(graph, Options(threads=threads, poison=True))
    assert ("fork" in run.source) == (threads > 1)
    for result, wanted in zip(run(arrays), interpret(graph, arrays)):
        np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tile_bytes", [1 << 12, 1 << 15, 1 << 18])
def test_loops_over_several_axes(tile_bytes: int) -> None:
    # the channel's value broadcasts on both sides: no two axes merge
    x, c = placeholder(TensorType((5, 7, 3000), f32)), placeholder(TensorType((7,), f32))
    h = x
    for _ in range(6):
        h = ops.tanh(h * along(c, x.shape, (1,))) + x
    graph = Graph((x, c), (h,))
    rng = np.random.default_rng(0)
    arrays = [np.asarray(rng.standard_normal(n.shape), np.float32) for n in graph.inputs]
    run = compile(graph, Options(threads=2, tile_bytes=tile_bytes, poison=True))
    assert "fork" in run.source
    (result,), (wanted,) = run(arrays), interpret(graph, arrays)
    np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=1e-6)
