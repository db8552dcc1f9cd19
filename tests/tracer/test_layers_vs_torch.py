"""Activations, normalisation, attention and recurrent layers against PyTorch."""

import pytest
import torch
from torch_oracle import agree, bools, convert, floats, same

from tracegrad.tracer import functions as F

TF = torch.nn.functional
ACTIVATIONS = [
    ("relu", {}), ("relu6", {}), ("hardtanh", {}), ("hardtanh", {"min_val": -0.5, "max_val": 2.0}),
    ("leaky_relu", {}), ("leaky_relu", {"negative_slope": 0.2}), ("elu", {}),
    ("elu", {"alpha": 0.5}), ("selu", {}),
    ("celu", {"alpha": 0.7}), ("gelu", {}), ("gelu", {"approximate": "tanh"}), ("silu", {}),
    ("mish", {}),
    ("softplus", {}), ("softplus", {"beta": 3.0, "threshold": 1.0}), ("softsign", {}),
    ("tanhshrink", {}),
    ("softshrink", {}), ("hardshrink", {}), ("hardsigmoid", {}), ("hardswish", {}),
    ("logsigmoid", {}),
    ("threshold", {"threshold": 0.1, "value": 2.0}), ("glu", {"dim": 0}), ("glu", {}),
]  # fmt: skip


@pytest.mark.parametrize("name, options", ACTIVATIONS, ids=str)
def test_activations(name, options):
    # PyTorch holds some of these constants in float32, also for float64.
    agree(getattr(F, name), getattr(TF, name), floats(4, 6) * 4, rtol=3e-7, atol=1e-8, **options)
    agree(getattr(F, name), getattr(TF, name), floats(4, 6, dtype=torch.float32), **options)
    edges = torch.tensor(
        [[0.0, 0.5, -0.5, 3.0, -3.0, 6.0], [1.0, -1.0, 40.0, -40.0, 200.0, -200.0]]
    )
    if name not in ("tanhshrink", "softsign", "mish"):
        # erf in float32 is exact to 4e-7, so gelu(-200) is not quite 0.
        agree(
            getattr(F, name),
            getattr(TF, name),
            edges,
            atol=1e-4 if name == "gelu" else None,
            **options,
        )


def test_prelu():
    agree(F.prelu, TF.prelu, floats(2, 3, 4), floats(1))
    agree(F.prelu, TF.prelu, floats(2, 3, 4), floats(3))


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmin"])
def test_softmax(name):
    for dim in (0, 1, -1):
        agree(getattr(F, name), getattr(TF, name), floats(3, 4) * 20, dim)
    agree(getattr(F, name), getattr(TF, name), floats(2, 3, 4), 1)
    agree(
        getattr(F, name),
        getattr(TF, name),
        floats(3, 4, dtype=torch.float32),
        1,
        dtype=torch.float64,
    )
    agree(getattr(F, name), getattr(TF, name), floats(), 0)


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (2, 3, 4, 5)])
def test_batch_norm(shape):
    def train(x, w, b):
        return F.batch_norm_train(x, w, b, eps=1e-3)[0]

    def evaluate(x, m, v, w, b):
        return F.batch_norm_eval(x, m, v, w, b, eps=1e-3)

    agree(
        train,
        lambda x, w, b: TF.batch_norm(x, None, None, w, b, True, 0.1, 1e-3),
        floats(*shape),
        floats(3),
        floats(3),
    )
    agree(
        train,
        lambda x, w, b: TF.batch_norm(x, None, None, w, b, True, 0.1, 1e-3),
        floats(*shape),
        None,
        None,
    )
    mean, var = floats(3), floats(3, low=0.5, high=2)
    theirs = lambda x, m, v, w, b: TF.batch_norm(x, m, v, w, b, False, 0.1, 1e-3)
    agree(evaluate, theirs, floats(*shape), mean, var, floats(3), floats(3), grad=False)
    x = floats(*shape)
    (mine, _) = convert((x,), False)
    _, m, v = F.batch_norm_train(*mine, None, None)
    axes = tuple(k for k in range(x.ndim) if k != 1)
    same(m, x.mean(axes))
    same(v, x.var(axes, correction=0))


