"""Eager overhead: one add on 8 elements with and without recording, a 100-op chain with its
backward, 40 chains of different lengths (whose structures repeat only after a whole round), and
common ops on a few elements."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from interleave import Bench


def backward(t: Any) -> None:
    t.w.grad = t.b.grad = None
    t.F.linear(t.x, t.w, t.b).relu().sum().backward()


# Common calls on a few elements; what is made of `z`, `w` and `b` is recorded.
OPS: dict[str, Callable[[Any], Any]] = {
    "linear": lambda t: t.F.linear(t.x, t.w, t.b), "softmax": lambda t: t.F.softmax(t.z, -1),
    "layer_norm": lambda t: t.norm(t.z), "cross_entropy": lambda t: t.F.cross_entropy(t.z, t.places),
    "gelu": lambda t: t.F.gelu(t.z, approximate="tanh"), "dropout": lambda t: t.F.dropout(t.z, 0.5),
    "embedding": lambda t: t.F.embedding(t.places, t.w), "sum": lambda t: t.z.sum(1),
    "mean": lambda t: t.z.mean(), "max": lambda t: t.z.max(1), "view": lambda t: t.z.view(-1),
    "transpose": lambda t: t.z.transpose(0, 1), "slice": lambda t: t.z[1:3], "select": lambda t: t.z[0],
    "cat": lambda t: t.lib.cat([t.z, t.x]), "where": lambda t: t.lib.where(t.mask, t.z, t.x),
    "compare": lambda t: t.x > t.y, "cast": lambda t: t.x.double(), "clamp": lambda t: t.z.clamp(0, 1),
    "add_": lambda t: t.y.add_(t.x), "setitem": lambda t: t.y.__setitem__(0, 1.0),
    "zeros": lambda t: t.lib.zeros(8), "backward": backward, "sgd": lambda t: t.sgd.step(),
    "adamw": lambda t: t.adamw.step(),
}  # fmt: skip


def inputs(lib: Any) -> SimpleNamespace:
    """What the calls of OPS read."""
    x = lib.ones(4, 8)
    w, b = lib.ones(8, 8, requires_grad=True), lib.ones(8, requires_grad=True)
    parameters = [lib.nn.Parameter(lib.ones(8)) for _ in range(20)]
    for parameter in parameters:
        parameter.grad = lib.ones(8)
    return SimpleNamespace(
        lib=lib, F=lib.nn.functional, x=x, y=lib.ones(4, 8), w=w, b=b, z=x @ w, mask=x > 0.5,
        places=lib.zeros(4, dtype=lib.int64), norm=lib.nn.LayerNorm(8),
        sgd=lib.optim.SGD(parameters, lr=1e-6), adamw=lib.optim.AdamW(parameters, lr=1e-6),
    )  # fmt: skip


bench = Bench(
    "eager", cases=["add", "add_recording", "chain", "varied", *OPS], baseline="torch", unit="us", seconds=0.1, rounds=3
)  # fmt: skip
REPEAT = 1000


def chain(x: Any, c: Any, length: int) -> Any:
    for _ in range(length // 4):
        x = x * 1.01
        x = x + c
        x = x * c
        x = x - 0.5
    return x.sum()


def repeated(call: Callable[[Any], Any], given: Any) -> Callable[[], Any]:
    def step() -> None:
        for _ in range(100):
            call(given)

    step.inner = 100  # type: ignore[attr-defined]
    return step


def setup(library: str) -> Callable[[str], Callable[[], Any]]:
    def prepare(case: str) -> Callable[[], Any]:
        lib = importlib.import_module(library)
        if case in OPS:
            return repeated(OPS[case], inputs(lib))
        a, b = lib.ones(8), lib.ones(8)
        w = lib.ones(8, requires_grad=True)
        if case in ("add", "add_recording"):
            left = a if case == "add" else w

            def step() -> None:
                for _ in range(REPEAT):
                    left + b

            step.inner = REPEAT  # type: ignore[attr-defined]
        elif case == "chain":

            def step() -> None:
                for _ in range(10):
                    w.grad = None
                    chain(w, b, 100).backward()

            step.inner = 1000  # type: ignore[attr-defined]
        else:
            lengths = [20 + 4 * k for k in range(40)]

            def step() -> None:
                for length in lengths:
                    w.grad = None
                    chain(w, b, length).backward()

            step.inner = sum(lengths)  # type: ignore[attr-defined]
        return step

    return prepare


bench.implementation("torch")(setup("torch"))
bench.implementation("tracegrad")(setup("tracegrad"))

if __name__ == "__main__":
    bench.main()
