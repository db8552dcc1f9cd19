"""Composites, windows and factorisations against PyTorch: values, gradients of orders 1 and 2.

First-order gradients are taken twice: by the op's own rule and through its decomposition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.op_samples import SAMPLES
from tests.sampling import Array, Sample
from tracegrad.backends.numpy import interpret
from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError, MissingVJPError
from tracegrad.ir.graph import Graph, placeholder
from tracegrad.ir.types import TensorType, bf16, f32, f64
from tracegrad.passes.autodiff import gradient_graph, reverse
from tracegrad.passes.decompose import Decompose

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these values and gradients")
F = torch.nn.functional


def plain_conv(
    x: Any, w: Any, strides: Any, padding: Any, lhs_dilation: Any, rhs_dilation: Any, groups: int
) -> Any:
    assert set(lhs_dilation) == {1}
    edges = [edge for pair in reversed(padding) for edge in pair]
    function = (F.conv1d, F.conv2d, F.conv3d)[x.ndim - 3]
    return function(F.pad(x, edges), w, None, strides, 0, rhs_dilation, groups)


def layer_norm(x: Any, weight: Any, bias: Any, ndim: int, eps: float) -> Any:
    return F.layer_norm(x, x.shape[x.ndim - ndim :], weight, bias, eps)


def batch_norm(x: Any, weight: Any, bias: Any, eps: float) -> Any:
    axes = [axis for axis in range(x.ndim) if axis != 1]
    y = F.batch_norm(x, None, None, weight, bias, training=True, eps=eps)
    return y, x.mean(axes), x.var(axes, correction=0)


def sdpa(q: Any, k: Any, v: Any, causal: bool, scale: float) -> Any:
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):  # has second order
        out = F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)
    scores = q @ k.mT * scale
    if causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        scores = scores.masked_fill(~seen, -torch.inf)
    return out, scores.logsumexp(-1)


def lstm(x: Any, h0: Any, c0: Any, *weights: Any) -> Any:
    y, h, c = torch.lstm(x, (h0[None], c0[None]), weights, True, 1, 0.0, True, False, False)
    return y, h[0], c[0]


def window_max(x: Any, window: Any, strides: Any, padding: Any, dilation: Any) -> Any:
    edges = [edge for pair in reversed(padding) for edge in pair]
    pool = (F.max_pool1d, F.max_pool2d)[len(window) - 1]
    return pool(F.pad(x, edges, value=-torch.inf), window, strides, 0, dilation)


REFERENCES: dict[str, Callable[..., Any]] = {
    "softmax": lambda x, axis: x.softmax(axis),
    "log_softmax": lambda x, axis: x.log_softmax(axis),
    "logsumexp": lambda x, axis: x.logsumexp(axis),
    "sigmoid": lambda x: x.sigmoid(),
    "silu": F.silu,
    "relu": F.relu,
    "softplus": F.softplus,
    "gelu": F.gelu,
    "layer_norm": layer_norm,
    "rms_norm": lambda x, w, ndim, eps: F.rms_norm(x, x.shape[x.ndim - ndim :], w, eps),
    "batch_norm": batch_norm,
    "cross_entropy": lambda x, t, ignore_index: F.cross_entropy(
        x, t, reduction="none", ignore_index=ignore_index
    ),
    "sdpa": sdpa,
    "lstm": lstm,
    "topk": lambda x, k, axis, largest: tuple(x.topk(k, axis, largest)),
    "matmul": torch.matmul,
    "conv": plain_conv,
    "window_max": window_max,
    "cholesky": torch.linalg.cholesky,
}


def cases(names: Any) -> list[Any]:
    """The f64 samples of these ops that PyTorch can run."""
    found = []
    for name in names:
        for index, sample in enumerate(SAMPLES[name]):
            arrays = sample.arrays()
            spread = set(sample.attrs.get("lhs_dilation", (1,))) != {1}
            refused = sample.label in ("nothing-fits", "cropped", "overlap", "no-steps")
            if (
                arrays[0].dtype == np.float64
                and sample.differentiable
                and not spread
                and not refused
            ):
                found.append(pytest.param(name, sample, id=f"{name}-{sample.label or index}"))
    return found


def reference(name: str, sample: Sample, arrays: list[Array]) -> tuple[list[Any], list[Any]]:
    """PyTorch's inputs (requiring grad where differentiable) and outputs."""
    tensors = [
        torch.tensor(a, requires_grad=k in sample.differentiable) for k, a in enumerate(arrays)
    ]
    result = REFERENCES[name](*tensors, **sample.attrs)
    return tensors, list(result) if isinstance(result, tuple) else [result]


