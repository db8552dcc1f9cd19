"""The MLP's training step as an expert writes it against NumPy and against `jax.jit`.

What a compiled step can be held against on any processor: the products are the same BLAS's or XLA's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from interleave import Skip

SIZES = (784, 512, 512, 10)
RATE = 0.05


def data(case: str) -> tuple[list[Any], list[Any], Any, Any]:
    """Weights (inputs, outputs), biases, a batch of images and their classes; all float32 but the last."""
    if not case.startswith("mlp"):
        raise Skip("only the MLP is written by hand")
    random = np.random.default_rng(0)
    batch = int(case.split("-b")[1])
    weights = [
        random.uniform(-(inputs**-0.5), inputs**-0.5, (inputs, outputs)).astype("f4")
        for inputs, outputs in zip(SIZES, SIZES[1:])
    ]
    biases = [np.zeros(outputs, "f4") for outputs in SIZES[1:]]
    images = random.standard_normal((batch, SIZES[0])).astype("f4")
    return weights, biases, images, random.integers(0, SIZES[-1], batch)


def with_numpy(case: str) -> Callable[[], float]:
    """Every buffer is made once; the step allocates only what indexing and the loss need."""
    weights, biases, images, classes = data(case)
    batch, rows = len(images), np.arange(len(images))
    last = len(weights) - 1
    outputs = [np.empty((batch, size), "f4") for size in SIZES[1:]]
    cotangents = [np.empty_like(out) for out in outputs]
    positive = [np.empty(out.shape, bool) for out in outputs]
    updates = [np.empty_like(weight) for weight in weights]
    of_bias = [np.empty_like(bias) for bias in biases]
    total = np.empty((batch, 1), "f4")

    def step() -> float:
        below = images
        for k, (weight, bias, out) in enumerate(zip(weights, biases, outputs)):
            np.matmul(below, weight, out=out)
            out += bias
            if k < last:
                np.greater(out, 0, out=positive[k])
                np.maximum(out, 0, out=out)
            below = out
        scores, g = outputs[last], cotangents[last]
        scores -= scores.max(1, keepdims=True)
        np.exp(scores, out=g)
        g.sum(1, keepdims=True, out=total)
        loss = (np.log(total[:, 0]) - scores[rows, classes]).mean()
        g /= total
        g[rows, classes] -= 1
        g *= np.float32(1 / batch)
        for k in range(last, -1, -1):
            g = cotangents[k]
            np.matmul((outputs[k - 1] if k else images).T, g, out=updates[k])
            g.sum(0, out=of_bias[k])
            if k:
                np.matmul(g, weights[k].T, out=cotangents[k - 1])
                cotangents[k - 1] *= positive[k - 1]
            updates[k] *= RATE
            of_bias[k] *= RATE
            weights[k] -= updates[k]
            biases[k] -= of_bias[k]
        return float(loss)

    return step


def with_jax(case: str) -> Callable[[], float]:
    """One jitted function; the weights are donated."""
    parameters_and_batch = data(case)
    try:
        import jax
        import jax.numpy as jnp
    except ImportError as error:
        raise Skip(str(error)) from None
    weights, biases, images, classes = jax.device_put(parameters_and_batch)

    def loss_of(parameters: Any, images: Any, classes: Any) -> Any:
        x = images
        for k, (weight, bias) in enumerate(zip(*parameters)):
            x = x @ weight + bias
            if k < len(SIZES) - 2:
                x = jnp.maximum(x, 0)
        of_class = jnp.take_along_axis(jax.nn.log_softmax(x), classes[:, None], 1)
        return -of_class.mean()

    def update(parameters: Any, images: Any, classes: Any) -> Any:
        loss, gradients = jax.value_and_grad(loss_of)(parameters, images, classes)
        return loss, jax.tree.map(lambda p, g: p - RATE * g, parameters, gradients)

    jitted = jax.jit(update, donate_argnums=0)
    parameters = (weights, biases)

    def step() -> float:
        nonlocal parameters
        loss, parameters = jitted(parameters, images, classes)
        jax.block_until_ready(parameters)
        return float(loss)

    return step
