"""The matrix products of a training step and nothing else, into buffers made once where that can be.

What no step on the same BLAS, or on XLA, takes less than.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from interleave import Skip

MLP = [(784, 512), (512, 512), (512, 10)]  # (inputs, outputs) of every linear layer
GPT = [*[(384, 1152), (384, 384), (384, 1536), (1536, 384)] * 6, (384, 65)]  # without attention
GPT_TOKENS = 8 * 256


def sizes(case: str) -> list[tuple[int, int, int]]:
    """(rows, depth, columns) of every product: outputs, gradients of weights, gradients of inputs."""
    if case.startswith("mlp"):
        layers, rows = MLP, int(case.split("-b")[1])
    elif case == "gpt":
        layers, rows = GPT, GPT_TOKENS
    else:
        raise Skip("the products of this case are not listed")
    of_inputs = layers[1:] if case.startswith("mlp") else layers  # images need no gradient
    return [
        *[(rows, i, o) for i, o in layers],
        *[(i, rows, o) for i, o in layers],
        *[(rows, o, i) for i, o in of_inputs],
    ]


def operands(case: str) -> list[tuple[Any, Any]]:
    """Two matrices of random float32 for every product."""
    random = np.random.default_rng(0)
    return [(random.random((n, m), "f4"), random.random((m, k), "f4")) for n, m, k in sizes(case)]


def of_numpy(case: str) -> Callable[[], None]:
    """By NumPy's BLAS."""
    pairs = [(x, y, np.empty((len(x), y.shape[1]), "f4")) for x, y in operands(case)]

    def step() -> None:
        for left, right, out in pairs:
            np.matmul(left, right, out=out)

    return step


def of_torch(case: str) -> Callable[[], None]:
    """By PyTorch's BLAS."""
    try:
        import torch
    except ImportError as error:
        raise Skip(str(error)) from None
    pairs = [
        (torch.tensor(x), torch.tensor(y), torch.empty(len(x), y.shape[1]))
        for x, y in operands(case)
    ]

    def step() -> None:
        for left, right, out in pairs:
            torch.mm(left, right, out=out)

    return step


def of_jax(case: str) -> Callable[[], None]:
    """By one executable of XLA, which makes its results."""
    try:
        import jax
    except ImportError as error:
        raise Skip(str(error)) from None
    pairs = jax.device_put(operands(case))
    jitted = jax.jit(lambda pairs: [left @ right for left, right in pairs])
    return lambda: jax.block_until_ready(jitted(pairs))  # type: ignore[no-any-return]
