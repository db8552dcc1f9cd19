"""What is shown of a function that runs as several programs: all of them, as one."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from numpy.testing import assert_allclose

import tracegrad as tg
from tests.runtime import test_executables_of_loops as executables
from tests.runtime import test_loops as loops
from tests.runtime.test_loops import Loop, given
from tracegrad.backends.numpy import interpret
from tracegrad.ir import parse
from tracegrad.ir.verify import verify

PROGRAMS = [*loops.SIMPLE, *executables.MORE]


def with_gradients(loop: Loop) -> Any:
    def function(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> list[tg.Tensor]:
        w = w.detach().requires_grad_()
        found = loop(x, w, tolerance)
        results = list(found) if isinstance(found, tuple) else [found]
        loss = sum(r.sum() for r in results)
        return [*results, *tg.autograd.grad(loss, [w], allow_unused=True, materialize_grads=True)]

    return function


@pytest.mark.parametrize("loop", PROGRAMS)
def test_the_graph_computes_what_the_call_does(loop: Loop, backend: str) -> None:
    """Traced, after each pass, and in the end; also on the second path of a tree."""
    compiled = tg.compile(with_gradients(loop), backend=backend, fullgraph=True, max_paths=32)
    for tolerance in (0.3, 0.05):
        arguments = [*given(0), tg.tensor(tolerance)]
        results = compiled(*arguments)
        for _, graph in [*compiled.history, ("final", compiled.graph)]:
            verify(graph, require_loc=True)
            if any(name.startswith("random") for name in graph.input_names):
                continue  # at another position by now
            by_name = {f"arg{k}": argument.numpy() for k, argument in enumerate(arguments)}
            found = interpret(graph, [by_name[name] for name in graph.input_names])
            values = [v for v, role in zip(found, graph.output_roles) if role == "result"]
            assert len(values) == len(results)
            for value, result in zip(values, results):
                assert_allclose(value, result.detach().numpy(), rtol=2e-5, atol=1e-6)
        assert "guard" in graph.output_roles
        again = parse(str(graph))
        assert again.fingerprint() == graph.fingerprint()


def test_a_branch_hides_nothing(backend: str) -> None:
    weight = tg.nn.Linear(100, 100)
    optimizer = tg.optim.SGD(weight.parameters(), lr=0.1)

    @tg.compile(backend=backend, fullgraph=True)
    def step(x: tg.Tensor) -> tg.Tensor:
        optimizer.zero_grad()
        loss = weight(x).tanh().square().sum()
        if loss > 0:
            loss = loss * 2
        loss.backward()
        optimizer.step()
        return loss

    step(tg.ones(7, 100))
    names = [node.op.name for node in step.graph.nodes]
    assert names.count("tanh") == 1 and names.count("matmul") >= 2
    assert len(step.graph.updates) == 2
    assert "program 2 of 2" in step.source and "tanh" in step.source
    assert "1 question of Python's, 2 programs in turn" in step.explain()
    if backend == "numpy":
        assert step.memory().arena_bytes + step.memory().result_bytes >= 7 * 100 * 4


def test_a_path_whose_tree_is_forgotten_shows_its_last_program(backend: str) -> None:
    @tg.compile(backend=backend, fullgraph=True)
    def step(x: tg.Tensor) -> tg.Tensor:
        y = x.tanh()
        return y * 2 if y.sum() > 0 else y

    step(tg.ones(3))
    step._forest.trees.clear()
    step._usual = step._usual_of = None
    gc.collect()
    assert [node.op.name for node in step.graph.nodes][-1] == "mul"
    assert "programs in turn" not in step.explain()
