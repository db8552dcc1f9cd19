"""A batch sharded over several devices, or several processes, computes what one device computes."""

from __future__ import annotations

import socket
import sys

import numpy as np
import pytest

pytest.importorskip("jax", reason="the JAX backend needs jax")
import jax

import tracegrad.backends.jax as backend
from tests.backends.processes import finish, python, start
from tracegrad.backends.base import BackendError, Mesh, Options
from tracegrad.backends.numpy import interpret
from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, placeholder
from tracegrad.ir.types import TensorType, f32, u32

SPECS = (None, ("data", None), ("data",), None)
OPTIONS = Options(mesh=Mesh.of(data=4), input_specs=SPECS, donate=(0,))


def step_graph() -> Graph:
    """One step of a linear model with dropout: the new w, the loss, the raw bits."""
    w, x, y = (placeholder(TensorType(s, f32)) for s in ((6, 1), (16, 6), (16, 1)))
    key = placeholder(TensorType((2,), u32))
    bits = ops.random_bits(key, shape=(16, 6))
    limit = ops.splat(1 << 31, TensorType((16, 6), u32))
    kept = ops.where(ops.lt(bits, limit), x, ops.zeros_like(x))
    kept = ops.shard(kept, spec=("data", None))
    error = ops.sub(ops.matmul(kept, w), y)
    loss = ops.sum_(ops.mul(error, error), axes=(0, 1))
    slope = ops.matmul(ops.transpose(kept, perm=(1, 0)), error)
    new = ops.sub(w, ops.mul(slope, ops.splat(0.01, slope.type)))
    return Graph(
        (w, x, y, key),
        (new, loss, bits),
        input_names=("w", "x", "y", "key"),
        input_roles=("state", "argument", "argument", "argument"),
        output_roles=("state:w", "result", "result"),
    )


def data() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in ((6, 1), (16, 6), (16, 1))]
    return [*arrays, np.array([0, 42], np.uint32)]


def one_process_of_four_devices() -> None:
    assert len(jax.devices()) == 4
    graph, (w, *batch) = step_graph(), data()
    sharded, single = backend.compile(graph, OPTIONS), backend.compile(graph)
    state, alone = backend.from_numpy(w), backend.from_numpy(w)
    for _ in range(3):
        state, loss, bits = sharded([state, *batch], donate=True)
        alone, expected, same_bits = single([alone, *batch])
        np.testing.assert_allclose(backend.to_numpy(loss), backend.to_numpy(expected), rtol=1e-6)
        np.testing.assert_array_equal(backend.to_numpy(bits), backend.to_numpy(same_bits))
    np.testing.assert_array_equal(backend.to_numpy(bits), interpret(graph, [w, *batch])[2])
    np.testing.assert_allclose(backend.to_numpy(state), backend.to_numpy(alone), rtol=1e-5)
    assert "all-reduce" in sharded.optimised
    assert len(state.sharding.device_set) == 4
    print("agreed")


def one_of_two_processes(address: str, rank: int) -> None:
    """Two processes of two devices each: the stand-in for two hosts."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, 2, rank)
    assert (len(jax.devices()), len(jax.local_devices())) == (4, 2)
    graph, (w, *batch) = step_graph(), data()
    executable = backend.compile(graph, OPTIONS)
    state, host = w, w
    for _ in range(3):
        state, loss, _ = executable([state, *batch], donate=True)
        host, expected, _ = interpret(graph, [host, *batch])
        np.testing.assert_allclose(backend.to_numpy(loss), expected, rtol=1e-5)
    np.testing.assert_allclose(backend.to_numpy(state), host, rtol=1e-5)
    print("agreed")


def test_four_devices_give_the_single_device_loss_and_the_same_random_bits():
    flags = "--xla_force_host_platform_device_count=4"
    assert "agreed" in python(__file__, XLA_FLAGS=flags)


def test_two_processes_of_two_devices_give_the_numpy_loss():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    flags = "--xla_force_host_platform_device_count=2"
    processes = [start(__file__, address, str(rank), XLA_FLAGS=flags) for rank in (0, 1)]
    assert all("agreed" in finish(process) for process in processes)


def test_one_spec_an_input():
    with pytest.raises(BackendError, match="1 input_specs for 4 inputs"):
        backend.compile(step_graph(), Options(mesh=Mesh.of(data=1), input_specs=(None,)))


if __name__ == "__main__":
    if len(sys.argv) == 1:
        one_process_of_four_devices()
    else:
        one_of_two_processes(sys.argv[1], int(sys.argv[2]))
