"""The promises of `tg.compile`: one graph, captured state, explanations, locations, agreement."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

import tracegrad as tg
from tracegrad import nn
from tracegrad.ir import parse, verify
from tracegrad.ir.types import TensorType
from tracegrad.nn import functional as F


def digits_step(backend: str | None, dropout: float = 0.5) -> tuple[Any, Any, Any]:
    """A CNN's step with batch norm, dropout, Adam and a schedule: (step, model, optimiser)."""
    tg.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(dropout),
        nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip
    optimizer = tg.optim.Adam(model.parameters(), lr=1e-2)
    schedule = tg.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.999)

    def train_step(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        schedule.step()
        return loss

    step = (
        train_step if backend is None else tg.compile(train_step, backend=backend, fullgraph=True)
    )
    return step, model, optimizer


def batches(count: int, size: int = 8) -> list[tuple[tg.Tensor, tg.Tensor]]:
    random = np.random.default_rng(0)
    return [
        (
            tg.tensor(random.standard_normal((size, 1, 8, 8)).astype("f4")),
            tg.tensor(random.integers(0, 10, size)),
        )
        for _ in range(count)
    ]


def test_dropout_losses_agree_in_every_mode() -> None:
    data = batches(50)
    losses = {}
    for mode in (None, "numpy", "jax"):
        if mode == "jax":
            pytest.importorskip("jax")
        step, _, _ = digits_step(mode)
        losses[mode] = np.array([float(step(x, y)) for x, y in data])
    for mode in ("numpy", "jax"):
        assert_allclose(losses[mode][0], losses[None][0], rtol=1e-5)
        assert_allclose(losses[mode], losses[None], rtol=1e-3)


def test_one_compile_for_a_thousand_steps_of_a_schedule(backend: str) -> None:
    w = tg.tensor([1.0, 2.0], requires_grad=True)
    optimizer = tg.optim.SGD([w], lr=0.1)
    schedule = tg.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 1 / (1 + k))

    def step() -> tg.Tensor:
        optimizer.zero_grad()
        loss = (w * w).sum()
        loss.backward()
        optimizer.step()
        schedule.step()
        return loss

    compiled = tg.compile(step, backend=backend)
    expected = np.array([1.0, 2.0])
    for k in range(1000):
        compiled()
        expected = expected - 0.1 / (1 + k) * 2 * expected
    assert_allclose(w.detach().numpy(), expected, rtol=1e-4)
    assert compiled.stats()["compiles"] == 1
    assert compiled.stats()["recordings"] == 1
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 / 1001)


def test_a_ragged_last_batch_compiles_once_more_and_says_why(backend: str) -> None:
    step, _, _ = digits_step(backend)
    for x, y in [*batches(3, 8), *batches(1, 5), *batches(2, 8), *batches(1, 5)]:
        step(x, y)
    assert step.stats()["compiles"] == 2
    (first, second) = step.why().splitlines()
    assert "float32[8, 1, 8, 8] -> float32[5, 1, 8, 8]" in second
    assert "first call" in first


def test_the_whole_step_is_one_graph_with_the_users_lines() -> None:
    step, model, _ = digits_step("numpy")
    step(*batches(1)[0])
    names = set()
    for pass_name, graph in step.history:
        verify(graph, pass_name)
        for node in graph.nodes:
            assert node.loc.file.endswith("test_compile.py"), (pass_name, node)
            assert node.loc.line > 0
        names.add(pass_name)
    assert {"trace", "simplify", "decompose", "cse", "numpy/fuse"} <= names
    graph = step.graph
    backward = [n for n in graph.nodes if any(via.startswith("vjp(") for via in n.loc.via)]
    assert len(backward) > 10
    assert sum(role.startswith("state:") for role in graph.output_roles) >= len(
        list(model.parameters())
    )
    assert (
        isinstance(graph.nodes[-1].type, TensorType)
        and graph.nodes[-1].inputs
        and graph.nodes[-1].op.name
    )


