"""Every op sample gives on JAX what it gives on the kernels; integers and random bits exactly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

pytest.importorskip("jax", reason="the JAX backend needs jax")
import jax
import jax.numpy as jnp

import tracegrad.backends.jax as backend
from tests.agreement import assert_agree, narrowed
from tests.op_samples import SAMPLES
from tests.sampling import Sample
from tracegrad.backends.jax.lowering import CLAIMED, LOWERINGS, STRUCTURE
from tracegrad.backends.numpy import interpret
from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, placeholder
from tracegrad.ir.ops.traits import COMPOSITE, ELEMENTWISE
from tracegrad.ir.types import TensorType, f32, u32

CASES = [
    pytest.param(name, sample, id=f"{name}-{index}{'-' if sample.label else ''}{sample.label}")
    for name, samples in SAMPLES.items()
    for index, sample in enumerate(samples)
]
FLOAT64 = [case for case in CASES if narrowed(case.values[1].arrays(), np.float32) is not None]
# One sample an elementwise op: enough for the rounding, which is what differs in sixteen bits.
SIXTEEN_BITS = list(
    {
        case.values[0]: case
        for case in reversed(FLOAT64)
        if ops.op_named(case.values[0]).has(ELEMENTWISE) and case.values[0] != "complex"
    }.values()
)


LINALG = ("cholesky", "triangular_solve", "qr", "eigh", "svd", "lu")


def compare(name: str, sample: Sample) -> None:
    graph, arrays = sample.graph(name), sample.arrays()
    expected = interpret(graph, arrays)
    results = [backend.to_numpy(x) for x in backend.compile(graph)(arrays)]
    assert_agree(name, results, expected, scale=50 if name in LINALG else 1)


def recast(sample: Sample, dtype: Any) -> Sample:
    """The same sample with its float64 inputs in `dtype`."""
    return replace(sample, build=lambda rng: tuple(narrowed(sample.arrays(), dtype)))


@pytest.mark.parametrize(("name", "sample"), CASES)
def test_a_sample_agrees_with_the_kernels(name, sample):
    compare(name, sample)


@pytest.mark.parametrize(("name", "sample"), FLOAT64)
def test_a_float64_sample_agrees_in_float32(name, sample):
    compare(name, recast(sample, np.float32))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize(("name", "sample"), SIXTEEN_BITS)
def test_a_float64_sample_agrees_in_sixteen_bits(name, sample, dtype):
    compare(name, recast(sample, dtype))


def test_every_primitive_has_a_lowering_and_every_lowering_an_op():
    primitives = {name for name, op in ops.OPS.items() if COMPOSITE not in op.traits}
    assert primitives - LOWERINGS.keys() - STRUCTURE == {"input"} & primitives
    assert LOWERINGS.keys() | STRUCTURE <= ops.OPS.keys()
    assert CLAIMED == {"fold_in", "random_bits"}


def random_graph(shape: tuple[int, ...]) -> Graph:
    key = placeholder(TensorType((2,), u32))
    number = placeholder(TensorType((), u32))
    child = ops.fold_in(key, number)
    return Graph((key, number), (child, ops.random_bits(child, shape=shape)))


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (4, 1025)])
def test_random_bits_are_those_of_the_kernels_and_of_jax_random(shape):
    graph = random_graph(shape)
    executable = backend.compile(graph)
    for key in ([0, 0], [1, 2**31 + 5], [2**32 - 1, 7]):
        for number in (0, 1, 2**32 - 1):
            arrays = [np.array(key, np.uint32), np.array(number, np.uint32)]
            child, bits = map(backend.to_numpy, executable(arrays))
            expected = interpret(graph, arrays)
            np.testing.assert_array_equal(child, expected[0])
            np.testing.assert_array_equal(bits, expected[1])
            theirs = jax.random.bits(jax.random.fold_in(jnp.array(arrays[0]), arrays[1]), shape)
            np.testing.assert_array_equal(bits, theirs)


def test_random_bits_do_not_follow_the_users_generator_settings():
    arrays = [np.array([3, 4], np.uint32), np.array(5, np.uint32)]
    with jax.default_prng_impl("rbg"):
        _, bits = backend.compile(random_graph((9,)))(arrays)
    np.testing.assert_array_equal(backend.to_numpy(bits), interpret(random_graph((9,)), arrays)[1])


@pytest.mark.parametrize("fraction", [0.5, -0.5])
def test_maxima_of_padding_and_ties_go_where_the_kernels_put_them(fraction):
    x = placeholder(TensorType((1, 2, 5, 6), f32))
    window = dict(window=(3, 2), strides=(2, 1), padding=((2, 1), (1, 1)), dilation=(1, 2))
    pooled = ops.window_max(x, **window)
    t = placeholder(pooled.type)
    u = placeholder(x.type)
    graph = Graph(
        (x, t, u),
        (pooled, ops.select_scatter(t, x, **window), ops.select_gather(u, x, **window)),
    )
    rng = np.random.default_rng(0)
    values = np.round(rng.standard_normal(x.shape) * 2).astype(np.float32)
    values[0, 0, 1, 2] = values[0, 1, 3, 3] = np.nan
    values[0, 1, 0] = -np.inf
    t_values = (rng.standard_normal(t.shape) + fraction).astype(np.float32)
    arrays = [values, t_values, rng.standard_normal(u.shape).astype(np.float32)]
    results = [backend.to_numpy(a) for a in backend.compile(graph)(arrays)]
    assert_agree("window", results, interpret(graph, arrays))
