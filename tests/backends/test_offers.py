"""What every backend's package offers by one set of names."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from tracegrad.backends.base import backend_named
from tracegrad.ir.graph import Graph, placeholder
from tracegrad.ir.ops import OPS
from tracegrad.ir.types import TensorType, f32

no_jax = pytest.mark.skipif(find_spec("jax") is None, reason="the JAX backend needs jax")
BACKENDS = ["numpy", pytest.param("jax", marks=no_jax)]


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_compiles_and_says_what_runs(name: str) -> None:
    backend = backend_named(name)
    x = placeholder(TensorType((3,), f32))
    executable = backend.compile(Graph((x,), (x + x,)))
    (result,) = executable([backend.own_array(np.ones(3, np.float32))])
    np.testing.assert_array_equal(np.asarray(result), 2)
    assert executable.backend == name and executable.source
    assert backend.SOURCE_FILE.startswith("source.")


@pytest.mark.parametrize("name", BACKENDS)
def test_what_a_backend_runs_whole_can_be_decomposed(name: str) -> None:
    for op in backend_named(name).claimed():
        assert OPS[op].decompose is not None


@pytest.mark.parametrize("name", BACKENDS)
def test_an_own_array_is_a_copy(name: str) -> None:
    array = np.arange(1000.0)
    own = backend_named(name).own_array(array)
    array[:] = 0
    assert np.asarray(own)[5] == 5
