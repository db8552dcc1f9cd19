"""What a sample of an op is, and the arrays that samples are made of.

`tests/op_samples` holds the table. A sample is a valid call of one op: its inputs, its
attributes, and which inputs a gradient check may perturb. Inputs stay clear of kinks and poles
unless the point of the sample is to sit on one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, placeholder
from tracegrad.ir.loc import Loc, at
from tracegrad.ir.types import TensorType, TupleType, dtype_of

Array = np.ndarray[Any, np.dtype[Any]]
Rng = np.random.Generator


@dataclass(frozen=True)
class Sample:
    """One call of an op.

    build          generator -> the input arrays
    attrs          the op's attributes, all of them
    differentiable indices of the inputs to take gradients of
    grad_check     whether finite differences can judge those gradients
    label          what is special about it; part of the test's name
    """

    build: Callable[[Rng], tuple[Any, ...]]
    attrs: dict[str, Any] = field(default_factory=dict)
    differentiable: tuple[int, ...] = ()
    grad_check: bool = True
    label: str = ""

    def arrays(self, seed: int = 0) -> list[Array]:
        """The inputs, always ndarrays, the same for the same seed."""
        return [np.asarray(value) for value in self.build(np.random.default_rng(seed))]

    def graph(self, op_name: str) -> Graph:
        """The one-op graph of this sample; a several-result op has an output for each part."""
        inputs = tuple(
            placeholder(TensorType(a.shape, dtype_of(a.dtype)), Loc("sample.py", 1))
            for a in self.arrays()
        )
        with at(Loc("sample.py", 2, op_name)):
            node = ops.op_named(op_name)(*inputs, **self.attrs)
            if isinstance(node.type, TupleType):
                parts = range(len(node.type.parts))
                return Graph(inputs, tuple(ops.proj(node, index=k) for k in parts))
        return Graph(inputs, (node,))


def normal(rng: Rng, *shape: int, dtype: Any = np.float64) -> Array:
    return np.asarray(rng.standard_normal(shape)).astype(dtype)


def between(rng: Rng, low: float, high: float, *shape: int, dtype: Any = np.float64) -> Array:
    return np.asarray(rng.uniform(low, high, shape)).astype(dtype)


def nonzero(rng: Rng, *shape: int, dtype: Any = np.float64) -> Array:
    """Of both signs, and at least 0.3 from zero."""
    return np.asarray(rng.uniform(0.3, 2.0, shape) * rng.choice([-1.0, 1.0], shape)).astype(dtype)


def distinct(rng: Rng, *shape: int, dtype: Any = np.float64) -> Array:
    """No two elements closer than 0.25, so that no small step changes their order."""
    count = int(np.prod(shape))
    return (rng.permutation(count) * 0.25 - 0.1 * count).reshape(shape).astype(dtype)


def complex_normal(rng: Rng, *shape: int, dtype: Any = np.complex128) -> Array:
    return np.asarray(rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)


def integers(rng: Rng, low: int, high: int, *shape: int, dtype: Any = np.int64) -> Array:
    """From [low, high)."""
    return np.asarray(rng.integers(low, high, shape)).astype(dtype)


def bools(rng: Rng, *shape: int) -> Array:
    return np.asarray(rng.random(shape) < 0.5)
