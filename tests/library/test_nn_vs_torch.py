"""Every layer against torch.nn: repr, state-dict keys, outputs, gradients and buffers."""

import numpy as np
import pytest
import torch
from side_by_side import compare, copy_weights

import tracegrad as tg
from tracegrad import nn

X24, X234, X2345 = (2, 4), (2, 4, 7), (2, 4, 6, 5)
LAYERS = {
    "linear": (lambda nn: nn.Linear(4, 3), [X24]),
    "linear-3d-no-bias": (lambda nn: nn.Linear(7, 3, bias=False), [X234]),
    "bilinear": (lambda nn: nn.Bilinear(4, 3, 5), [X24, (2, 3)]),
    "identity": (lambda nn: nn.Identity(3, foo=1), [X24]),
    "conv1d": (lambda nn: nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2), [X234]),
    "conv1d-same": (lambda nn: nn.Conv1d(4, 6, 4, padding="same"), [X234]),
    "conv2d": (lambda nn: nn.Conv2d(4, 6, 3), [X2345]),
    "conv2d-unbatched": (lambda nn: nn.Conv2d(4, 6, 3), [(4, 6, 5)]),
    "conv2d-all": (
        lambda nn: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), groups=2, bias=False),
        [X2345],
    ),
    "conv2d-depthwise": (lambda nn: nn.Conv2d(4, 4, 3, padding=1, groups=4), [X2345]),
    "conv2d-reflect": (lambda nn: nn.Conv2d(4, 2, 3, padding=1, padding_mode="reflect"), [X2345]),
    "conv2d-circular": (
        lambda nn: nn.Conv2d(4, 2, 3, padding=(2, 1), padding_mode="circular"),
        [X2345],
    ),
    "conv2d-replicate-same": (
        lambda nn: nn.Conv2d(4, 2, (3, 2), padding="same", padding_mode="replicate"),
        [X2345],
    ),
    "conv3d": (lambda nn: nn.Conv3d(2, 3, 2, padding=1), [(1, 2, 3, 4, 3)]),
    "convT1d": (lambda nn: nn.ConvTranspose1d(4, 3, 3, stride=2), [X234]),
    "convT2d": (lambda nn: nn.ConvTranspose2d(4, 6, 3), [X2345]),
    "convT2d-all": (
        lambda nn: nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1, groups=2, dilation=2),
        [X2345],
    ),
    "bn1d": (lambda nn: nn.BatchNorm1d(4), [(5, 4)]),
    "bn1d-3d": (lambda nn: nn.BatchNorm1d(4, momentum=0.3), [X234]),
    "bn2d": (lambda nn: nn.BatchNorm2d(4), [X2345]),
    "bn2d-cumulative": (lambda nn: nn.BatchNorm2d(4, momentum=None), [X2345]),
    "bn2d-plain": (lambda nn: nn.BatchNorm2d(4, affine=False), [X2345]),
    "bn2d-no-stats": (lambda nn: nn.BatchNorm2d(4, track_running_stats=False), [X2345]),
    "bn1d-of-nothing": (lambda nn: nn.BatchNorm1d(4), [(0, 4, 3)]),
    "bn2d-of-nothing": (lambda nn: nn.BatchNorm2d(4, momentum=None), [(0, 4, 2, 3)]),
    "bn3d": (lambda nn: nn.BatchNorm3d(2), [(2, 2, 3, 2, 2)]),
    "instance1d": (lambda nn: nn.InstanceNorm1d(4), [X234]),
    "instance2d": (lambda nn: nn.InstanceNorm2d(4, affine=True), [X2345]),
    "instance2d-stats": (lambda nn: nn.InstanceNorm2d(4, track_running_stats=True), [X2345]),
    "layer-norm": (lambda nn: nn.LayerNorm(7), [X234]),
    "layer-norm-2": (lambda nn: nn.LayerNorm((4, 7), eps=1e-3, bias=False), [X234]),
    "layer-norm-plain": (lambda nn: nn.LayerNorm(7, elementwise_affine=False), [X234]),
    "rms-norm": (lambda nn: nn.RMSNorm(7), [X234]),
    "rms-norm-eps": (lambda nn: nn.RMSNorm((4, 7), eps=1e-3), [X234]),
    "group-norm": (lambda nn: nn.GroupNorm(2, 4), [X2345]),
    "group-norm-plain": (lambda nn: nn.GroupNorm(4, 4, affine=False), [X234]),
    "max1d": (lambda nn: nn.MaxPool1d(3, stride=2, padding=1), [X234]),
    "max2d": (lambda nn: nn.MaxPool2d(2), [X2345]),
    "max2d-ceil": (lambda nn: nn.MaxPool2d(3, 2, padding=1, ceil_mode=True), [X2345]),
    "max2d-dilated": (lambda nn: nn.MaxPool2d(2, stride=1, dilation=2), [X2345]),
    "avg1d": (lambda nn: nn.AvgPool1d(3, padding=1), [X234]),
    "avg2d": (lambda nn: nn.AvgPool2d(2), [X2345]),
    "avg2d-all": (
        lambda nn: nn.AvgPool2d(3, 2, padding=1, ceil_mode=True, count_include_pad=False),
        [X2345],
    ),
    "avg2d-divisor": (lambda nn: nn.AvgPool2d(2, divisor_override=3), [X2345]),
    "adaptive1d": (lambda nn: nn.AdaptiveAvgPool1d(3), [X234]),
    "adaptive2d": (lambda nn: nn.AdaptiveAvgPool2d(1), [X2345]),
    "adaptive2d-none": (lambda nn: nn.AdaptiveAvgPool2d((None, 3)), [X2345]),
    "relu": (lambda nn: nn.ReLU(), [X24]),
    "relu6": (lambda nn: nn.ReLU6(), [X24]),
    "leaky": (lambda nn: nn.LeakyReLU(0.2), [X24]),
    "elu": (lambda nn: nn.ELU(1.5), [X24]),
    "selu": (lambda nn: nn.SELU(), [X24]),
    "gelu": (lambda nn: nn.GELU(), [X24]),
    "gelu-tanh": (lambda nn: nn.GELU("tanh"), [X24]),
    "silu": (lambda nn: nn.SiLU(), [X24]),
    "mish": (lambda nn: nn.Mish(), [X24]),
    "sigmoid": (lambda nn: nn.Sigmoid(), [X24]),
    "logsigmoid": (lambda nn: nn.LogSigmoid(), [X24]),
    "tanh": (lambda nn: nn.Tanh(), [X24]),
    "softsign": (lambda nn: nn.Softsign(), [X24]),
    "tanhshrink": (lambda nn: nn.Tanhshrink(), [X24]),
    "softmax": (lambda nn: nn.Softmax(dim=1), [X234]),
    "log-softmax": (lambda nn: nn.LogSoftmax(dim=-1), [X234]),
    "softmin": (lambda nn: nn.Softmin(dim=0), [X24]),
    "softplus": (lambda nn: nn.Softplus(beta=2, threshold=1), [X24]),
    "hardtanh": (lambda nn: nn.Hardtanh(-0.5, 0.7), [X24]),
    "hardswish": (lambda nn: nn.Hardswish(), [X24]),
    # PyTorch's own gradient uses 1/6 in float32 even for float64: see test_hardsigmoid.
    "glu": (lambda nn: nn.GLU(dim=1), [X24]),
    "prelu": (lambda nn: nn.PReLU(), [X24]),
    "prelu-channels": (lambda nn: nn.PReLU(4), [X2345]),
    "celu": (lambda nn: nn.CELU(1.5), [X24]),
    "threshold": (lambda nn: nn.Threshold(0.1, 20.0), [X24]),
    "softshrink": (lambda nn: nn.Softshrink(0.3), [X24]),
    "hardshrink": (lambda nn: nn.Hardshrink(), [X24]),
    "max3d": (lambda nn: nn.MaxPool3d(2), [(1, 2, 4, 4, 4)]),
    "avg3d": (lambda nn: nn.AvgPool3d(2, padding=1), [(1, 2, 4, 4, 4)]),
    "adaptive3d": (lambda nn: nn.AdaptiveAvgPool3d(2), [(1, 2, 4, 5, 3)]),
    "adaptive-max1d": (lambda nn: nn.AdaptiveMaxPool1d(3), [X234]),
    "adaptive-max2d": (lambda nn: nn.AdaptiveMaxPool2d((2, None)), [X2345]),
    "convT3d": (lambda nn: nn.ConvTranspose3d(2, 3, 2, stride=2), [(1, 2, 3, 2, 3)]),
    "pixel-shuffle": (lambda nn: nn.PixelShuffle(2), [X2345]),
    "pixel-unshuffle": (lambda nn: nn.PixelUnshuffle(2), [(2, 1, 4, 6)]),
    "zero-pad": (lambda nn: nn.ZeroPad2d((1, 2, 0, 1)), [X2345]),
    "constant-pad": (lambda nn: nn.ConstantPad2d(1, 3.5), [X2345]),
    "reflection-pad": (lambda nn: nn.ReflectionPad2d(2), [X2345]),
    "replication-pad": (lambda nn: nn.ReplicationPad2d((1, 0, 2, 1)), [X2345]),
    "cosine-similarity": (lambda nn: nn.CosineSimilarity(), [X24, X24]),
    "pairwise-distance": (lambda nn: nn.PairwiseDistance(3.0), [X24, X24]),
    "dropout-0": (lambda nn: nn.Dropout(0.0), [X24]),
    "flatten": (lambda nn: nn.Flatten(), [X2345]),
    "unflatten": (lambda nn: nn.Unflatten(1, (2, 2)), [X234]),
    "upsample": (lambda nn: nn.Upsample(scale_factor=2), [X2345]),
    "upsample recomputed": (
        lambda nn: nn.Upsample(None, 1.7, "bilinear", recompute_scale_factor=True),
        [X2345],
    ),  # fmt: skip
    "upsample-bilinear": (
        lambda nn: nn.Upsample(size=(9, 4), mode="bilinear", align_corners=True),
        [X2345],
    ),
}
RECURRENT = {
    "lstm": (lambda nn: nn.LSTM(5, 3), [(4, 2, 5)]),
    "lstm-all": (
        lambda nn: nn.LSTM(5, 3, num_layers=2, bidirectional=True, batch_first=True),
        [(2, 4, 5)],
    ),
    "lstm-no-bias-unbatched": (lambda nn: nn.LSTM(5, 3, bias=False), [(4, 5)]),
    "gru": (lambda nn: nn.GRU(5, 3, num_layers=2, bidirectional=True), [(4, 2, 5)]),
    "gru-state": (lambda nn: nn.GRU(5, 3), [(4, 2, 5), (1, 2, 3)]),
    "rnn": (lambda nn: nn.RNN(5, 3, batch_first=True), [(2, 4, 5)]),
    "rnn-relu": (lambda nn: nn.RNN(5, 3, nonlinearity="relu"), [(4, 2, 5)]),
    "lstm-cell": (lambda nn: nn.LSTMCell(5, 3), [(2, 5)]),
    "gru-cell": (lambda nn: nn.GRUCell(5, 3), [(2, 5), (2, 3)]),
    "gru-cell-no-bias": (lambda nn: nn.GRUCell(5, 3, bias=False), [(2, 5)]),
    "rnn-cell": (lambda nn: nn.RNNCell(5, 3, nonlinearity="relu"), [(2, 5), (2, 3)]),
    "encoder-layer": (
        lambda nn: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
        [(2, 5, 8)],
    ),
    "encoder-layer-pre": (
        lambda nn: nn.TransformerEncoderLayer(
            8, 2, 16, dropout=0.0, norm_first=True, activation="gelu"
        ),
        [(5, 2, 8)],
    ),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", [*LAYERS, *RECURRENT])
def test_layer(case, dtype):
    build, shapes = (LAYERS | RECURRENT)[case]
    torch.manual_seed(0)
    theirs = build(torch.nn).to(getattr(torch, dtype))
    ours = build(nn)
    ours.double() if dtype == "float64" else ours.float()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    copy_weights(ours, theirs)
    if "encoder" not in case:  # PyTorch names its out_proj class NonDynamicallyQuantizableLinear
        assert repr(ours) == repr(theirs)
    rng = np.random.default_rng(1)
    compare(ours, theirs, [rng.standard_normal(shape) for shape in shapes], dtype)


@pytest.mark.parametrize("case", ["bn1d", "bn2d", "bn2d-cumulative", "instance2d-stats"])
def test_running_statistics_over_steps_and_in_eval_mode(case):
    build, shapes = LAYERS[case]
    ours, theirs = build(nn).double(), build(torch.nn).double()
    rng = np.random.default_rng(2)
    for mode in (True, True, False, True, False):
        ours.train(mode)
        theirs.train(mode)
        compare(ours, theirs, [3 + 2 * rng.standard_normal(shapes[0])], "float64")


def test_batch_norm_checks_its_rank():
    with pytest.raises(ValueError, match=r"expected 4D input \(got 2D input\)"):
        nn.BatchNorm2d(3)(nn.Linear(2, 3).weight)


def test_hardsigmoid():
    assert repr(nn.Hardsigmoid(inplace=True)) == repr(torch.nn.Hardsigmoid(inplace=True))
    compare(nn.Hardsigmoid(), torch.nn.Hardsigmoid(), [4 * np.sin(np.arange(8.0))], "float32")


@pytest.mark.parametrize("name", ["Dropout", "Dropout1d", "Dropout2d", "Dropout3d"])
def test_dropout(name):
    shape = {"Dropout": (40, 50), "Dropout1d": (40, 50, 3), "Dropout2d": (40, 50, 3, 3)}
    x = tg.ones(shape.get(name, (40, 50, 2, 2, 2)))
    layer = getattr(nn, name)(p=0.25)
    tg.manual_seed(3)
    out = layer(x).numpy()
    assert set(np.unique(out)) == {np.float32(0), np.float32(1) / np.float32(0.75)}
    assert 0.2 < (out == 0).mean() < 0.3
    if name != "Dropout":  # whole channels
        channels = out.reshape(40, 50, -1)
        assert (channels == channels[:, :, :1]).all()
    assert (layer(x).numpy() != out).any()
    tg.manual_seed(3)
    assert (layer(x).numpy() == out).all()
    assert layer.eval()(x) is x or (layer(x).numpy() == 1).all()
    assert (getattr(nn, name)(p=1.0)(x).numpy() == 0).all()
    with pytest.raises(ValueError, match="between 0 and 1"):
        getattr(nn, name)(p=1.5)


def test_embedding():
    theirs = torch.nn.Embedding(6, 3, padding_idx=2)
    ours = nn.Embedding(6, 3, padding_idx=-4)
    assert repr(ours) == repr(theirs)
    assert float(ours.weight.detach()[2].abs().sum()) == 0
    copy_weights(ours, theirs)
    compare(ours, theirs, [np.array([[1, 2, 2], [5, 1, 0]])], "float32")
    table = tg.tensor(np.ones((2, 2), np.float32))
    assert not nn.Embedding.from_pretrained(table).weight.requires_grad
    with pytest.raises(NotImplementedError, match="max_norm"):
        nn.Embedding(2, 2, max_norm=1.0)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_first": True},
        {"bias": False},
        {"kdim": 5, "vdim": 6},
        {"add_bias_kv": True, "add_zero_attn": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("masks", ["none", "padding", "bool", "float", "per-head"])
@pytest.mark.parametrize("weights", ["mean", "heads", "no"])
def test_multihead_attention(options, masks, weights):
    torch.manual_seed(0)
    theirs = torch.nn.MultiheadAttention(8, 2, **options).double()
    ours = nn.MultiheadAttention(8, 2, **options).double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    copy_weights(ours, theirs)
    rng = np.random.default_rng(0)
    n, length, source = 2, 3, 4
    order = (n, -1) if options.get("batch_first") else (-1, n)

    def data(size, width):
        return rng.standard_normal([size if k < 0 else k for k in order] + [width])

    keys, values = (data(source, options.get(name, 8)) for name in ("kdim", "vdim"))
    inputs = [data(length, 8), keys, values]
    padding = np.array([[False] * 4, [False, False, True, True]])
    causal = np.triu(np.ones((length, source), bool), 2)
    additive = rng.standard_normal((length, source))
    per_head = rng.random((n * 2, length, source)) < 0.3
    per_head[:, :, 0] = False
    given = {
        "none": {}, "padding": {"key_padding_mask": padding}, "bool": {"attn_mask": causal},
        "float": {"attn_mask": additive}, "per-head": {"attn_mask": per_head},
    }[masks]  # fmt: skip
    flags = {"need_weights": weights != "no", "average_attn_weights": weights == "mean"}

    def call(module, tensor):
        return lambda q, k, v: module(
            q, k, v, **{name: tensor(m) for name, m in given.items()}, **flags
        )

    compare(call(ours, tg.tensor), call(theirs, torch.tensor), inputs, "float64")


def test_self_attention_and_encoder_stack():
    torch.manual_seed(0)

    def build(nn):
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        return nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(8))

    theirs, ours = build(torch.nn).double(), build(nn).double()
    copy_weights(ours, theirs)
    x = np.random.default_rng(0).standard_normal((2, 5, 8))
    compare(ours, theirs, [x], "float64")
    attention, other = ours.layers[0].self_attn, theirs.layers[0].self_attn
    compare(lambda x: attention(x, x, x), lambda x: other(x, x, x), [x], "float64")
    compare(lambda x: attention(x, x, x), lambda x: other(x, x, x), [x[0]], "float64")


def test_lstm_state_and_dropout():
    theirs, ours = torch.nn.LSTM(5, 3, 2).double(), nn.LSTM(5, 3, 2).double()
    copy_weights(ours, theirs)
    rng = np.random.default_rng(0)
    state = [rng.standard_normal((2, 2, 3)) for _ in range(2)]
    compare(
        lambda x, h, c: ours(x, (h, c)),
        lambda x, h, c: theirs(x, (h, c)),
        [rng.standard_normal((4, 2, 5)), *state],
        "float64",
    )
    with pytest.raises(RuntimeError, match="Expected hidden size"):
        ours(tg.zeros(4, 2, 5, dtype=tg.float64), (tg.zeros(1, 2, 3), tg.zeros(1, 2, 3)))
    with pytest.warns(UserWarning, match="num_layers greater than 1"):
        nn.LSTM(2, 2, dropout=0.5)
    noisy = nn.LSTM(5, 3, 2, dropout=0.5)
    x = tg.ones(4, 2, 5)
    assert (noisy(x)[0].detach().numpy() != noisy(x)[0].detach().numpy()).any()
    noisy.eval()
    assert (noisy(x)[0].detach().numpy() == noisy(x)[0].detach().numpy()).all()


def test_conv_transpose_output_size():
    theirs = torch.nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1).double()
    ours = nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1).double()
    copy_weights(ours, theirs)
    x = np.random.default_rng(0).standard_normal((1, 2, 4, 4))
    compare(lambda x: ours(x, (8, 7)), lambda x: theirs(x, (8, 7)), [x], "float64")
    with pytest.raises(ValueError, match="can only be"):
        compare(lambda x: ours(x, (9, 7)), lambda x: theirs(x, (8, 7)), [x], "float64")


@pytest.mark.parametrize("wanted", [{"size": (2,)}, {"size": (2, 2, 2)}, {"scale_factor": (2.0,)}])
def test_interpolate_takes_a_size_for_every_dimension(wanted):
    for t in (torch, tg):
        with pytest.raises(ValueError, match="spatial dimensions"):
            t.nn.functional.interpolate(t.ones(1, 2, 4, 4), **wanted)
    with pytest.raises(tg.errors.InvalidValueError, match=r"\[1, 2, 4, 4\]"):
        tg.compile(lambda x: tg.nn.Upsample(**wanted)(x))(tg.ones(1, 2, 4, 4))
