"""Random graphs shaped like training steps: chains, row statistics, products, new state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, Node, placeholder
from tracegrad.ir.ops.build import along, full_like, greater, spread, swap
from tracegrad.ir.types import TensorType, f32

Rng = np.random.Generator
Array = np.ndarray[Any, Any]
ROWS, COLUMNS = 12, 10


def random_graph(seed: int, nodes: int = 40) -> Graph:
    """Inputs x, y [12,10], w [10,10], v [10], s [12], c []; some are state with new values."""
    rng = np.random.default_rng(seed)
    shapes = [(ROWS, COLUMNS), (ROWS, COLUMNS), (COLUMNS, COLUMNS), (COLUMNS,), (ROWS,), ()]
    inputs = [placeholder(TensorType(shape, f32)) for shape in shapes]
    pool = list(inputs)
    while len(pool) < nodes:
        pool.append(_grown(rng, pool))
    outputs, names, roles = [], [], []
    for index in rng.choice(len(pool), 4, replace=False):
        outputs.append(pool[index])
        names.append(f"out{len(outputs)}")
        roles.append("result")
    input_names = ("x", "y", "w", "v", "s", "c")
    for name, node in zip(input_names, inputs):
        same = [n for n in pool if n.type == node.type]
        if rng.random() < 0.6:
            outputs.append(same[int(rng.integers(len(same)))])
            names.append(f"new_{name}")
            roles.append(f"state:{name}")
    return Graph(
        tuple(inputs), tuple(outputs), input_names, tuple(names), ("state",) * 6, tuple(roles)
    )


def _grown(rng: Rng, pool: list[Node]) -> Node:
    """One more node on those in `pool`, mostly on recent ones; values stay of moderate size."""

    def pick(test: Callable[[Node], bool]) -> Node:
        fitting = [node for node in pool if test(node)]
        recent = fitting[-6:] if rng.random() < 0.7 else fitting
        return recent[int(rng.integers(len(recent)))]

    def like(x: Node) -> Node:
        return pick(lambda n: n.type == x.type)

    x = pick(lambda n: True)
    choice = int(rng.integers(17))
    if choice < 3:
        unary = (ops.tanh, ops.neg, ops.sin, ops.abs_)[int(rng.integers(4))]
        return unary(x)
    if choice < 5:
        binary = (ops.add, ops.sub, ops.maximum, ops.mul)[int(rng.integers(4))]
        return ops.tanh(binary(x, like(x)))
    if choice == 5:
        return ops.where(greater(x, full_like(x, 0.1)), like(x), full_like(x, 0.0))
    if choice == 6:
        return ops.where(greater(x, like(x)), like(x), like(x))
    if choice == 7:
        return ops.rsqrt(x * x + 1.0)
    x = pick(lambda n: n.shape == (ROWS, COLUMNS))
    if choice == 8:
        reduction = (ops.sum_, ops.max_, ops.min_)[int(rng.integers(3))]
        row = reduction(x, axes=(1,)) * 0.1
        return row if rng.random() < 0.3 else x - spread(row, x.shape, (1,))
    if choice == 9:
        row = pick(lambda n: n.shape == (ROWS,))
        column = pick(lambda n: n.shape == (COLUMNS,))
        return x * spread(row, x.shape, (1,)) + along(column, x.shape, (1,))
    if choice == 10:
        return ops.tanh(ops.matmul(x, pick(lambda n: n.shape == (COLUMNS, COLUMNS))))
    if choice == 11:
        return ops.tanh(ops.matmul(swap(x), like(x)))
    if choice == 12:  # the sum of a product, whose factors are read again
        other = like(x)
        row = ops.sum_(x * other, axes=(1,)) * 0.1
        return ops.tanh(other - x * spread(row, x.shape, (1,)))
    if choice == 13:
        cut = int(rng.integers(1, COLUMNS))
        return ops.concatenate(ops.tanh(columns(x, 0, cut)), columns(x, cut, COLUMNS), axis=1)
    if choice == 14:
        zero = ops.splat(0, TensorType((), f32))
        left = ops.pad(columns(x, 0, 4), zero, low=(0, 0), high=(0, 6), interior=(0, 0))
        other = ops.sin(columns(like(x), 3, 9))
        return left + ops.pad(other, zero, low=(0, 4), high=(0, 0), interior=(0, 0))
    if choice == 15:  # elements in another order, and back in shape
        turned = ops.reshape(swap(x), shape=(4, 30))
        return ops.reshape(ops.transpose(turned, perm=(1, 0)), shape=(ROWS, COLUMNS))
    axes = ((0,), (1,), (0, 1))[int(rng.integers(3))]
    return ops.sum_(x, axes=axes) * 0.1


def columns(x: Node, first: int, last: int) -> Node:
    return ops.slice_(x, start=(0, first), stop=(ROWS, last), step=(1, 1))


def random_arrays(graph: Graph, seed: int) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(n.shape), n.dtype.np) for n in graph.inputs]