def cotangents_for(outputs: list[Any]) -> list[Array]:
    rng = np.random.default_rng(7)
    return [rng.standard_normal(tuple(t.shape)) for t in outputs if t.is_floating_point()]


@pytest.mark.parametrize(("name", "sample"), cases(REFERENCES))
def test_values_and_gradients_are_those_of_pytorch(name: str, sample: Sample) -> None:
    graph, arrays = sample.graph(name), sample.arrays()
    tensors, outputs = reference(name, sample, arrays)
    for ours, theirs in zip(interpret(graph, arrays), outputs, strict=True):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-9, atol=1e-12)

    cotangents = cotangents_for(outputs)
    floats = [t for t in outputs if t.is_floating_point()]
    wrt = [tensors[k] for k in sample.differentiable]
    expected = torch.autograd.grad(floats, wrt, [torch.tensor(ct) for ct in cotangents])
    # At a kink (no grad_check) only the op's own rule follows PyTorch's convention.
    programs = {graph, Decompose().run(graph)} if sample.grad_check else {graph}
    for program in programs:
        backward = gradient_graph(program, sample.differentiable)
        for ours, theirs in zip(interpret(backward, [*arrays, *cotangents]), expected, strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-8, atol=1e-11)


SECOND_ORDER = ("softmax", "log_softmax", "layer_norm", "rms_norm", "batch_norm", "sdpa", "gelu",
                "silu", "cross_entropy", "conv", "lstm", "cholesky")  # fmt: skip


@pytest.mark.parametrize(("name", "sample"), cases(SECOND_ORDER))
def test_second_order_gradients_are_those_of_pytorch(name: str, sample: Sample) -> None:
    graph, arrays = sample.graph(name), sample.arrays()
    tensors, outputs = reference(name, sample, arrays)
    firsts = len(outputs) if name in ("batch_norm", "lstm") else 1  # sdpa: of the output alone
    cotangents = cotangents_for(outputs)[:firsts]
    wrt = [tensors[k] for k in sample.differentiable]
    first = torch.autograd.grad(
        outputs[:firsts], wrt, [torch.tensor(ct) for ct in cotangents], create_graph=True
    )
    seconds = cotangents_for(list(first))
    expected = torch.autograd.grad(
        first, wrt, [torch.tensor(ct) for ct in seconds], allow_unused=True, materialize_grads=True
    )

    backward = gradient_graph(graph, sample.differentiable, range(firsts))
    twice = gradient_graph(backward, sample.differentiable)
    got = interpret(twice, [*arrays, *cotangents, *seconds])
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-7, atol=1e-10)


def test_the_transposed_convolution() -> None:
    (sample,) = (s for s in SAMPLES["conv"] if s.label == "transposed")
    arrays = sample.arrays()
    x, w = (torch.tensor(a, requires_grad=True) for a in arrays)
    strides = sample.attrs["lhs_dilation"]
    full = F.conv_transpose2d(x, w.flip(2, 3).transpose(0, 1), None, strides)
    # full pads by k - 1 = 2 on every side; the sample by (2, 1) and (0, 2)
    wanted = F.pad(full, (-2, 0, 0, -1))
    np.testing.assert_allclose(interpret(sample.graph("conv"), arrays)[0], wanted.detach().numpy())
    ct = np.random.default_rng(3).standard_normal(tuple(wanted.shape))
    expected = torch.autograd.grad(wanted, (x, w), torch.tensor(ct))
    got = interpret(gradient_graph(sample.graph("conv")), [*arrays, ct])
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-10, atol=1e-12)


