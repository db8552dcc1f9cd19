"""Small graphs that the text, JSON and verifier tests share."""

from __future__ import annotations

import numpy as np

from tracegrad.ir import Graph, Loc, Node, TensorType, at, bool_, f32, ops, placeholder

HERE = Loc("net.py", 41, "forward", "block1.attn", ("vjp(tanh)",))


def f32_input(*shape: int) -> Node:
    return placeholder(TensorType(shape, f32), Loc("net.py", 1))


def layer() -> Graph:
    """tanh(x @ w) with names, roles, scopes and steps."""
    with at(HERE):
        x, w = f32_input(2, 3), f32_input(3, 4)
        y = ops.tanh(ops.matmul(x, w))
        return Graph((x, w), (y, w * 0.5), ("x", "fc.weight"), ("y", "fc.weight.new"),
                     ("argument", "state"), ("result", "state:fc.weight"), "layer")  # fmt: skip


def branches() -> Graph:
    """A cond whose branches are graphs, one of them with a cond of its own."""
    with at(HERE):

        def branch(name: str, factor: float) -> Graph:
            x = f32_input(2)
            return Graph((x,), (x * factor,), name=name)

        inner_flag, inner_x = placeholder(TensorType((), bool_)), f32_input(2)
        chosen = ops.cond(inner_flag, inner_x, then=branch("a", 2.0), orelse=branch("b", 3.0))
        outer = Graph((inner_flag, inner_x), (ops.proj(chosen, index=0),), name="outer branch")
        flag_, x_ = placeholder(TensorType((), bool_)), f32_input(2)
        other = Graph((flag_, x_), (-x_,), name="other")
        flag, x = placeholder(TensorType((), bool_)), f32_input(2)
        both = ops.cond(flag, flag, x, then=outer, orelse=other)
        return Graph((flag, x), (ops.proj(both, index=0),), name="branches")


def with_constants() -> Graph:
    """Constants of every spelling: splat, short, long, nan, inf, -0.0, odd bits."""
    odd = np.array([0x7FC12345, 0x7F800001], np.uint32).view(np.float32)
    arrays = [
        np.full((4, 5), -0.0, np.float32),
        np.array([1, np.nan, np.inf, -np.inf, -0.0, 0.1, 1e-45], np.float32),
        odd,
        np.arange(40, dtype=np.float32).reshape(8, 5) / 7,
        np.array([1.1 + 2j, complex(np.nan, -0.0)], np.complex64),
        np.array([True, False]),
        np.array([2**63 - 1, -(2**63)], np.int64),
        np.zeros((0, 3), np.float64),
        np.array([0.1, 1 / 3], np.float16),
    ]
    with at(HERE):
        return Graph((), tuple(ops.literal(array) for array in arrays), name="constants")
