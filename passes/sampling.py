"""Plausible arrays for the inputs of a graph, to run it before and after a pass."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.ir.graph import Graph
from tracegrad.ir.types import TensorType, u32

Array = np.ndarray[Any, np.dtype[Any]]


def generate_inputs(graph: Graph, seed: int = 0) -> list[Array]:
    """One array per input, the same for the same seed.

    State and host numbers (weights, variances, learning rates) are small and positive, other floats
    of both signs; integers, which may be indices, are 0 or 1; u32 are random keys. A program may
    still refuse them (a Cholesky factor of an arbitrary matrix), and then tells nothing.
    """
    random = np.random.default_rng(seed)
    return [
        _array(node.type, role in ("state", "host"), random)
        for node, role in zip(graph.inputs, graph.input_roles)
    ]


def _array(type_: TensorType, positive: bool, random: np.random.Generator) -> Array:
    dtype, shape = type_.dtype, type_.shape
    values: Array
    if dtype.is_bool:
        values = random.random(shape) < 0.5
    elif dtype is u32:
        values = random.integers(0, 1 << 32, shape, dtype=np.uint64)
    elif dtype.is_int:
        values = random.integers(0, 2, shape)
    elif positive:
        values = random.uniform(0.05, 0.5, shape)
    elif dtype.is_complex:
        values = random.normal(0, 0.5, shape) + 1j * random.normal(0, 0.5, shape)
    else:
        values = random.normal(0, 0.5, shape)
    return np.asarray(values).astype(dtype.np)
