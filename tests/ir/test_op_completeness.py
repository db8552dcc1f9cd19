"""Every op has type rule, gradient or reason, kernel, lowering, samples; failures name the file."""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import keyword
import re
from pathlib import Path

import numpy as np
import pytest

from tests.op_samples import SAMPLES
from tracegrad.backends.numpy import interpret
from tracegrad.backends.numpy.kernels import KERNELS
from tracegrad.ir import ops
from tracegrad.ir.errors import IRError, IRTypeError
from tracegrad.ir.graph import Op
from tracegrad.ir.ops import OPS, op_named, traits

ROOT = Path(__file__).parents[2]
EVERY_OP = pytest.mark.parametrize("op", OPS.values(), ids=OPS.keys())
# Differentiated in passes/autodiff_control.py.
CONTROL_FLOW = {"call", "cond", "while_loop", "scan"}
# Where finite differences see another function than the gradient does: some stop or redirect the
# gradient on purpose, some are defined on symmetric matrices, which a step in one element leaves.
# tests/ir/test_composites.py checks these.
NOT_BY_DIFFERENCES = {"detach", "rebind", "cholesky", "eigh"}


@EVERY_OP
def test_has_a_type_rule(op: Op) -> None:
    assert callable(op.infer), f"{op.name}: give infer= in its paragraph in ir/ops/"


@EVERY_OP
def test_has_a_gradient_or_a_reason(op: Op) -> None:
    there = op.vjp or op.decompose or op.not_differentiable or op.name in CONTROL_FLOW
    assert there, f"{op.name}: give vjp= or not_differentiable='why' in its paragraph in ir/ops/"


@EVERY_OP
def test_has_a_numpy_kernel_or_a_decomposition(op: Op) -> None:
    there = op.name in KERNELS or op.decompose
    assert there, f"{op.name}: add a kernel to backends/numpy/kernels/<family>.py"


@EVERY_OP
def test_has_a_jax_lowering_or_a_decomposition(op: Op) -> None:
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    lowering = importlib.import_module("tracegrad.backends.jax.lowering")
    there = op.name in lowering.LOWERINGS or op.name in lowering.STRUCTURE or op.decompose
    assert there, f"{op.name}: add a lowering to backends/jax/lowering*.py"


@EVERY_OP
def test_has_samples(op: Op) -> None:
    if op is ops.proj:
        pytest.skip("proj is part of every sample of a several-result op")
    assert SAMPLES.get(op.name), f"{op.name}: add samples to tests/op_samples"


@EVERY_OP
def test_differentiable_ops_have_a_checked_sample(op: Op) -> None:
    if op.vjp is None:
        pytest.skip(f"{op.name} has no vjp of its own")
    if op.name in NOT_BY_DIFFERENCES:
        pytest.skip(f"no finite difference judges the gradient of {op.name}")
    samples = SAMPLES.get(op.name, [])
    assert any(s.differentiable and s.grad_check for s in samples), (
        f"{op.name}: add a sample with differentiable=(...) to tests/op_samples"
    )


@EVERY_OP
def test_traits_say_what_the_paragraph_does(op: Op) -> None:
    if op.has(traits.COMPOSITE):
        assert op.decompose, f"{op.name}: COMPOSITE without decompose= in ir/ops/"
    if op.has(traits.REDUCTION):
        assert "axes" in op.attrs, f"{op.name}: REDUCTION without the attribute axes in ir/ops/"
    for sample in SAMPLES.get(op.name, []):
        node = sample.graph(op.name).outputs[0]
        whole = node.inputs[0] if node.op is ops.proj and op is not ops.proj else node
        assert op.has(traits.MULTI) == (not hasattr(whole.type, "shape")) or op.name == "fused", (
            f"{op.name}: MULTI must stand for a tuple result, and only for that"
        )
        assert op.has(traits.SOURCE) == (not whole.inputs), f"{op.name}: SOURCE means no inputs"
        if op.has(traits.ELEMENTWISE):
            assert all(x.shape == whole.shape for x in whole.inputs), f"{op.name}: ELEMENTWISE"


@EVERY_OP
def test_type_rule_agrees_with_the_kernel(op: Op) -> None:
    for sample in SAMPLES.get(op.name, []):
        graph = sample.graph(op.name)
        for value, node in zip(interpret(graph, sample.arrays()), graph.outputs):
            assert isinstance(value, np.ndarray), f"{op.name}: the kernel must return arrays"
            got = (value.shape, value.dtype)
            assert got == (node.shape, node.dtype.np), f"{op.name} {sample.label}: {got}"


@EVERY_OP
def test_flops_are_a_number(op: Op) -> None:
    for sample in SAMPLES.get(op.name, []):
        node = sample.graph(op.name).outputs[0]
        node = node.inputs[0] if node.op is ops.proj and op is not ops.proj else node
        if op.flops is not None:
            assert op.flops(node) >= 0


@EVERY_OP
def test_is_named_in_the_documentation(op: Op) -> None:
    text = (ROOT / "docs" / "ir.md").read_text()
    assert re.search(rf"\b{re.escape(op.name)}\b", text), f"describe {op.name} in docs/ir.md"


def test_no_kernel_or_sample_is_for_an_unknown_op() -> None:
    assert not set(SAMPLES) - set(OPS), "tests/op_samples has samples of ops that do not exist"
    assert not set(KERNELS) - set(OPS), "backends/numpy/kernels has ops that ir/ops lacks"


def test_ops_are_attributes_under_names_that_python_leaves_free() -> None:
    for name, op in OPS.items():
        attribute = name + "_" if keyword.iskeyword(name) or hasattr(builtins, name) else name
        assert getattr(ops, attribute) is op
        assert op_named(name) is op


def test_unknown_names_are_refused_with_a_hint() -> None:
    with pytest.raises(AttributeError, match=r"did you mean ops\.sum_\?"):
        _ = ops.sum
    with pytest.raises(IRError, match="unknown op 'nope'"):
        op_named("nope")


def test_an_incomplete_op_is_refused() -> None:
    with pytest.raises(IRError, match="registered twice"):
        ops.base.register(Op("add", infer=ops.add.infer, not_differentiable="test"))
    with pytest.raises(IRError, match="needs a vjp"):
        ops.base.register(Op("new", infer=ops.add.infer))
    with pytest.raises(IRError, match="no type rule"):
        ops.base.register(Op("new", not_differentiable="test"))
    with pytest.raises(IRError, match="unknown traits"):
        ops.base.register(
            Op("new", infer=ops.add.infer, not_differentiable="x", traits=frozenset({"fast"}))
        )
    assert "new" not in OPS


def test_wrong_inputs_are_refused_with_the_op_and_its_input_types() -> None:
    x, y = ops.literal(np.zeros((2, 3))), ops.literal(np.zeros((3, 2)))
    with pytest.raises(IRTypeError, match=r"add: types differ: f64\[2,3\], f64\[3,2\]"):
        ops.add(x, y)
    with pytest.raises(IRTypeError, match="sub: takes int or float or complex elements, not bool"):
        ops.sub(ops.eq(x, x), ops.eq(x, x))
    with pytest.raises(IRTypeError, match=r"sum: axes \(2,\) must be sorted"):
        ops.sum_(x, axes=(2,))
    with pytest.raises(IRTypeError, match="sum: attributes"):
        ops.sum_(x)
    with pytest.raises(IRTypeError, match="add: wrong number"):
        ops.add(x)
    with pytest.raises(IRTypeError, match="slice: slice 0:9:1 is not canonical for size 3"):
        ops.slice_(x, start=(0, 0), stop=(2, 9), step=(1, 1))
