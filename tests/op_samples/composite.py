"""Samples of composites."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.op_samples.builders import Shape, Table, in_dtype, key, normals
from tests.sampling import Array, Rng, Sample, distinct, integers, normal


def activation_samples() -> Table:
    table: Table = {}
    for name in ("softmax", "log_softmax", "logsumexp"):
        samples = [normals((3, 4), axis=axis, label=f"axis{axis}") for axis in (0, 1)]
        extreme = Sample(
            lambda rng: (np.array([[800.0, 799.0, -np.inf], [-900.0, -901.0, 3.0]]),),
            {"axis": 1}, (), label="large",
        )  # fmt: skip
        table[name] = [
            *samples,
            in_dtype(samples[1], np.float32),
            in_dtype(samples[1], np.float16),
            extreme,
        ]
    far = Sample(lambda rng: (np.array([-800.0, -60.0, 0.5, 60.0, 800.0]),), label="far")
    for name in ("sigmoid", "silu"):
        table[name] = [normals((2, 3)), in_dtype(normals((2, 3)), np.float32), far]
    edges = np.array([-0.0, 0.0, np.nan, np.inf, -np.inf])
    table["relu"] = [
        Sample(lambda rng: (distinct(rng, 2, 3) + 0.03,), {}, (0,)),
        Sample(lambda rng: (edges,), {}, (0,), False, "edges"),
        Sample(lambda rng: (integers(rng, -3, 4, 5),), label="i64"),
    ]  # fmt: skip
    soft = {"beta": 1.5, "threshold": 2.0}
    table["softplus"] = [
        normals((2, 3), beta=1.0, threshold=20.0),
        Sample(lambda rng: (np.array([-3.0, 0.5, 1.2, 1.5, 40.0]),), soft, (0,), label="threshold"),
        Sample(
            lambda rng: (np.array([-800.0, 800.0]),), {"beta": 1.0, "threshold": 1e9}, label="far"
        ),
    ]
    table["gelu"] = [
        sample
        for approximate in ("none", "tanh")
        for sample in (
            normals((2, 3), approximate=approximate, label=approximate),
            in_dtype(normals((2, 3), approximate=approximate), np.float32),
        )
    ]
    return table


def norm_samples() -> Table:
    def layer(ndim: int) -> Sample:
        x = (2, 3, 4)
        return normals(x, x[3 - ndim :], x[3 - ndim :], ndim=ndim, eps=1e-5, label=f"last{ndim}")

    layers = [layer(1), layer(2), in_dtype(layer(1), np.float32), in_dtype(layer(1), np.float16)]
    rms = normals((2, 3, 4), (4,), ndim=1, eps=1e-6, label="last1")
    return {
        "layer_norm": layers,
        "layer_norm_stats": layers,
        "rms_norm": [
            rms,
            normals((2, 3, 4), (3, 4), ndim=2, eps=1e-6, label="last2"),
            in_dtype(rms, np.float32),
        ],
        "batch_norm": [
            normals((4, 3), (3,), (3,), eps=1e-5, label="rows"),
            normals((2, 3, 2, 2), (3,), (3,), eps=1e-5, label="images"),
            in_dtype(normals((4, 3), (3,), (3,), eps=1e-5), np.float32),
        ],
    }  # fmt: skip


def loss_samples() -> Table:
    def rows(*targets: int, ignore: int = -100, label: str) -> Sample:
        return Sample(
            lambda rng: (normal(rng, len(targets), 4), np.array(targets, np.int64)),
            {"ignore_index": ignore}, (0,), label=label,
        )  # fmt: skip

    def probabilities(rng: Rng) -> tuple[Any, ...]:
        return rng.uniform(0.1, 0.9, (2, 3)), rng.uniform(0.1, 0.9, (2, 3))

    plain = rows(0, 3, 1, label="plain")
    soft = Sample(probabilities, {}, (0, 1))
    return {
        "binary_cross_entropy": [soft, in_dtype(soft, np.float32)],
        "cross_entropy": [
            plain,
            rows(0, -100, 2, label="ignored"),
            rows(1, 1, 2, ignore=1, label="ignored-class"),
            in_dtype(plain, np.float32),
        ],
    }


def attention_samples() -> Table:
    q, k, v = (2, 1, 3, 4), (2, 1, 5, 4), (2, 1, 5, 2)
    square = ((1, 2, 4, 3),) * 3
    causal = normals(*square, causal=True, scale=0.6, label="causal")

    def backward(causal: bool) -> Sample:
        shapes = ((1, 2, 4, 3),) * 5
        return normals(*shapes, (1, 2, 4), causal=causal, scale=0.6, label=f"causal-{causal}")

    def masked(rng: Rng) -> tuple[Array, ...]:
        # the last row of the first image sees nothing
        mask = np.where(rng.random((2, 1, 3, 5)) < 0.3, -np.inf, rng.standard_normal((2, 1, 3, 5)))
        mask[:, :, :, 0] = 0.2
        mask[0, 0, 2] = -np.inf
        return normal(rng, *q), normal(rng, *k), normal(rng, *v), mask

    return {
        "sdpa": [
            normals(q, k, v, causal=False, scale=0.5, label="full"),
            causal,
            normals(q, k, v, causal=True, scale=0.5, label="causal-wide"),
            in_dtype(causal, np.float32),
        ],
        "sdpa_backward": [backward(False), backward(True)],
        "sdpa_mask": [
            normals(q, k, v, (2, 1, 3, 5), scale=0.5, label="finite"),
            Sample(masked, {"scale": 0.5}, (0, 1, 2), False, "hidden"),
        ],
    }


def recurrent_samples() -> Table:
    def shapes(steps: int) -> tuple[Shape, ...]:
        n, i, h = 2, 3, 2
        return ((steps, n, i), (n, h), (n, h), (4 * h, i), (4 * h, h), (4 * h,), (4 * h,))

    def cotangents(steps: int) -> tuple[Shape, ...]:
        return (steps, 2, 2), (2, 2), (2, 2)

    return {
        "lstm": [
            normals(*shapes(3), label="3"),
            normals(*shapes(1), label="1"),
            normals(*shapes(0), label="no-steps"),
            in_dtype(normals(*shapes(3)), np.float32),
        ],
        "lstm_backward": [normals(*cotangents(3), *shapes(3), (3, 2, 2), label="3")],
    }


def other_samples() -> Table:
    def top(k: int, axis: int, largest: bool) -> Sample:
        return Sample(
            lambda rng: (distinct(rng, 3, 5),),
            {"k": k, "axis": axis, "largest": largest}, (0,), label=f"{k}-{axis}-{largest}",
        )  # fmt: skip

    return {
        "dropout": [
            Sample(lambda rng: (normal(rng, 4, 5), key(rng)), {"rate": rate}, (0,), label=str(rate))
            for rate in (0.0, 0.3, 1.0)
        ],
        "topk": [top(2, 1, True), top(3, 0, False), top(5, 1, True), top(0, 1, True)],
    }
