"""Parameter groups, schedules and slots inside a step: as in PyTorch, at every call."""

import warnings

import numpy as np
import pytest
import torch

import tests.runtime.host_state  # noqa: F401  (registers its programs)
import tracegrad as tg
from tests.runtime.host_state.registry import FALLS_BACK, PROGRAMS, setting, train
from tests.runtime.programs import BACKENDS
from tracegrad.tracer.errors import GraphBreakError


def report(value):
    if isinstance(value, (tg.Tensor, torch.Tensor)):
        return np.array(value.detach().numpy(), np.float64)
    if isinstance(value, (list, tuple)):
        return [report(item) for item in value]
    return value


def reports(program, T, compile):
    return [report(value) for value in program(T, compile)]


def compare(found, wanted):
    assert len(found) == len(wanted)
    for mine, theirs in zip(found, wanted):
        if isinstance(theirs, list):
            compare(mine, theirs)
        elif isinstance(theirs, str) or theirs is None:
            assert mine == theirs
        else:
            np.testing.assert_allclose(mine, theirs, rtol=1e-5)


@pytest.mark.parametrize("backend", ["eager", *BACKENDS])
@pytest.mark.parametrize("name", PROGRAMS)
def test_as_in_pytorch(name, backend):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler")
        wanted = reports(PROGRAMS[name], torch, lambda f: f)
    if name in FALLS_BACK and backend != "eager":
        with pytest.warns(UserWarning, match="runs eagerly from now on"):
            found = reports(PROGRAMS[name], tg, lambda f: tg.compile(f, backend=backend))
    else:
        found = reports(PROGRAMS[name], tg, lambda f: tg.compile(f, backend=backend))
    compare(found, wanted)


def test_the_way_out_is_named():
    w, optimizer, group = setting(tg)

    def step(x, lr):
        group["lr"] = lr.item()
        return train(w, optimizer, x)

    with pytest.raises(GraphBreakError, match=r"param_groups.*\n(.*\n)*.*lr\.item\(\)"):
        tg.compile(step, fullgraph=True)(tg.ones(2), tg.tensor(0.5))
    assert group["lr"] == 0.1


def test_a_failed_step_leaves_the_group_as_it_was(backend):
    table = tg.nn.Embedding(3, 1)
    optimizer = tg.optim.SGD(table.parameters(), lr=1.0)
    (group,) = optimizer.param_groups

    def step(index):
        group["lr"] *= 0.5
        optimizer.zero_grad()
        loss = table(index).sum()
        loss.backward()
        optimizer.step()
        return loss

    g = tg.compile(step, backend=backend)
    g(tg.tensor([0]))
    with pytest.raises(IndexError):
        g(tg.tensor([7]))
    assert group["lr"] == 0.5
    g(tg.tensor([2]))
    assert group["lr"] == 0.25 and g.stats()["recordings"] == 1


def test_a_recording_thrown_away_leaves_the_group_as_it_was():
    w, optimizer, group = setting(tg)

    def step(x):
        group["lr"] = 0.5
        group["mine"] = 1
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        tg.compile(step)(tg.ones(2))
    assert group["lr"] == 0.1 and "mine" not in group


def test_a_write_in_a_branch_of_a_graph_is_refused():
    w, optimizer, group = setting(tg)

    def halve(x):
        group["lr"] = 0.5
        return x

    with pytest.raises(GraphBreakError, match="a write to param_groups inside cond"):
        tg.compile(lambda x: tg.cond(x.sum() > 0, halve, lambda x: x, (x,)), fullgraph=True)(
            tg.ones(2)
        )


def test_an_integer_that_is_another_one_at_every_call_ends_in_eager_calls(backend):
    """The number of the step as an argument."""
    step = tg.compile(lambda x, it: x * (it + 1 if it < 5 else 6), backend=backend)
    with pytest.warns(
        UserWarning, match=r"this changes between calls: argument 1: \d+ -> \d+"
    ) as warned:
        for it in range(80):
            assert step(tg.ones(2), it).tolist() == [min(it + 1.0, 6.0)] * 2
    assert len(warned) == 1 and "tg.tensor(5)" in str(warned[0].message)
    recordings = step.stats()["recordings"]
    step(tg.ones(2), 1000)
    assert step.stats()["recordings"] == recordings < 80


def test_integers_that_come_again_stay_compiled(backend):
    """Twenty sizes, met one after the other in every epoch."""
    step = tg.compile(lambda x, size: x[:size] * 2, backend=backend)
    for _ in range(3):
        for size in range(1, 21):
            assert step(tg.ones(20), size).shape == (size,)
    assert step.stats()["recordings"] == 20


def test_names_that_nothing_reads_are_no_reason_for_ever(backend):
    step = tg.compile(lambda batch: batch["x"] * 2, backend=backend)
    with pytest.warns(UserWarning, match="leave out names"):
        for k in range(80):
            assert step({"x": tg.ones(2), "file": f"image{k}.png"}).tolist() == [2.0, 2.0]
