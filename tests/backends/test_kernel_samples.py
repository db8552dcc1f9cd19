"""Every op sample: results of the right types; direct composites equal their decomposition."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from tests.agreement import assert_agree, narrowed
from tests.op_samples import SAMPLES
from tests.sampling import Sample
from tracegrad.backends import base
from tracegrad.backends.numpy import KERNELS, interpret, run_node
from tracegrad.backends.numpy.interpret import decomposition
from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, Node, placeholder
from tracegrad.ir.loc import Loc, at
from tracegrad.ir.ops import OPS
from tracegrad.ir.types import TensorType, bool_, dtype_of, f32, i64

CASES = [(name, k) for name, samples in SAMPLES.items() for k in range(len(samples))]
DIRECT = [(name, k) for name, k in CASES if name in KERNELS and OPS[name].decompose]


def call(name: str, sample: Sample, arrays: list[np.ndarray]) -> Node:
    inputs = tuple(placeholder(TensorType(a.shape, dtype_of(a.dtype))) for a in arrays)
    return ops.op_named(name)(*inputs, **sample.attrs)


@pytest.mark.parametrize("name, k", CASES)
def test_results_have_the_type_of_the_rule(name: str, k: int) -> None:
    sample = SAMPLES[name][k]
    arrays = sample.arrays()
    before = [array.copy() for array in arrays]
    graph = sample.graph(name)
    for node, result in zip(graph.outputs, interpret(graph, arrays), strict=True):
        assert type(result) is np.ndarray
        assert (result.shape, result.dtype) == (node.type.shape, node.type.dtype.np)
    for array, copy in zip(arrays, before):
        np.testing.assert_array_equal(array, copy, err_msg="an input was written to")


@pytest.mark.parametrize("dtype", [None, np.float32, ml_dtypes.bfloat16, np.float16])
@pytest.mark.parametrize("name, k", DIRECT)
def test_direct_composites_are_their_decomposition(name: str, k: int, dtype: object) -> None:
    sample = SAMPLES[name][k]
    narrow = sample if dtype is None else narrowed(sample, dtype)
    if narrow is None:
        pytest.skip("the sample has no float64 input to narrow")
    arrays = narrow.arrays()
    node = call(name, narrow, arrays)
    results = run_node(node, arrays)
    expected = interpret(decomposition(node), arrays)
    results = list(results) if isinstance(results, tuple) else [results]
    # the decomposition of a 16-bit loop rounds at every step, the kernel once
    assert_agree(name, results, expected, scale=8.0 if name == "lstm" else 1.0)


def test_an_error_names_the_op_and_the_line() -> None:
    x, index = placeholder(TensorType((3,), f32)), placeholder(TensorType((2,), i64))
    with at(Loc("model.py", 41, "forward", "embed")):
        node = ops.gather(x, index, axes=(0,))
    graph = Graph((x, index), (node,))
    with pytest.raises(base.IndexOutOfRange, match=r"^index 3 .*\n.*model.py:41") as caught:
        interpret(graph, [np.zeros(3, np.float32), np.array([0, 3])])
    assert caught.value.loc == node.loc
    assert isinstance(caught.value, IndexError)


def test_an_error_inside_a_loop_keeps_its_own_line() -> None:
    matrix = TensorType((2, 2), f32)
    x = placeholder(matrix)
    with at(Loc("inner.py", 7)):
        body = Graph((x,), (ops.cholesky(x),))
    outer = placeholder(matrix)
    with at(Loc("outer.py", 1)):
        node = ops.scan(outer, body=body, carries=1, length=1)
        graph = Graph((outer,), (ops.proj(node, index=0),))
    with pytest.raises(base.LinAlgError, match="inner.py:7"):
        interpret(graph, [-np.eye(2, dtype=np.float32)])


def test_a_failing_kernel_says_which_inputs_it_had() -> None:
    x = placeholder(TensorType((2,), f32))
    with at(Loc("model.py", 3)):
        graph = Graph((x,), (ops.reshape(x, shape=(2, 1)),))
    with pytest.raises(base.KernelError, match=r"reshape: ValueError.*f32\[2\].*\n.*model.py:3"):
        interpret(graph, [np.zeros(3, np.float32)])


def test_wrong_number_of_arrays() -> None:
    x = placeholder(TensorType((2,), f32))
    with pytest.raises(base.KernelError, match="takes 1 arrays, 0 were given"):
        interpret(Graph((x,), (x,)), [])


def test_values_are_dropped_after_their_last_reader() -> None:
    import tracemalloc

    x = placeholder(TensorType((1 << 20,), f32))
    node: Node = x
    for _ in range(16):
        node = ops.neg(node)
    graph, array = Graph((x,), (node,)), np.ones(1 << 20, np.float32)
    interpret(graph, [array])  # makes the plan
    tracemalloc.start()
    interpret(graph, [array])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * array.nbytes  # one value and its successor, not sixteen


def test_check_raises_its_message() -> None:
    x = placeholder(TensorType((), bool_))
    with at(Loc("model.py", 9)):
        graph = Graph((x,), (ops.check(x, message="loss is not finite", kind="check"),))
    assert interpret(graph, [np.array(True)])[0]
    with pytest.raises(base.CheckFailed, match=r"loss is not finite\n.*model.py:9"):
        interpret(graph, [np.array(False)])


def test_errors_survive_pickling() -> None:
    import pickle

    error = base.IndexOutOfRange("index 3", "gather", Loc("model.py", 1))
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), type(copy), copy.loc) == (str(error), type(error), error.loc)