def test_norms():
    agree(F.layer_norm, TF.layer_norm, floats(2, 3, 4), (4,), floats(4), floats(4))
    agree(F.layer_norm, TF.layer_norm, floats(2, 3, 4), (3, 4), floats(3, 4), None, 1e-2)
    agree(F.layer_norm, TF.layer_norm, floats(2, 3, 4), (4,))
    agree(F.rms_norm, TF.rms_norm, floats(2, 3, 4), (4,), floats(4))
    agree(F.rms_norm, TF.rms_norm, floats(2, 3, 4, dtype=torch.float32), (3, 4), None, 1e-3)
    agree(F.group_norm, TF.group_norm, floats(2, 6, 4, 3), 3, floats(6), floats(6))
    agree(F.group_norm, TF.group_norm, floats(2, 6), 2)
    agree(
        lambda x, w, b: F.instance_norm(x, w, b, eps=1e-5)[0],
        lambda x, w, b: TF.instance_norm(x, weight=w, bias=b),
        floats(2, 3, 4, 5),
        floats(3),
        floats(3),
    )
    agree(F.local_response_norm, TF.local_response_norm, floats(2, 6, 4), 3)
    agree(F.local_response_norm, TF.local_response_norm, floats(2, 6, 4, 4), 4, 0.1, 0.5, 2.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    x = floats(4, 6, dtype=dtype)
    agree(
        F.layer_norm,
        TF.layer_norm,
        x,
        (6,),
        floats(6, dtype=dtype),
        floats(6, dtype=dtype),
        grad=False,
    )
    agree(F.softmax, TF.softmax, x, 1, grad=False)
    agree(F.sum, torch.sum, x, 1, grad=False)
    agree(F.mean, torch.mean, floats(4000, dtype=dtype), grad=False)
    agree(F.matmul, torch.matmul, x, floats(6, 3, dtype=dtype), grad=False)
    agree(F.gelu, TF.gelu, x, grad=False)


ATTENTION = [
    {}, {"is_causal": True}, {"scale": 0.3}, {"is_causal": True, "scale": 2.0},
]  # fmt: skip


@pytest.mark.parametrize("options", ATTENTION, ids=str)
@pytest.mark.parametrize("lead", [(), (2,), (2, 3), (2, 2, 3)])
def test_attention(options, lead):
    q, k, v = floats(*lead, 5, 4), floats(*lead, 6, 4), floats(*lead, 6, 3)
    agree(
        F.scaled_dot_product_attention,
        TF.scaled_dot_product_attention,
        q,
        k,
        v,
        **options,
        rtol=1e-7,
    )
    if not options.get("is_causal"):
        mask = bools(5, 6)
        mask[:, 0] = True
        agree(
            F.scaled_dot_product_attention,
            TF.scaled_dot_product_attention,
            q,
            k,
            v,
            mask,
            **options,
            rtol=1e-7,
        )
        agree(
            F.scaled_dot_product_attention,
            TF.scaled_dot_product_attention,
            q,
            k,
            v,
            floats(5, 6),
            **options,
            rtol=1e-7,
        )


def test_grouped_attention():
    q, k, v = floats(2, 6, 5, 4), floats(2, 3, 5, 4), floats(2, 3, 5, 4)
    agree(
        F.scaled_dot_product_attention,
        TF.scaled_dot_product_attention,
        q,
        k,
        v,
        enable_gqa=True,
        is_causal=True,
    )


def layer_of(kind, reverse, **options):
    """A torch RNN layer's last direction as a function of input, states and weights."""

    def run(x, states, *weights):
        module = getattr(torch.nn, kind)(
            x.shape[2], states[0].shape[1], dtype=torch.float64, **options
        )
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        state = tuple(s[None] for s in states)
        x = x.flip(0) if reverse else x
        y, last = torch.func.functional_call(
            module, dict(zip(names, weights)), (x, state if kind == "LSTM" else state[0])
        )
        lasts = last if kind == "LSTM" else (last,)
        return (y.flip(0) if reverse else y, *(s[0] for s in lasts))

    return run


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind, gates", [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_layers(kind, gates, reverse):
    weights = floats(gates * 5, 3), floats(gates * 5, 5), floats(gates * 5), floats(gates * 5)
    states = (floats(2, 5), floats(2, 5))[: 2 if kind == "LSTM" else 1]
    op = getattr(F, f"{kind.lower()}_layer")
    agree(
        lambda x, states, *w: op(x, *states, *w, reverse=reverse),
        layer_of(kind, reverse),
        floats(6, 2, 3),
        states,
        *weights,
        rtol=1e-7,
    )


def test_relu_rnn():
    agree(
        lambda x, states, *w: F.rnn_layer(x, *states, *w, nonlinearity="relu"),
        layer_of("RNN", False, nonlinearity="relu"),
        floats(4, 2, 3),
        (floats(2, 5),),
        floats(5, 3),
        floats(5, 5),
        floats(5),
        floats(5),
    )
