"""Samples of contractions, windows, linear algebra, random bits, structure, markers and composites.

Merged into `tests.op_samples.SAMPLES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.sampling import Array, Rng, Sample, bools, complex_normal, distinct, integers, normal
from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, Node, placeholder
from tracegrad.ir.types import DType, TensorType, f64

Table = dict[str, list[Sample]]
Shape = tuple[int, ...]


def normals(
    *shapes: Shape, label: str = "", wrt: tuple[int, ...] | None = None, **attrs: Any
) -> Sample:
    """Normal f64 inputs of these shapes, all of them differentiable unless `wrt` says which."""
    return Sample(
        lambda rng: tuple(normal(rng, *shape) for shape in shapes),
        attrs,
        tuple(range(len(shapes))) if wrt is None else wrt,
        label=label,
    )


def in_dtype(sample: Sample, dtype: Any) -> Sample:
    """The same call with its f64 inputs in `dtype`; too coarse for finite differences."""

    def build(rng: Rng) -> tuple[Any, ...]:
        return tuple(
            a.astype(dtype) if np.asarray(a).dtype == np.float64 else a for a in sample.build(rng)
        )

    return Sample(build, sample.attrs, sample.differentiable, False, np.dtype(dtype).name)


# ---------------------------------------------------------------- contractions and windows


def conv_attrs(rank: int, **changes: Any) -> dict[str, Any]:
    ones = (1,) * rank
    plain = {
        "strides": ones,
        "padding": ((0, 0),) * rank,
        "lhs_dilation": ones,
        "rhs_dilation": ones,
        "groups": 1,
    }
    return {**plain, **changes}


def conv(label: str, x: Shape, w: Shape, **changes: Any) -> Sample:
    return normals(x, w, label=label, **conv_attrs(len(x) - 2, **changes))


def contraction_samples() -> Table:
    square = conv("2d", (2, 3, 5, 6), (4, 3, 3, 2))
    product = normals((2, 3), (3, 4), label="matrix")
    return {
        "matmul": [
            product,
            in_dtype(product, np.float32),
            normals((2, 3, 4), (2, 4, 2), label="batch"),
            normals((0, 3), (3, 4), label="empty"),
            normals((2, 0), (0, 4), label="nothing-to-sum"),
            Sample(
                lambda rng: (complex_normal(rng, 2, 3), complex_normal(rng, 3, 2)),
                differentiable=(0, 1),
                label="complex",
            ),
            Sample(
                lambda rng: (integers(rng, -3, 4, 2, 3), integers(rng, -3, 4, 3, 2)), label="i64"
            ),
            Sample(lambda rng: (bools(rng, 2, 3), bools(rng, 3, 2)), label="bool"),
        ],
        "conv": [
            square,
            in_dtype(square, np.float32),
            conv("1d", (2, 3, 7), (4, 3, 3), padding=((1, 2),)),
            conv("3d", (1, 2, 3, 4, 3), (2, 2, 2, 2, 2)),
            # stride 2 leaves a remainder on the first axis, none on the second
            conv("strided", (2, 2, 6, 7), (3, 2, 3, 3), strides=(2, 2), padding=((0, 0), (1, 1))),
            conv("dilated", (1, 2, 7, 8), (2, 2, 3, 2), rhs_dilation=(2, 3), strides=(1, 2)),
            conv(
                "transposed",
                (1, 2, 3, 4),
                (2, 2, 3, 3),
                lhs_dilation=(2, 3),
                padding=((2, 1), (0, 2)),
            ),
            conv("cropped", (1, 2, 7, 7), (2, 2, 2, 2), padding=((-1, -2), (-2, 1))),
            conv(
                "padded-beyond",
                (1, 1, 3, 3),
                (1, 1, 2, 2),
                padding=((3, 4), (2, 3)),
                strides=(2, 3),
            ),
            conv("grouped", (2, 4, 5, 5), (6, 2, 3, 3), groups=2, strides=(2, 1)),
            conv("depthwise", (2, 3, 5), (6, 1, 3), groups=3, padding=((1, 1),)),
            conv("nothing-fits", (1, 1, 2, 2), (1, 1, 3, 3)),
        ],
    }


def window_attrs(window: Shape, **changes: Any) -> dict[str, Any]:
    ones = (1,) * len(window)
    return {"window": window, "strides": ones, "padding": ((0, 0),) * len(window), **changes}


TALL = window_attrs((3, 2), strides=(2, 1), padding=((1, 1), (0, 1)), dilation=(1, 1))
MAX_CASES: list[tuple[str, Shape, dict[str, Any]]] = [
    ("2x2", (2, 1, 4, 6), window_attrs((2, 2), strides=(2, 2), dilation=(1, 1))),
    ("overlap", (1, 2, 6, 5), TALL),
    ("dilated", (2, 7), window_attrs((3,), strides=(2,), padding=((1, 1),), dilation=(2,))),
]  # fmt: skip


def window_samples() -> Table:
    def apart(rng: Rng, shape: Shape) -> Array:
        return distinct(rng, *shape)

    def results(shape: Shape, attrs: dict[str, Any]) -> Shape:
        result = ops.window_max.infer(TensorType(shape, f64), **attrs)
        assert isinstance(result, TensorType)
        return result.shape

    wide = window_attrs((2, 3), strides=(2, 2), padding=((1, 0), (1, 2)))

    table: Table = {
        "window_sum": [
            normals((2, 3, 5), label="1d", **window_attrs((3,), strides=(2,))),
            normals((1, 2, 5, 6), label="2d", **wide),
            normals((4, 3), label="padded-beyond", **window_attrs((2,), padding=((2, 3),))),
            normals((6,), label="stride-gap", **window_attrs((2,), strides=(3,))),
        ],
        "window_max": [], "select_scatter": [], "select_gather": [],
    }  # fmt: skip
    for label, shape, attrs in MAX_CASES:
        out = results(shape, attrs)
        table["window_max"].append(
            Sample(lambda rng, s=shape: (apart(rng, s),), attrs, (0,), label=label)
        )
        table["select_scatter"].append(
            Sample(
                lambda rng, s=shape, o=out: (normal(rng, *o), apart(rng, s)),
                attrs,
                (0,),
                label=label,
            )
        )
        table["select_gather"].append(
            Sample(lambda rng, s=shape: (normal(rng, *s), apart(rng, s)), attrs, (0,), label=label)
        )
    ties = window_attrs((2,), strides=(2,), dilation=(1,))
    table["window_max"].append(
        Sample(
            lambda rng: (np.array([[1.0, 1.0, np.nan, 2.0, 2.0, np.nan]]),),
            ties,
            (0,),
            False,
            "ties",
        )
    )
    return table


# ---------------------------------------------------------------- linear algebra


def positive_definite(rng: Rng, *shape: int) -> Array:
    root = normal(rng, *shape)
    return root @ np.swapaxes(root, -1, -2) + 2.0 * np.eye(shape[-1])


def well_conditioned(rng: Rng, *shape: int) -> Array:
    """Singular values 1, 2, 3, ...: no two close, none small."""
    *batch, m, n = shape
    k = min(m, n)
    u = np.linalg.qr(normal(rng, *batch, m, k))[0]
    v = np.linalg.qr(normal(rng, *batch, n, k))[0]
    return np.asarray((u * np.arange(1.0, k + 1)) @ np.swapaxes(v, -1, -2))


def diagonal_heavy(rng: Rng, *shape: int) -> Array:
    return normal(rng, *shape) + 4.0 * np.eye(shape[-1])


def linalg_samples() -> Table:
    def matrix(
        draw: Callable[..., Array], *shape: int, grad: bool = True, label: str = ""
    ) -> Sample:
        text = label or "x".join(map(str, shape))
        return Sample(lambda rng: (draw(rng, *shape),), {}, (0,), grad, text)

    def solve(lower: bool, transpose: bool, unit: bool) -> Sample:
        attrs = {"lower": lower, "transpose": transpose, "unit_diagonal": unit}
        label = "-".join(name for name, on in attrs.items() if on) or "upper"
        return Sample(
            lambda rng: (diagonal_heavy(rng, 2, 3, 3), normal(rng, 2, 3, 2)),
            attrs,
            (0, 1),
            label=label,
        )

    symmetric = [
        matrix(positive_definite, 3, 3, grad=False),
        matrix(positive_definite, 2, 3, 3, grad=False),
    ]
    # eigh and cholesky are defined on symmetric matrices only; a finite difference in one element
    # leaves them: tests/ir/test_composites.py compares these gradients with PyTorch instead.
    return {
        "cholesky": symmetric,
        "triangular_solve": [
            solve(lower, transpose, unit)
            for lower in (False, True) for transpose in (False, True) for unit in (False, True)
        ],
        "qr": [matrix(well_conditioned, *shape) for shape in ((3, 3), (2, 4, 3), (3, 5))],
        "eigh": symmetric,
        "svd": [matrix(well_conditioned, *shape) for shape in ((3, 3), (2, 4, 3), (3, 5))],
        "lu": [matrix(diagonal_heavy, 3, 3), matrix(diagonal_heavy, 2, 4, 4),
               Sample(lambda rng: (normal(rng, 4, 3),), label="tall")],
    }  # fmt: skip


# ---------------------------------------------------------------- random bits, structure, markers


def key(rng: Rng) -> Array:
    return np.asarray(rng.integers(0, 2**32, 2)).astype(np.uint32)


def graph_of(function: Callable[..., Any], *types: tuple[Shape, DType]) -> Graph:
    inputs = tuple(placeholder(TensorType(shape, dtype)) for shape, dtype in types)
    outputs = function(*inputs)
    return Graph(inputs, outputs if isinstance(outputs, tuple) else (outputs,))


def _trip(x: Node, n: Node) -> tuple[Node, Node]:
    return ops.sin(x) * 1.5, n - 1.0


def _rnn_step(h: Node, w: Node, x: Node) -> tuple[Node, Node, Node]:
    new = ops.tanh(ops.matmul(h, w) + x)
    return new, w, new * x


def structure_samples() -> Table:
    pair = ((3,), f64)
    both = graph_of(lambda x, y: (x * y, ops.sin(x)), pair, pair)
    other = graph_of(lambda x, y: (x + y, x * 2.0), pair, pair)
    counting = (((2,), f64), ((), f64))
    until = graph_of(lambda x, n: ops.lt(ops.splat(0, n.type), n), *counting)
    trip = graph_of(_trip, *counting)
    step = graph_of(_rnn_step, ((2, 3), f64), ((3, 3), f64), ((2, 3), f64))

    def branch(pred: bool) -> Sample:
        return Sample(
            lambda rng: (np.array(pred), normal(rng, 3), normal(rng, 3)),
            {"then": both, "orelse": other}, (1, 2), label=str(pred),
        )  # fmt: skip

    def loop(trips: float, bound: int | None) -> Sample:
        return Sample(
            lambda rng: (normal(rng, 2), np.array(trips)),
            {"cond": until, "body": trip, "max_trips": bound},
            () if bound is None else (0,), label=f"{trips:g}-of-{bound}",
        )  # fmt: skip

    return {
        "fold_in": [Sample(lambda rng: (key(rng), np.array(7, np.uint32)))],
        "random_bits": [
            Sample(lambda rng: (key(rng),), {"shape": shape}, label=str(shape))
            for shape in ((), (5,), (2, 3), (0, 2))
        ],
        "call": [normals((3,), (3,), graph=both)],
        "cond": [branch(True), branch(False)],
        "while_loop": [loop(3.0, None), loop(3.0, 5), loop(0.0, 2), loop(2.0, 2)],
        "scan": [
            normals((2, 3), (3, 3), (4, 2, 3), body=step, carries=2, length=4, label="rnn"),
            normals((2, 3), (3, 3), (0, 2, 3), body=step, carries=2, length=0, label="no-steps"),
        ],
        "fence": [normals((2, 3))],
        # no finite difference agrees with a gradient that is stopped or sent elsewhere on purpose
        "detach": [Sample(lambda rng: (normal(rng, 2, 3),))],
        "rebind": [Sample(lambda rng: (normal(rng, 3), normal(rng, 3)), {}, (0,), False)],
        "check": [
            Sample(lambda rng: (np.array(True),), {"message": "all is well", "kind": kind})
            for kind in ("check", "value", "linalg")
        ],
        "shard": [normals((2, 3), spec=("data", None))],
        "fused": [
            Sample(lambda rng: (normal(rng, 3), normal(rng, 3)), {"graph": both}, label="several"),
            Sample(
                lambda rng: (normal(rng, 3),), {"graph": graph_of(ops.exp, pair)}, label="single"
            ),
        ],
    }


# ---------------------------------------------------------------- composites


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
        ]
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


SAMPLES_2: Table = {
    **contraction_samples(),
    **window_samples(),
    **linalg_samples(),
    **structure_samples(),
    **activation_samples(),
    **norm_samples(),
    **loss_samples(),
    **attention_samples(),
    **recurrent_samples(),
    **other_samples(),
}
