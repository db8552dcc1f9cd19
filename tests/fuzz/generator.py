"""Random typed graphs, drawn from the op registry.

A graph grows from a pool of float tensors. Each step applies a random op to members of the pool,
with attributes that fit, and puts the result back. Values stay of moderate size: an op with a
narrow domain gets an argument inside it, a growing one is squashed, so that inf and nan do not take
over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tracegrad.ir import DType, Graph, IRTypeError, Loc, Node, Op, TensorType, at, f32, f64, ops
from tracegrad.ir import placeholder as new_input
from tracegrad.ir.ops.traits import ELEMENTWISE

Rng = np.random.Generator
Array = np.ndarray[Any, np.dtype[Any]]

# Maps a number of any size into the domain of the op.
_DOMAIN: dict[str, Callable[[Node], Node]] = {
    **dict.fromkeys(("log", "sqrt", "rsqrt", "lgamma", "digamma"), lambda x: x * x + 1.5),
    "log1p": lambda x: x * x + 0.5,
    "acosh": lambda x: x * x + 1.5,
    **dict.fromkeys(("asin", "acos", "atanh", "erfinv"), lambda x: ops.sin(x) * 0.8),
    **dict.fromkeys(("exp", "expm1", "sinh", "cosh", "tan"), ops.sin),
}
# Steps between representable numbers, jumps and bits: right, but no finite difference or
# comparison across rounding can judge them.
_JUMPS = {"floor", "ceil", "trunc", "round", "sign", "floor_div", "rem", "nextafter"}
_BINARY_SAFE: dict[str, Callable[[Node], Node]] = {
    "div": lambda y: y * y + 1.0,
    "atan2": lambda y: y * y + 1.0,
    "pow": lambda y: ops.sin(y),
}


def _takes(op: Op, count: int, dtype: DType) -> bool:
    """Whether op(x, ...) of `count` tensors of one float type yields that type."""
    type_ = TensorType((2, 3), dtype)
    try:
        return bool(op.infer(*[type_] * count) == type_)
    except (IRTypeError, TypeError):
        return False


def _registered(count: int, jumps: bool) -> list[Op]:
    return [
        op
        for op in ops.OPS.values()
        if op.has(ELEMENTWISE) and not op.attrs and _takes(op, count, f64)
        and (jumps or op.name not in _JUMPS) and (op.vjp or op.decompose or jumps)
    ]  # fmt: skip


class Grower:
    """Grows one graph. The same seed gives the same graph."""

    def __init__(self, seed: int, dtype: DType = f64, jumps: bool = False):
        self.rng = np.random.default_rng(seed)
        self.dtype = dtype
        self.unary = _registered(1, jumps)
        self.binary = _registered(2, jumps)
        self.pool: list[Node] = []
        self.line = 0
        self.makers: list[Callable[[], Node | None]] = [
            self.a_unary, self.a_unary, self.a_binary, self.a_binary, self.a_where,
            self.a_reshape, self.a_transpose, self.a_broadcast, self.a_slice, self.a_pad,
            self.a_concatenate, self.a_reduction, self.a_running_reduction, self.a_matmul,
            self.a_gather, self.a_composite, self.a_cast, self.a_marker, self.a_constant,
        ]  # fmt: skip

    def graph(self, count: int) -> Graph:
        """About `count` nodes, at least three inputs, every sink an output."""
        shapes = [(2, 3), (3,), (), (4, 2, 3), (3, 3)]
        inputs = [new_input(TensorType(shape, self.dtype), Loc("fuzz.py", 0)) for shape in shapes]
        self.pool = list(inputs)
        made = 0
        while made < count:
            self.line += 1
            with at(Loc("fuzz.py", self.line, "grow", f"block{self.line % 7}.fuzz")):
                node = self.choose(self.makers)()
            if node is not None and node.type.size <= 200:
                self.pool.append(node)
                made += 1
        read = {operand for node in self.pool for operand in node.inputs}
        sinks = [node for node in self.pool if node not in read and node not in inputs]
        return Graph(tuple(inputs), tuple(sinks))

    # choices

    def choose(self, options: list[Any]) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def pick(self, test: Callable[[Node], bool] = lambda node: True) -> Node | None:
        """A member of the pool, usually a recent one."""
        fitting = [node for node in self.pool if test(node)]
        if not fitting:
            return None
        return self.choose(fitting[-8:] if self.rng.random() < 0.7 else fitting)

    def any(self) -> Node:
        node = self.pick()
        assert node is not None
        return node

    def like(self, x: Node) -> Node:
        node = self.pick(lambda each: each.type == x.type)
        assert node is not None
        return node

    # one op each; None where nothing in the pool fits

    def a_unary(self) -> Node:
        op, x = self.choose(self.unary), self.any()
        return ops.tanh(op(_DOMAIN[op.name](x) if op.name in _DOMAIN else x))

    def a_binary(self) -> Node:
        op, x = self.choose(self.binary), self.any()
        y = self.like(x)
        if op.name in _BINARY_SAFE:
            y = _BINARY_SAFE[op.name](y)
        if op.name == "pow":
            x = x * x + 0.5
        if op.name == "binary_cross_entropy":
            x = ops.sin(x) * 0.4 + 0.5  # a probability
        return op(x, y) * 0.5

    def a_where(self) -> Node:
        x = self.any()
        y = self.like(x)
        return ops.where(ops.lt(x, y), ops.sin(x), self.like(x) * 0.5)

    def a_reshape(self) -> Node:
        x = self.any()
        size = x.type.size
        shapes = [(size,), (1, size), (size, 1)]
        shapes += [(n, size // n) for n in (2, 3, 4) if size % n == 0]
        return ops.reshape(x, shape=self.choose(shapes))

    def a_transpose(self) -> Node:
        x = self.any()
        return ops.transpose(x, perm=tuple(int(n) for n in self.rng.permutation(x.ndim)))

    def a_broadcast(self) -> Node | None:
        x = self.any()
        if x.ndim > 3:
            return None
        at_axis = int(self.rng.integers(x.ndim + 1))
        dims = tuple(axis + (axis >= at_axis) for axis in range(x.ndim))
        shape = list(x.shape)
        shape.insert(at_axis, int(self.rng.integers(1, 4)))
        grown = [4 if n == 1 and self.rng.random() < 0.5 else n for n in shape]
        return ops.broadcast_to(x, shape=tuple(grown), dims=dims)

    def a_slice(self) -> Node:
        x = self.any()
        start, stop, step = [], [], []
        for n in x.shape:
            low = int(self.rng.integers(0, n))
            stride = int(self.rng.integers(1, 3))
            if self.rng.random() < 0.3:  # backwards to the front
                start.append(n - 1), stop.append(-1), step.append(-stride)
            else:
                start.append(low), stop.append(n), step.append(stride)
        return ops.slice_(x, start=tuple(start), stop=tuple(stop), step=tuple(step))

    def a_pad(self) -> Node:
        x = self.any()
        low, high, interior = (
            tuple(int(n) for n in self.rng.integers(0, 2, x.ndim)) for _ in range(3)
        )
        value = self.pick(lambda node: node.shape == ())
        assert value is not None
        return ops.pad(x, value, low=low, high=high, interior=interior)

    def a_concatenate(self) -> Node | None:
        x = self.pick(lambda node: node.ndim > 0)
        if x is None:
            return None
        return ops.concatenate(x, self.like(x), axis=int(self.rng.integers(x.ndim)))

    def _axes(self, x: Node) -> tuple[int, ...]:
        return tuple(axis for axis in range(x.ndim) if self.rng.random() < 0.5)

    def a_reduction(self) -> Node:
        x = self.any()
        op = self.choose([ops.sum_, ops.max_, ops.min_, ops.prod])
        return ops.tanh(op(x, axes=self._axes(x)))

    def a_running_reduction(self) -> Node | None:
        x = self.pick(lambda node: node.ndim > 0)
        if x is None:
            return None
        op = self.choose([ops.cumsum, ops.cummax, ops.cumlogsumexp])
        return ops.tanh(op(x, axis=int(self.rng.integers(x.ndim))))

    def a_matmul(self) -> Node | None:
        x = self.pick(lambda node: node.ndim >= 2)
        if x is None:
            return None
        y = self.pick(lambda node: node.ndim == 2 and node.shape[0] == x.shape[-1])
        if y is None:
            y = ops.transpose(self.like(x), perm=(*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))
        elif x.ndim > 2:
            shape = (*x.shape[:-2], *y.shape)
            y = ops.broadcast_to(y, shape=shape, dims=(x.ndim - 2, x.ndim - 1))
        return ops.tanh(ops.matmul(x, y))

    def a_gather(self) -> Node | None:
        x = self.pick(lambda node: node.ndim > 0)
        if x is None:
            return None
        axis = int(self.rng.integers(x.ndim))
        index = ops.literal(self.rng.integers(0, x.shape[axis], 3).astype(np.int64))
        return ops.gather(x, index, axes=(axis,))

    def a_composite(self) -> Node | None:
        x = self.pick(lambda node: node.ndim > 0)
        if x is None:
            return None
        axis = int(self.rng.integers(x.ndim))
        return self.choose(
            [
                lambda: ops.softmax(x, axis=axis),
                lambda: ops.log_softmax(x, axis=axis) * 0.1,
                lambda: ops.logsumexp(x, axis=axis),
                lambda: ops.gelu(x, approximate="tanh"),
                lambda: ops.sigmoid(x),
                lambda: ops.silu(x),
                lambda: ops.softplus(x, beta=1.0, threshold=20.0),
            ]
        )()

    def a_cast(self) -> Node:
        x = self.any()
        wide = f64 if self.dtype is f32 else f32
        if self.dtype is f64:
            return ops.cast(ops.cast(x, dtype=f64), dtype=f64)
        return ops.cast(ops.cast(x, dtype=wide), dtype=self.dtype)

    def a_marker(self) -> Node:
        return ops.fence(self.any())

    def a_constant(self) -> Node:
        x = self.any()
        value = self.choose([0.0, -0.0, 1.0, 0.5, 2.0, -1.0, 0.1])
        filled = ops.splat(value, x.type)
        op = self.choose([ops.add, ops.sub, ops.mul])
        pair = (x, filled) if self.rng.random() < 0.5 else (filled, x)
        return ops.tanh(op(*pair))


def random_graph(
    seed: int, count: int, dtype: DType = f64, jumps: bool = False
) -> tuple[Graph, list[Array]]:
    """A graph of about `count` random steps, and arrays for its inputs."""
    grower = Grower(seed, dtype, jumps)
    graph = grower.graph(count)
    arrays = [
        np.asarray(grower.rng.normal(0, 1, node.shape)).astype(dtype.np) for node in graph.inputs
    ]
    return graph, arrays
