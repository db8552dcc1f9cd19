"""Generated code against the plain kernels: every sample of every op, and the rules of an executable."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from tests.agreement import assert_agree
from tests.op_samples import SAMPLES
from tests.sampling import Sample
from tracegrad.backends.base import BackendError, IndexOutOfRange, KernelError, Options
from tracegrad.backends.numpy import compile, interpret
from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, Node, placeholder
from tracegrad.ir.loc import Loc, at
from tracegrad.ir.types import TensorType, f32, i64

Array = np.ndarray[Any, Any]
ALL_SAMPLES = [
    pytest.param(name, sample, id=f"{name}-{index}-{sample.label}")
    for name, samples in SAMPLES.items()
    for index, sample in enumerate(samples)
]


def tensor(*shape: int) -> Node:
    return placeholder(TensorType(shape, f32))


def arrays_for(graph: Graph, seed: int = 0) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(n.shape), n.dtype.np) for n in graph.inputs]


@pytest.mark.parametrize("op, sample", ALL_SAMPLES)
def test_every_sample_equals_its_kernel(op: str, sample: Sample) -> None:
    graph, arrays = sample.graph(op), sample.arrays()
    before = [array.copy() for array in arrays]
    expected = interpret(graph, arrays)
    for options in (Options(), Options(poison=True)):
        results = compile(graph, options)(arrays)
        assert_agree(op, results, expected)
        for result in results:
            assert not any(np.may_share_memory(result, array) for array in arrays)
    for array, old in zip(arrays, before):
        np.testing.assert_array_equal(array, old)
