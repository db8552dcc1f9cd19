"""Calling compiled XLA programs: donation, 64-bit types, private copies, flags, control flow."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest

pytest.importorskip("jax", reason="the JAX backend needs jax")
import jax

import tracegrad.backends.jax as backend
from tests.backends.processes import python
from tracegrad.backends.base import (
    BackendError,
    CheckFailed,
    DivisionByZero,
    IndexOutOfRange,
    KernelError,
    LinAlgError,
    Mesh,
    Options,
    TooManyTrips,
    UnsupportedOp,
)
from tracegrad.backends.jax.settings import prune
from tracegrad.backends.numpy import interpret
from tracegrad.ir import loc, ops
from tracegrad.ir.graph import Graph, Node, Op, emit, placeholder
from tracegrad.ir.types import TensorType, dtype_named


def tensor(dtype: str, *shape: int) -> Node:
    return placeholder(TensorType(shape, dtype_named(dtype)))


def run(graph: Graph, *arrays: np.ndarray) -> list[np.ndarray]:
    """The outputs on JAX, after checking that the NumPy kernels give the same."""
    expected = interpret(graph, list(arrays))
    results = [backend.to_numpy(x) for x in backend.compile(graph)(list(arrays))]
    for result, wanted in zip(results, expected, strict=True):
        assert result.dtype == wanted.dtype
        np.testing.assert_allclose(result, wanted, rtol=1e-6)
    return results


def doubling(dtype: str = "f32", count: int = 1) -> Graph:
    inputs = tuple(tensor(dtype, 4) for _ in range(count))
    names = tuple(f"s{i}" for i in range(count))
    return Graph(
        inputs,
        tuple(ops.add(x, x) for x in inputs),
        input_names=names,
        input_roles=("state",) * count,
        output_roles=tuple(f"state:{name}" for name in names),
    )


def test_importing_the_backend_does_not_import_jax():
    code = (
        "import sys, numpy, tracegrad.backends.jax as b; assert 'jax' not in sys.modules\n"
        "assert not b.is_jax_array(numpy.ones(2)); assert 'jax' not in sys.modules"
    )
    python("-c", code)


def test_missing_jax_is_a_typed_error_that_names_the_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(backend.JaxNotInstalledError, match=r"pip install 'tracegrad\[jax\]'"):
        backend.compile(doubling())


def test_float64_needs_no_global_setting():
    before = jax.config.jax_enable_x64
    executable = backend.compile(doubling("f64"))
    x = np.arange(4.0) / 3
    (once,) = executable([x])
    (twice,) = executable([once])
    assert once.dtype == np.float64
    np.testing.assert_array_equal(backend.to_numpy(twice), 4 * x)
    assert backend.from_numpy(x).dtype == np.float64
    assert jax.config.jax_enable_x64 == before


def test_to_numpy_is_a_read_only_view_and_from_numpy_a_private_copy():
    x = np.ones(4, np.float32)
    array = backend.from_numpy(x)
    x[:] = 7
    view = backend.to_numpy(array)
    assert view.tolist() == [1, 1, 1, 1]
    assert view.ctypes.data == array.unsafe_buffer_pointer()
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 2


def test_overwriting_an_argument_after_the_call_changes_nothing():
    x = tensor("f32", 700, 700)
    y = x
    for _ in range(8):
        y = ops.matmul(y, x)
    executable = backend.compile(Graph((x,), (y,)))
    eye = np.eye(700, dtype=np.float32)
    for _ in range(5):
        argument = eye.copy()
        (result,) = executable([argument])
        argument[:] = np.nan
        np.testing.assert_array_equal(backend.to_numpy(result), eye)


def test_donation_deletes_the_state_and_only_when_asked():
    executable = backend.compile(doubling(count=3), Options(donate=(0, 2)))
    states = [backend.from_numpy(np.full(4, i, np.float32)) for i in range(3)]
    executable(states)
    assert [x.is_deleted() for x in states] == [False, False, False]
    results = executable(states, donate=True)
    assert [x.is_deleted() for x in states] == [True, False, True]
    assert [backend.to_numpy(x)[0] for x in results] == [0, 2, 4]
    with pytest.raises(KernelError, match="s0, s2 was donated"):
        executable(states)


def test_a_state_that_no_output_can_take_over_is_not_donated():
    x = tensor("f32", 4)
    executable = backend.compile(Graph((x,), (ops.sum_(x, axes=(0,)),)), Options(donate=(0,)))
    array = backend.from_numpy(np.ones(4, np.float32))
    (total,) = executable([array], donate=True)
    assert backend.to_numpy(total) == 4
    assert not array.is_deleted()


def test_a_numpy_view_of_a_donated_state_keeps_its_values():
    executable = backend.compile(doubling(), Options(donate=(0,)))
    states = [backend.from_numpy(np.ones(4, np.float32))]
    view = backend.to_numpy(states[0])
    free = backend.may_donate(states, 1)
    assert not free
    executable(states, donate=True)[0].block_until_ready()
    assert view.tolist() == [1, 1, 1, 1]


def test_may_donate_counts_references():
    # Results are named first: pytest's rewritten asserts hold references of their own.
    states = [backend.from_numpy(np.ones(4, np.float32)) for _ in range(3)]
    free = backend.may_donate(states, 1)
    assert free
    other = states[0]
    free, known = backend.may_donate(states, 1), backend.may_donate(states, 2)
    assert not free and known
    rest = states[1:]
    free, known = backend.may_donate(rest, 1), backend.may_donate(rest, 2)
    assert not free and known
    assert other is states[0]


def test_wrong_arguments_name_the_input():
    executable = backend.compile(doubling(count=2))
    good = np.ones(4, np.float32)
    with pytest.raises(KernelError, match=r"input 's1' .* float32\[3\], compiled for f32\[4\]"):
        executable([good, np.ones(3, np.float32)])
    with pytest.raises(KernelError, match="takes 2 arrays, got 1"):
        executable([good])


def gather_graph() -> Graph:
    x, index = tensor("f32", 5, 2), tensor("i64", 3)
    with loc.at(loc.Loc("net.py", 41)):
        return Graph((x, index), (ops.gather(x, index, axes=(0,)),))


def test_an_index_out_of_range_raises_at_the_next_synchronisation_with_the_line():
    executable = backend.compile(gather_graph())
    x = np.ones((5, 2), np.float32)
    for wrong in (5, -1):
        (result,) = executable([x, np.array([0, wrong, 4])])
        with pytest.raises(IndexOutOfRange, match=r"(?s)\[0, 5\).*net\.py:41"):
            backend.to_numpy(result)
        backend.raise_pending()  # told once
        assert np.isnan(np.asarray(result)[1]).all()


def test_a_flag_that_nobody_reads_raises_some_calls_later():
    executable = backend.compile(gather_graph())
    x, good, wrong = np.ones((5, 2), np.float32), np.array([0, 1, 2]), np.array([0, 1, 9])
    executable([x, wrong])
    with pytest.raises(IndexOutOfRange):
        for _ in range(100):
            executable([x, good])
    backend.raise_pending()


def test_hazards_can_be_switched_off():
    executable = backend.compile(gather_graph(), Options(hazards=False))
    (result,) = executable([np.ones((5, 2), np.float32), np.array([0, 9, 4])])
    assert np.isnan(backend.to_numpy(result)[1]).all()


def test_integer_division_by_zero_and_a_matrix_that_is_not_positive_definite():
    x, y = tensor("i64", 3), tensor("i64", 3)
    division = backend.compile(Graph((x, y), (ops.floor_div(x, y),)))
    division([np.arange(3), np.array([1, 0, 2])])
    with pytest.raises(DivisionByZero):
        backend.raise_pending()
    m = tensor("f64", 2, 2)
    factor = backend.compile(Graph((m,), (ops.cholesky(m),)))
    factor([-np.eye(2)])
    with pytest.raises(LinAlgError, match="positive definite"):
        backend.raise_pending()


def test_a_false_check_raises_at_the_end_of_the_call_and_keeps_its_inputs():
    with loc.at(loc.Loc("train.py", 7)):
        x, y = tensor("f32"), tensor("f32")
        graph = Graph(
            (x, y),
            (ops.check(ops.lt(x, y), message="the loss must fall", kind="check"), ops.add(x, y)),
            output_roles=("check", "result"),
        )
    executable = backend.compile(graph, Options(donate=(0,)))
    one, two = (backend.from_numpy(np.array(v, np.float32)) for v in (1, 2))
    assert backend.to_numpy(executable([one, two])[1]) == 3
    with pytest.raises(CheckFailed, match=r"(?s)the loss must fall.*train\.py:7"):
        executable([two, one], donate=True)
    assert not two.is_deleted()


def test_an_op_without_a_lowering_is_a_typed_error_with_the_line():
    x = tensor("f32", 2)
    odd = Op("odd", infer=lambda x: x)
    with loc.at(loc.Loc("net.py", 3)), pytest.raises(UnsupportedOp, match=r"(?s)odd.*net\.py:3"):
        backend.compile(Graph((x,), (emit(odd, x),)))


def branches() -> tuple[Graph, Graph]:
    x, i = tensor("f32", 3), tensor("i64", 1)
    taken = ops.broadcast_to(ops.gather(x, i, axes=(0,)), shape=(3,), dims=(0,))
    then = Graph((x, i), (taken,))
    y, j = tensor("f32", 3), tensor("i64", 1)
    return then, Graph((y, j), (ops.neg(y),))


def test_cond_reports_the_hazard_of_the_branch_it_takes():
    then, orelse = branches()
    pred, x, i = tensor("bool"), tensor("f32", 3), tensor("i64", 1)
    both = ops.cond(pred, x, i, then=then, orelse=orelse)
    graph = Graph((pred, x, i), (ops.proj(both, index=0),))
    values = np.arange(3, dtype=np.float32)
    run(graph, np.array(True), values, np.array([2]))
    run(graph, np.array(False), values, np.array([1]))
    executable = backend.compile(graph)
    executable([np.array(False), values, np.array([7])])
    backend.raise_pending()
    executable([np.array(True), values, np.array([7])])
    with pytest.raises(IndexOutOfRange):
        backend.raise_pending()


def counting(bound: int | None) -> Graph:
    c, t = tensor("f32"), tensor("f32")
    condition = Graph((c, t), (ops.lt(c, t),))
    c, t = tensor("f32"), tensor("f32")
    body = Graph((c, t), (ops.add(c, ops.literal(np.array(1, np.float32))), t))
    c, t = tensor("f32"), tensor("f32")
    loop = ops.while_loop(c, t, cond=condition, body=body, max_trips=bound)
    return Graph((c, t), (ops.proj(loop, index=0),))


def test_while_loop_and_its_bound():
    for start, stop in ((0, 5), (6, 5)):
        run(counting(None), np.array(start, np.float32), np.array(stop, np.float32))
    zero, five = np.array(0, np.float32), np.array(5, np.float32)
    run(counting(5), zero, five)
    with pytest.raises(TooManyTrips, match="max_trips=4"):
        backend.compile(counting(4))([zero, five])


def test_scan_is_one_loop_whatever_its_length():
    carry, x = tensor("f32", 2), tensor("f32", 2)
    new = ops.add(carry, x)
    body = Graph((carry, x), (new, ops.mul(new, new)))
    c, xs = tensor("f32", 2), tensor("f32", 50, 2)
    both = ops.scan(c, xs, body=body, carries=1, length=50)
    graph = Graph((c, xs), (ops.proj(both, index=0), ops.proj(both, index=1)))
    run(graph, np.zeros(2, np.float32), np.arange(100, dtype=np.float32).reshape(50, 2))
    assert backend.compile(graph).source.count("stablehlo.while") == 1


def test_a_check_inside_a_scan_raises():
    x = tensor("f32")
    limit = ops.literal(np.array(3, np.float32))
    body = Graph((x,), (ops.check(ops.lt(x, limit), message="too large", kind="check"),))
    xs = tensor("f32", 4)
    scanned = ops.scan(xs, body=body, carries=0, length=4)
    executable = backend.compile(Graph((xs,), (ops.proj(scanned, index=0),)))
    executable([np.array([0, 1, 2, 2.5], np.float32)])
    with pytest.raises(CheckFailed, match="too large"):
        executable([np.array([0, 5, 2, 2.5], np.float32)])


def test_fence_stays_and_scopes_reach_the_program():
    x = tensor("f32", 4)
    with loc.at(loc.Loc("net.py", 1, scope="block1.attn")):
        y = ops.exp(ops.fence(x))
    executable = backend.compile(Graph((x,), (y,)))
    assert "optimization_barrier" in executable.source
    assert "block1/attn" in executable.optimised
    assert executable.memory["arguments"] == 16


def test_the_compilation_cache_fills_its_folder_and_leaves_the_setting_alone(tmp_path):
    before = jax.config.jax_compilation_cache_dir
    graph = doubling()
    backend.compile(graph, Options(cache_dir=str(tmp_path)))
    kept = sorted(tmp_path.iterdir())
    assert any(path.name.endswith("-cache") for path in kept)
    executable = backend.compile(graph, Options(cache_dir=str(tmp_path)))
    assert [p.name for p in sorted(tmp_path.iterdir())] == [p.name for p in kept]
    assert backend.to_numpy(executable([np.ones(4, np.float32)])[0]).tolist() == [2, 2, 2, 2]
    assert jax.config.jax_compilation_cache_dir == before


def test_a_mesh_larger_than_the_machine_says_what_to_do():
    with pytest.raises(BackendError, match="xla_force_host_platform_device_count=512"):
        backend.compile(doubling(), Options(mesh=Mesh.of(data=512)))


def test_the_compilation_cache_folder_is_bounded_oldest_first(tmp_path):
    for age, name in enumerate(("new", "middle", "old")):
        path = tmp_path / f"{name}-cache"
        path.write_bytes(bytes(100))
        os.utime(path, (1000 - age, 1000 - age))
    prune(tmp_path, 250)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["middle-cache", "new-cache"]


def test_an_unknown_device_lists_the_known_ones():
    with pytest.raises(BackendError, match="XLA sees cpu:0"):
        backend.compile(doubling(), Options(device="cpu:99"))