def test_masked_attention_with_rows_that_see_nothing() -> None:
    (sample,) = (s for s in SAMPLES["sdpa_mask"] if s.label == "hidden")
    arrays = sample.arrays()
    tensors = [torch.tensor(a, requires_grad=k < 3) for k, a in enumerate(arrays)]
    q, k, v, mask = tensors
    # PyTorch's softmax of an empty row has the gradient nan: leave that row out of its loss.
    rows = [(0, slice(0, 2)), (1, slice(0, 3))]
    out = [
        torch.softmax(q[n, 0, part] @ k[n, 0].T * 0.5 + mask[n, 0, part], -1) @ v[n, 0]
        for n, part in rows
    ]
    ours, lse = interpret(sample.graph("sdpa_mask"), arrays)
    for (n, part), theirs in zip(rows, out):
        np.testing.assert_allclose(ours[n, 0, part], theirs.detach().numpy(), rtol=1e-10)
    assert (ours[0, 0, 2] == 0).all() and lse[0, 0, 2] == -np.inf
    ct = np.random.default_rng(3).standard_normal(ours.shape)
    cts = [torch.tensor(ct[n, 0, part]) for n, part in rows]
    expected = torch.autograd.grad(out, (q, k, v), cts)
    backward = gradient_graph(sample.graph("sdpa_mask"), (0, 1, 2), (0,))
    for ours, theirs in zip(interpret(backward, [*arrays, ct]), expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("sample", SAMPLES["eigh"], ids=lambda sample: sample.label)
def test_eigh_up_to_signs(sample: Sample) -> None:
    (a,) = sample.arrays()
    x = placeholder(TensorType(a.shape, f64))
    pair = ops.eigh(x)
    w, v = ops.proj(pair, index=0), ops.proj(pair, index=1)
    graph = Graph((x,), (w, v * v))  # an eigenvector may be turned about, its squares may not
    tensor = torch.tensor(a, requires_grad=True)
    values, vectors = torch.linalg.eigh(tensor)
    theirs = [values, vectors * vectors]
    for ours, expected in zip(interpret(graph, [a]), theirs, strict=True):
        np.testing.assert_allclose(ours, expected.detach().numpy(), rtol=1e-9, atol=1e-12)
    cts = cotangents_for(theirs)
    (expected,) = torch.autograd.grad(theirs, tensor, [torch.tensor(ct) for ct in cts])
    (gradient,) = interpret(gradient_graph(graph), [a, *cts])
    np.testing.assert_allclose(gradient, expected.numpy(), rtol=1e-8, atol=1e-10)


def test_first_maximum_takes_the_gradient() -> None:
    (sample,) = (s for s in SAMPLES["window_max"] if s.label == "ties")
    (x,) = sample.arrays()  # 1 1 | nan 2 | 2 nan
    (got,) = interpret(gradient_graph(sample.graph("window_max")), [x, np.array([[1.0, 2.0, 3.0]])])
    np.testing.assert_array_equal(got, [[1, 0, 2, 0, 0, 3]])


def test_dropout_keeps_the_share_and_repeats_its_mask() -> None:
    key = np.array([5, 9], np.uint32)
    x = np.ones((100, 100))
    sample = Sample(lambda rng: (x, key), {"rate": 0.25}, (0,))
    (y,) = interpret(sample.graph("dropout"), [x, key])
    assert set(np.unique(y)) == {0.0, 1.0 / 0.75}
    assert abs((y != 0).mean() - 0.75) < 0.02
    ct = np.random.default_rng(0).standard_normal(x.shape)
    (gradient,) = interpret(gradient_graph(sample.graph("dropout"), (0,)), [x, key, ct])
    np.testing.assert_allclose(gradient, np.where(y != 0, ct / 0.75, 0.0), rtol=1e-14)


def test_random_bits_are_those_of_jax() -> None:
    jax = pytest.importorskip("jax", reason="JAX is the oracle of the random bits")
    key = np.array([0x12345678, 0x9ABCDEF0], np.uint32)
    theirs = jax.random.wrap_key_data(key, impl="threefry2x32")
    data = np.array(7, np.uint32)
    folded = Sample(lambda rng: (key, data)).graph("fold_in")
    (ours,) = interpret(folded, [key, data])
    np.testing.assert_array_equal(ours, jax.random.key_data(jax.random.fold_in(theirs, 7)))
    for shape in ((), (5,), (3, 7), (0, 4)):
        graph = Sample(lambda rng: (key,), {"shape": shape}).graph("random_bits")
        with jax.threefry_partitionable(True):
            expected = jax.random.bits(theirs, shape, np.uint32)
        np.testing.assert_array_equal(interpret(graph, [key])[0], expected)


def test_markers_direct_the_gradient() -> None:
    x, y = placeholder(TensorType((2,), f64)), placeholder(TensorType((2,), f64))
    out = ops.detach(x) * x + ops.rebind(x, y) * y
    ones = ops.splat(1.0, out.type)
    to_x, to_y = reverse([out], [ones], [x, y])
    assert to_x is not None and to_y is not None
    got = interpret(Graph((x, y), (to_x, to_y)), [np.array([2.0, 3.0]), np.array([5.0, 7.0])])
    np.testing.assert_array_equal(got[0], [2 + 5, 3 + 7])  # detached x, then y through rebind
    np.testing.assert_array_equal(got[1], [5, 7])  # the value that rebind yields, y itself


def test_backward_of_a_scan_keeps_no_copy_of_the_weights_per_step() -> None:
    (sample,) = (s for s in SAMPLES["scan"] if s.label == "rnn")
    weights, steps = sample.arrays()[1].shape, sample.attrs["length"]
    backward = gradient_graph(sample.graph("scan"))
    (replay,) = (n for n in backward.nodes if n.op is ops.scan and "replay" in n.attrs.body.name)
    assert [part.shape for part in replay.type.parts] == [(2, 3), weights, (steps, 2, 3)]


def test_statistics_of_short_floats_are_f32() -> None:
    x, w = placeholder(TensorType((2, 4), bf16)), placeholder(TensorType((4,), bf16))
    stats = ops.layer_norm_stats(x, w, w, ndim=1, eps=1e-5)
    assert [part.dtype for part in stats.type.parts] == [bf16, f32, f32]
    y, x_gradient = ops.softmax(x, axis=1), placeholder(x.type)
    (grad,) = reverse([y], [x_gradient], [x])
    assert grad is not None and grad.type == x.type


def test_large_logits_in_f16_do_not_overflow() -> None:
    x = np.array([[60000.0, 59968.0, -60000.0]], np.float16)
    for name in ("softmax", "log_softmax", "logsumexp"):
        graph = Sample(lambda rng: (x,), {"axis": 1}).graph(name)
        (value,) = interpret(graph, [x])
        assert np.isfinite(value.astype(np.float64)).any() and not np.isnan(value).any()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda t: ops.matmul(t(2, 3), t(4, 2)), r"matmul: inner sizes differ: f64\[2,3\]"),
        (lambda t: ops.matmul(t(3), t(3)), "matmul: needs two operands of one rank >= 2"),
        (lambda t: ops.softmax(t(2, 0), axis=1), "softmax: no softmax of an empty axis"),
        (lambda t: ops.batch_norm(t(4, 3), t(4), t(3), eps=1e-5), r"must be f64\[3\]"),
        (lambda t: ops.sdpa(t(1, 1, 2, 3), t(1, 1, 2, 4), t(1, 1, 2, 3), causal=True, scale=1.0),
         r"sdpa: needs q\[B,H,T,D\]"),
        (lambda t: ops.gelu(t(2), approximate="fast"), 'gelu: approximate is "none" or "tanh"'),
        (lambda t: ops.topk(t(3), k=4, axis=0, largest=True), "topk: k=4 of 3 elements"),
        (lambda t: ops.proj(t(3), index=0), "proj: needs the result of a several-result op"),
        (lambda t: ops.cholesky(t(2, 3)), "cholesky: needs square matrices"),
        (lambda t: ops.fold_in(t(2), t()), "fold_in: the number to fold in is u32"),
        (lambda t: ops.shard(t(2, 2), spec=("x",)), "shard: spec"),
    ],
)  # fmt: skip
def test_wrong_calls_are_refused(build: Any, message: str) -> None:
    with pytest.raises(IRTypeError, match=message):
        build(lambda *shape: placeholder(TensorType(shape, f64)))


def test_a_tall_lu_has_no_gradient_and_says_why() -> None:
    x = placeholder(TensorType((4, 3), f64))
    packed = ops.proj(ops.lu(x), index=0)
    with pytest.raises(MissingVJPError, match="lu needs square matrices"):
        reverse([packed], [ops.ones_like(packed)], [x])
