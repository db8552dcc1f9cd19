"""Whole training steps: forward, loss, backward, optimiser; PyTorch eager, tracegrad eager and
compiled, the MLP by hand, and what the step's matrix products alone take.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import by_hand
import models
import numpy as np
import products
from interleave import Bench, Skip

bench = Bench(
    "train step", cases=["mlp-b64", "mlp-b512", "cnn", "gpt-small", "gpt"], baseline="torch"
)


def workload(lib: Any, case: str) -> Callable[[], Any]:
    """(step function, its arguments) for one case."""
    random = np.random.default_rng(0)
    lib.manual_seed(0)
    if case.startswith("mlp"):
        batch = int(case.split("-b")[1])
        model = models.mlp(lib, (784, 512, 512, 10))
        optimizer = lib.optim.SGD(model.parameters(), lr=0.05)
        x = lib.tensor(random.standard_normal((batch, 784)).astype("f4"))
        y = lib.tensor(random.integers(0, 10, batch))
        classes = 10
    elif case == "cnn":
        model = models.cnn(lib)
        optimizer = lib.optim.Adam(model.parameters(), lr=1e-3)
        x = lib.tensor(random.standard_normal((64, 1, 28, 28)).astype("f4"))
        y = lib.tensor(random.integers(0, 10, 64))
        classes = 10
    else:
        layers, heads, width, context, batch = (
            (6, 6, 384, 256, 8) if case == "gpt" else (2, 4, 128, 64, 8)
        )
        classes = 65
        model = models.gpt(lib, layers, heads, width, context, classes)
        parameters = list(model.parameters())
        optimizer = lib.optim.AdamW(
            [
                {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.1},
                {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
            ],
            lr=3e-4, betas=(0.9, 0.99),
        )  # fmt: skip
        x = lib.tensor(random.integers(0, classes, (batch, context)))
        y = lib.tensor(random.integers(0, classes, (batch, context)))

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad(set_to_none=True)
        loss = lib.nn.functional.cross_entropy(model(x).view(-1, classes), y.view(-1))
        loss.backward()
        optimizer.step()
        return loss

    return step, (x, y)  # type: ignore[return-value]


def implementation(library: str, backend: str | None) -> Callable[[str], Callable[[], Any]]:
    def prepare(case: str) -> Callable[[], Any]:
        try:
            lib = importlib.import_module(library)
            if backend == "jax":
                importlib.import_module("jax")
        except ImportError as error:
            raise Skip(str(error)) from None
        step, arguments = workload(lib, case)  # type: ignore[misc]
        if backend:
            step = lib.compile(step, backend=backend)

        def run() -> float:
            return float(step(*arguments).detach())

        run.step = step  # type: ignore[attr-defined]
        return run

    return prepare


bench.implementation("torch")(implementation("torch", None))
bench.implementation("tracegrad-numpy")(implementation("tracegrad", "numpy"))
bench.implementation("tracegrad-jax")(implementation("tracegrad", "jax"))
bench.implementation("tracegrad-eager")(implementation("tracegrad", None))
bench.implementation("numpy-by-hand")(by_hand.with_numpy)
bench.implementation("jax-by-hand")(by_hand.with_jax)
bench.implementation("numpy-products")(products.of_numpy)
bench.implementation("jax-products")(products.of_jax)
bench.implementation("torch-products")(products.of_torch)

if __name__ == "__main__":
    bench.main()
