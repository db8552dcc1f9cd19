"""Random graphs: text and JSON read back, passes and compilers keep values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.generator import random_graph
from tracegrad.backends import numpy as numpy_backend
from tracegrad.backends.base import Options
from tracegrad.backends.numpy import interpret
from tracegrad.backends.optimise import optimise
from tracegrad.ir import (
    Graph,
    Loc,
    at,
    constants_of,
    f32,
    from_json,
    ops,
    parse,
    to_json,
    verify,
)
from tracegrad.passes.autodiff import reverse
from tracegrad.passes.autodiff_stages import Stage, reverse_in_stages
from tracegrad.passes.observers import Check, difference
from tracegrad.passes.pipeline import standard_pipeline
from tracegrad.runtime.paths.lowering import Compiler
from tracegrad.runtime.paths.pieces import InPieces

SEEDS = st.integers(0, 2**32 - 1)
FEW = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


def agree(graph: Graph, old: Any, new: Any, tolerance: float | None = None) -> None:
    for name, a, b in zip(graph.output_names, old, new, strict=True):
        problem = difference(np.asarray(a), np.asarray(b), tolerance)
        assert not problem, f"output {name}: {problem}\n{graph}"


def with_gradients(graph: Graph) -> Graph:
    """The graph, then the gradient of the sum of all its outputs for each input."""
    with at(Loc("fuzz.py", 0, "loss")):
        ones = [ops.ones_like(node) for node in graph.outputs]
        gradients = reverse(graph.outputs, ones, graph.inputs)
        given = [ops.zeros_like(x) if g is None else g for g, x in zip(gradients, graph.inputs)]
    return Graph(graph.inputs, (*graph.outputs, *given))


@FEW
@given(SEEDS, st.integers(1, 60))
def test_text_and_json_read_back(seed: int, count: int) -> None:
    graph, _ = random_graph(seed, count, jumps=True)
    verify(graph, require_loc=True)
    text = str(graph)
    again = parse(text, constants_of(graph))
    assert str(again) == text and again.fingerprint() == graph.fingerprint()
    copied = from_json(to_json(graph))
    assert str(copied) == text and to_json(copied) == to_json(graph)


@FEW
@given(SEEDS, st.integers(1, 60))
def test_passes_keep_values(seed: int, count: int) -> None:
    graph, arrays = random_graph(seed, count)
    check = Check(2, interpret, lambda graph, seed: arrays, require_loc=True)
    after = standard_pipeline(evaluate=interpret, observers=(check,)).run(graph)
    agree(graph, interpret(graph, arrays), interpret(after, arrays))


@FEW
@given(SEEDS, st.integers(1, 40))
def test_compiled_numpy_equals_the_interpreter(seed: int, count: int) -> None:
    graph, arrays = random_graph(seed, count)
    expected = interpret(graph, arrays)
    options = Options(poison=True, threads=1)
    compiled = numpy_backend.compile(optimise(graph, "numpy"), options)
    agree(graph, expected, compiled([array.copy() for array in arrays]))


@FEW
@given(SEEDS, st.integers(1, 25))
def test_gradients_are_slopes(seed: int, count: int) -> None:
    """Along a direction d: (f(x + h d) - f(x - h d)) / 2h is <gradient, d>, where f is smooth."""
    graph, arrays = random_graph(seed, count)
    both = with_gradients(graph)
    verify(both)
    outputs = len(graph.outputs)
    gradients = interpret(both, arrays)[outputs:]
    random = np.random.default_rng(seed)
    directions = [random.normal(0, 1, array.shape) for array in arrays]
    slope = sum(float((g * d).sum()) for g, d in zip(gradients, directions))

    def total(step: float) -> float:
        moved = [np.asarray(a + step * d) for a, d in zip(arrays, directions)]
        return sum(float(np.sum(value)) for value in interpret(graph, moved))

    # A kink between x - h d and x + h d shows as a slope that depends on h: then it says nothing.
    slopes = [(total(h) - total(-h)) / (2 * h) for h in (1e-5, 5e-6, 2e-6)]
    here = total(0.0)
    one_sided = [(total(1e-6) - here) / 1e-6, (here - total(-1e-6)) / 1e-6]
    scale = max(1.0, abs(slopes[0]))
    if max(abs(slopes[0] - other) for other in (*slopes, *one_sided)) > 1e-2 * scale:
        return
    assert abs(slopes[1] - slope) <= 1e-3 * scale, f"{slopes} against {slope}\n{graph}"


def stages_of(graph: Graph, seed: int) -> list[Stage]:
    """The graph's nodes in their order, cut at random places; any may be said to be a turn of a loop,
    and to carry any of the values that it reads.
    """
    nodes = graph.nodes[len(graph.inputs) :]
    random = np.random.default_rng(seed)
    ends = sorted(random.integers(0, len(nodes) + 1, random.integers(0, 5)).tolist())
    stages = []
    for a, b in zip([0, *ends], ends):
        own = list(nodes[a:b])
        pairs = [(o, n) for n in own for o in n.inputs if o not in own and random.random() < 0.3]
        turn = bool(stages) and random.random() < 0.7
        stages.append(Stage(own, turn, dict(pairs) if turn else {}))
    return stages


@FEW
@given(SEEDS, st.integers(1, 60))
def test_gradients_by_stages_and_in_pieces(seed: int, count: int) -> None:
    """However a graph is cut into stages: the same gradients, and the same values piece by piece."""
    graph, arrays = random_graph(seed, count)
    stages = stages_of(graph, seed)
    with at(Loc("fuzz.py", 0, "loss")):
        ones = [ops.ones_like(node) for node in graph.outputs]
        wrt = [
            *graph.inputs,
            *(n for stage in stages for n in stage.nodes[:1] if n.dtype.is_inexact),
        ]
        expected = reverse(graph.outputs, ones, wrt)
        found, cuts = reverse_in_stages(graph.outputs, ones, wrt, None, stages)
    assert [g is None for g in found] == [g is None for g in expected]
    given = [(a, b) for a, b in zip(expected, found) if a is not None and b is not None]
    whole = Graph(graph.inputs, tuple(a for a, _ in given))
    staged = Graph(graph.inputs, tuple(b for _, b in given))
    verify(staged, require_loc=True)
    values = interpret(whole, arrays)
    agree(whole, values, interpret(staged, arrays), 1e-9)
    forward = [stage.nodes for stage in stages]
    for crossing in ([*forward, *cuts.crossing], forward[::-1], cuts.crossing):
        pieces = replace(cuts, crossing=crossing)
        runner = InPieces(staged, pieces, Compiler("numpy", {}))
        agree(whole, values, runner([array.copy() for array in arrays]), 1e-9)


@pytest.mark.parametrize("seed", [1, 2])
def test_large_graphs(seed: int) -> None:
    """500 nodes and their gradients: text, passes, compiled code."""
    graph, arrays = random_graph(seed, 300, dtype=f32)
    both = with_gradients(graph)
    assert len(both.nodes) > 1000
    verify(both, require_loc=True)
    assert parse(str(both), constants_of(both)).fingerprint() == both.fingerprint()
    expected = interpret(both, arrays)
    options = Options(poison=True, threads=1)
    check = Check(1, require_loc=True)
    final = optimise(both, "numpy", (check,))
    assert len(final.nodes) < 4 * len(both.nodes)
    count = len(graph.outputs)  # of the forward values: gradients of f32 lose digits on the way
    agree(graph, expected[:count], interpret(final, arrays)[:count], 1e-3)
    compiled = numpy_backend.compile(final, options)
    results = compiled([array.copy() for array in arrays])
    agree(both, interpret(final, arrays), results, 1e-2)


def test_jax_agrees() -> None:
    pytest.importorskip("jax", reason="the jax extra is not installed")
    from tracegrad.backends import jax as jax_backend

    graph, arrays = random_graph(5, 40)
    final = optimise(graph, "jax")
    results = jax_backend.compile(final, Options(device="cpu"))(arrays)
    agree(graph, interpret(graph, arrays), [np.asarray(result) for result in results])