def test_the_text_parses_back() -> None:
    step, _, _ = digits_step("numpy")
    step(*batches(1)[0])
    for _, graph in step.history:
        again = parse(str(graph))
        assert str(again) == str(graph)
        assert again.fingerprint() == graph.fingerprint()


def test_explanations_and_dump(tmp_path: Path, backend: str) -> None:
    step, _, _ = digits_step(backend)
    x, y = batches(1)[0]
    step(x, y)
    assert step.name in step.explain() and "nodes traced" in step.explain()
    assert step.source
    assert step.memory() is not None
    folder = step.dump(tmp_path / "dump")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["backend"] == backend
    assert all((folder / name).stat().st_size > 0 for name in manifest["files"])
    assert (folder / "000_trace.txt").exists() and (folder / "final.svg").read_text().startswith(
        "<svg"
    )
    times = step.benchmark(x, y, repeats=2)
    assert times["eager"] > 0 and times["compiled"] > 0
    assert (
        step.benchmark(repeats=1).keys() == times.keys()
    )  # on the arguments of the last recording
    del x, y
    gc.collect()
    with pytest.raises(tg.TracegradError, match="are gone"):
        step.benchmark(repeats=1)


def branching(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
    return (x * y).sum() if x.sum() > 0 else (x + y).sum()


def gradient_of_an_argument(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
    x.requires_grad_()
    loss = (x * y).square().sum()
    loss.backward()
    return loss


@pytest.mark.parametrize("function", [branching, gradient_of_an_argument, nn.Bilinear(3, 3, 2)])
def test_a_recording_does_not_keep_the_arguments_it_was_made_with(function, backend: str) -> None:
    compiled = tg.compile(function, backend=backend, fullgraph=True)
    x, y = tg.ones(4, 3), tg.ones(4, 3)
    compiled(x, y).sum()
    kept = [weakref.ref(x), weakref.ref(y)]
    del x, y
    gc.collect()
    assert [ref() for ref in kept] == [None, None]
    compiled(tg.ones(4, 3), tg.ones(4, 3))


def test_nothing_to_show_before_the_first_call() -> None:
    compiled = tg.compile(lambda x: x)
    with pytest.raises(tg.TracegradError, match="call it once"):
        compiled.graph  # noqa: B018


def test_a_compiled_module_shares_state_with_the_original(backend: str) -> None:
    tg.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    tg.manual_seed(0)
    twin = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    compiled = tg.compile(model, backend=backend)
    assert list(compiled.state_dict()) == list(model.state_dict())
    optimizers = [tg.optim.SGD(m.parameters(), lr=0.1) for m in (compiled, twin)]
    random = np.random.default_rng(0)
    for _ in range(5):
        x = tg.tensor(random.standard_normal((6, 4)).astype("f4"))
        losses = []
        for module, optimizer in zip((compiled, twin), optimizers):
            optimizer.zero_grad()
            loss = module(x).square().mean()
            loss.backward()  # outside the compiled call
            optimizer.step()
            losses.append(float(loss))
        assert_allclose(losses[0], losses[1], rtol=1e-5)
    for (name, a), b in zip(compiled.state_dict().items(), twin.state_dict().values()):
        assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-6, err_msg=name)
    compiled.eval()
    twin.eval()
    assert_allclose(compiled(x).detach().numpy(), twin(x).detach().numpy(), rtol=1e-5)


def test_higher_order_through_a_compiled_function(backend: str) -> None:
    def f(x: tg.Tensor) -> tg.Tensor:
        return (tg.sin(x) * x * x).sum()

    compiled = tg.compile(f, backend=backend)
    values = []
    for function in (f, compiled):
        x = tg.tensor([0.5, 1.5, -2.0], requires_grad=True)
        (first,) = tg.autograd.grad(function(x), x, create_graph=True)
        (second,) = tg.autograd.grad((first * first).sum(), x)
        values.append((first.detach().numpy(), second.numpy()))
    assert_allclose(values[1][0], values[0][0], rtol=1e-5)
    assert_allclose(values[1][1], values[0][1], rtol=1e-5)


def test_function_transforms_inside_and_outside(backend: str) -> None:
    def energy(x: tg.Tensor) -> tg.Tensor:
        return (x**3).sum()

    x = tg.tensor([[1.0, 2.0], [3.0, 4.0]])
    per_example = tg.func.vmap(tg.func.grad(energy))
    assert_allclose(per_example(x).numpy(), 3 * x.numpy() ** 2, rtol=1e-6)
    assert_allclose(
        tg.compile(per_example, backend=backend)(x).numpy(), 3 * x.numpy() ** 2, rtol=1e-6
    )
    second = tg.func.grad(lambda v: tg.func.grad(lambda u: u**4)(v))
    assert float(second(tg.tensor(2.0))) == pytest.approx(48.0)


def test_a_failed_call_explains_and_keeps_parameters(backend: str) -> None:
    step, model, _ = digits_step(backend)
    x, y = batches(1)[0]
    step(x, y)
    before = {k: v.numpy().copy() for k, v in model.state_dict().items()}
    with pytest.raises(RuntimeError) as caught:
        step(x[:, :, :7], y)
    text = str(caught.value)
    assert "test_compile.py" in text and "where" in text
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])


