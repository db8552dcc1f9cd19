"""Which code a recording watches: the user's, with what it imports, and nothing of ours."""

from __future__ import annotations

import cProfile
import gc
import importlib
import multiprocessing.util
import pstats
import sys
import weakref
from typing import Any

import pytest

import tracegrad as tg
from tracegrad import nn


def test_what_tracegrad_itself_calls_is_not_watched():
    """NumPy's functions, called by ours, are no part of the user's program: only `scale` is."""
    scale = 2.0
    step = tg.compile(lambda x: (x.expand(3, 4) * scale).sum())
    step(tg.ones(4))
    ((specialisation,),) = step._forest.trees.values()
    places = [fact.place for fact in specialisation.facts if hasattr(fact, "place")]
    assert "scale" in {place.name for place in places}
    modules = {place.holder.get("__name__") for place in places if place.kind == "item"}
    assert modules <= {__name__}


def test_code_of_jax_that_tracegrad_itself_calls_is_not_watched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A parameter that an earlier call has updated is asked for its dtype, which jax answers in Python.

    All objects of the process were searched for the functions of such code.
    """
    layer, scale = nn.Linear(3, 3), tg.ones(3)
    optimizer = tg.optim.SGD(layer.parameters(), lr=0.1)

    @tg.compile(backend="jax")
    def step(x: tg.Tensor) -> None:
        optimizer.zero_grad()
        (layer(x) * scale).sum().backward()
        optimizer.step()

    for _ in range(3):
        step(tg.ones(2, 3))
    searched: list[Any] = []
    monkeypatch.setattr(gc, "get_referrers", lambda *codes: searched.extend(codes) or [])
    before = step.stats()["recordings"]
    step(tg.ones(4, 3))
    assert step.stats()["recordings"] > before
    assert not searched


@pytest.mark.parametrize("first", [True, False], ids=["imported before", "imported by it"])
@pytest.mark.parametrize(
    "line, used",
    [
        ("import imported_inside", "imported_inside.count"),
        ("import imported_package.inner", "imported_package.inner.count"),
        ("from imported_inside import count", "count"),
        ("from imported_package import inner", "inner.count"),
        ("import imported_package.inner as other", "other.count"),
    ],
)
def test_what_a_function_imports_itself_is_watched(tmp_path, monkeypatch, line, used, first):
    """And not what the modules run while they are imported."""
    text = "count = 0\nfor k in range(3):\n    count += k\n"
    (tmp_path / "imported_inside.py").write_text(text)
    (tmp_path / "imported_package").mkdir()
    (tmp_path / "imported_package" / "__init__.py").write_text("")
    (tmp_path / "imported_package" / "inner.py").write_text(text)
    (tmp_path / "with_import.py").write_text(f"def scaled(x):\n    {line}\n    return x * {used}\n")
    names = ("imported_inside", "imported_package", "imported_package.inner", "with_import")
    monkeypatch.syspath_prepend(tmp_path)
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    step = tg.compile(importlib.import_module("with_import").scaled)
    module = "imported_inside" if "inside" in line else "imported_package.inner"
    if first:
        importlib.import_module(module)
    assert step(tg.ones(2)).tolist() == [3.0, 3.0]
    ((specialisation,),) = step._forest.trees.values()
    watched = {fact.place.name for fact in specialisation.facts if hasattr(fact, "place")}
    assert watched <= {"count", "inner", "__code__"}
    sys.modules[module].count = 5
    assert step(tg.ones(2)).tolist() == [5.0, 5.0]
    assert "count: 3 -> 5" in str(step.why())
    for name in names:
        sys.modules.pop(name, None)


def later() -> None:
    """Something for a profile to show."""


def test_a_profiler_goes_on_after_a_recording() -> None:
    step = tg.compile(lambda x: x * 2)
    profile = cProfile.Profile()
    profile.enable()
    try:
        assert step(tg.ones(2)).tolist() == [2.0, 2.0]
        later()
    finally:
        profile.disable()
    assert "later" in {name for _, _, name in pstats.Stats(profile).stats}

    calls = []
    sys.setprofile(lambda frame, event, argument: calls.append(frame.f_code.co_name))
    try:
        step(tg.ones(3))
        later()
    finally:
        sys.setprofile(None)
    assert "later" in calls


def test_code_without_a_module_name_is_recorded() -> None:
    namespace: dict[str, Any] = {"__name__": None, "factor": 2.0}
    exec("def scaled(x):\n    return x * factor\n", namespace)
    step = tg.compile(namespace["scaled"])
    assert step(tg.ones(2)).tolist() == [2.0, 2.0]
    namespace["factor"] = 5.0
    assert step(tg.ones(2)).tolist() == [5.0, 5.0]


def test_functions_of_a_c_library_may_be_called() -> None:
    """The class of Cython's functions has a descriptor where others have their module's name."""

    class Doubling:
        def __call__(self, x: tg.Tensor) -> tg.Tensor:
            return x * 2

    Doubling.__module__ = property(lambda self: "library")  # type: ignore[assignment]
    double = Doubling()
    f = tg.compile(lambda x: double(x) + 1, backend="numpy")
    assert f(tg.ones(2)).tolist() == f(tg.ones(2)).tolist() == [3, 3]


def test_a_global_that_is_called_like_an_attribute_is_not_watched() -> None:
    """A script's loop counts `step` and walks over `data`; the function calls `optimizer.step()`."""
    script = """
parameter = tg.ones(2, requires_grad=True)
optimizer = tg.optim.SGD([parameter], lr=0.1)
scale = 1.0
def train(x):
    optimizer.zero_grad()
    loss = (parameter * x).sum() * scale
    loss.backward()
    optimizer.step()
    return loss, parameter.data.sum()
"""
    namespace: dict[str, Any] = {"tg": tg, "__name__": "a_script"}
    exec(script, namespace)
    train = tg.compile(namespace["train"])
    for step in range(4):
        namespace |= {"step": step, "data": tg.ones(2), "sum": sum}
        train(namespace["data"])
    assert train.stats()["recordings"] == 1, train.why()
    namespace["scale"] = 0.5  # what it reads is watched still
    train(namespace["data"])
    assert train.stats()["recordings"] == 2


def test_functions_of_its_own_are_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through all objects of the process, for however many that the recording makes."""

    @tg.compile(backend="numpy")
    def step(x: tg.Tensor) -> tg.Tensor:
        first, second = (lambda y, by=2.0: y * by), (lambda y, by=3.0: y * by)
        return first(x) + second(x)

    searched: list[tuple[Any, ...]] = []
    search = gc.get_referrers
    monkeypatch.setattr(
        gc, "get_referrers", lambda *codes: searched.append(codes) or search(*codes)
    )
    assert step(tg.ones(2)).tolist() == [5.0, 5.0]
    assert len(searched) == 1 and len(searched[0]) == 2


@pytest.mark.parametrize("finalize", [multiprocessing.util.Finalize, weakref.finalize])
def test_what_runs_because_an_object_dies_is_no_part_of_the_function(finalize: Any) -> None:
    """The end of a data loader's worker, say, that falls into a recording: it empties a registry."""

    class Worker:
        def __init__(self) -> None:
            self.itself = self
            finalize(self, lambda *_: None, *([()] if finalize is not weakref.finalize else []))

    @tg.compile(fullgraph=True)
    def f(x: Any) -> Any:
        gc.collect()
        return x * 2

    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            Worker()
        assert f(tg.ones(2)).tolist() == [2.0, 2.0]
    finally:
        if was_enabled:
            gc.enable()
