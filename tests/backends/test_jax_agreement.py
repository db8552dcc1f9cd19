"""Every op sample gives on JAX what it gives on the kernels; integers and random bits exactly."""

from __future__ import annotations

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

LINALG = ("cholesky", "triangular_solve", "qr", "eigh", "svd", "lu")
ELEMENTWISE_OPS = [name for name in SAMPLES if ops.op_named(name).has(ELEMENTWISE)]


def compare(samples: list[tuple[str, str, Sample]]) -> None:
    """Run (op, label, sample) triples as one program: one compilation for all of them."""
    graphs = [sample.graph(name) for name, _, sample in samples]
    arrays = [sample.arrays() for _, _, sample in samples]
    whole = Graph(
        tuple(node for graph in graphs for node in graph.inputs),
        tuple(node for graph in graphs for node in graph.outputs),
    )
    results = iter(backend.compile(whole)([array for given in arrays for array in given]))
    for (name, label, _), graph, given in zip(samples, graphs, arrays):
        mine = [backend.to_numpy(next(results)) for _ in graph.outputs]
        scale = 50 if name in LINALG else 1
        assert_agree(name, mine, interpret(graph, given), scale, label)


def numbered(name: str, dtype: Any = None) -> list[tuple[str, str, Sample]]:
    """The samples of an op, with float64 inputs as `dtype` if given (others are left out)."""
    found = []
    for index, sample in enumerate(SAMPLES[name]):
        chosen = sample if dtype is None else narrowed(sample, dtype)
        if chosen is not None:
            label = f"{name}[{index}] {sample.label} {'' if dtype is None else np.dtype(dtype)}"
            found.append((name, label, chosen))
    return found


@pytest.mark.parametrize("name", SAMPLES)
def test_the_samples_of_an_op_agree_with_the_kernels(name):
    compare(numbered(name) + numbered(name, np.float32))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_elementwise_ops_agree_in_sixteen_bits(dtype):
    names = [name for name in ELEMENTWISE_OPS if name != "complex"]  # it takes f32 or f64 only
    samples = [sample for name in names for sample in numbered(name, dtype)]
    assert len(samples) > 50
    compare(samples)


def test_every_primitive_has_a_lowering_and_every_lowering_an_op():
    primitives = {name for name, op in ops.OPS.items() if COMPOSITE not in op.traits}
    assert primitives - LOWERINGS.keys() - STRUCTURE == {"input"} & primitives
    assert LOWERINGS.keys() | STRUCTURE <= ops.OPS.keys()
    assert {name for name in LOWERINGS if ops.op_named(name).decompose is not None} == CLAIMED


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
