"""Eager overhead: one add on 8 elements with and without recording, a 100-op chain with its
backward, and 40 chains of different lengths (whose structures repeat only after a whole round)."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from interleave import Bench

bench = Bench(
    "eager", cases=["add", "add_recording", "chain", "varied"], baseline="torch", unit="us"
)
REPEAT = 1000


def chain(x: Any, c: Any, length: int) -> Any:
    for _ in range(length // 4):
        x = x * 1.01
        x = x + c
        x = x * c
        x = x - 0.5
    return x.sum()


def setup(library: str) -> Callable[[str], Callable[[], Any]]:
    def prepare(case: str) -> Callable[[], Any]:
        lib = importlib.import_module(library)
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
