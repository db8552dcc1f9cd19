"""Samples of random bits, structure and markers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.op_samples.builders import Shape, Table, key, normals
from tests.sampling import Sample, normal
from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, Node, placeholder
from tracegrad.ir.types import DType, TensorType, f64


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