def test_unknown_options_and_backends() -> None:
    with pytest.raises(TypeError, match="numpy"):
        tg.compile(lambda x: x, backend="tpu")
    with pytest.raises(TypeError, match="keep_grads"):
        tg.compile(lambda x: x, keep_grads="sometimes")


def test_text_of_a_tensor_holds_no_values_while_recording() -> None:
    """It would be old news at the next call."""
    step = tg.compile(lambda x: (f"{x}", repr(x + 1)))
    given, made = step(tg.full((2,), 7.0))
    assert given == "tensor(<f32[2], given to a recording>)"
    assert made.startswith("tensor(<traced f32[2], made at ")


def test_the_gradient_of_a_model_compiled_for_xla_runs_on_xla_at_every_step(monkeypatch) -> None:
    pytest.importorskip("jax")
    from tracegrad.runtime.execution.autograd_call import BackendRunner

    runs = []
    run = BackendRunner.__call__
    monkeypatch.setattr(
        BackendRunner, "__call__", lambda self, arrays: runs.append(1) or run(self, arrays)
    )
    model = tg.nn.Sequential(tg.nn.Linear(3, 4), tg.nn.Tanh(), tg.nn.Linear(4, 1))
    compiled = tg.compile(model, backend="jax")
    x = tg.ones(2, 3)
    (model(x) ** 2).mean().backward()
    expected = model[0].weight.grad.tolist()
    for step in range(1, 5):
        model.zero_grad()
        (compiled(x) ** 2).mean().backward()
        assert len(runs) == step
        np.testing.assert_allclose(model[0].weight.grad.tolist(), expected, rtol=1e-5, atol=1e-7)
    assert compiled.stats()["compiles"] == 2


def test_why_compares_with_the_newest_recording():
    layer = tg.nn.Linear(2, 2)
    layer.first, layer.second = 1, 1
    compiled = tg.compile(lambda x: layer(x) * layer.first + layer.second)
    x = tg.ones(1, 2)
    compiled(x)
    layer.first = 2
    compiled(x)
    layer.second = 5
    compiled(x)
    assert ["first" in line for line in compiled.why().splitlines()[1:]] == [True, False]
    assert "second" in compiled.why().splitlines()[2]


def test_values_that_change_now_and_then_stay_compiled():
    """A factor for each epoch: only what is new at every call is too much."""
    f = tg.compile(lambda x, factor: x * factor)
    for epoch in range(20):
        for _ in range(2):
            assert f(tg.ones(1), epoch / 2).item() == epoch / 2
    assert f.stats()["recordings"] == 20
