"""nn.utils.rnn against PyTorch: padding, packing, and recurrent layers on packed sequences."""

import numpy as np
import pytest
import torch

import tracegrad as tg

LAYERS = {
    "LSTM": ("LSTM", {}),
    "LSTM both ways": ("LSTM", {"bidirectional": True, "num_layers": 2}),
    "GRU": ("GRU", {"batch_first": True, "bias": False}),
    "GRU both ways": ("GRU", {"bidirectional": True}),
    "RNN": ("RNN", {"bidirectional": True}),
    "RNN relu": ("RNN", {"nonlinearity": "relu", "num_layers": 2}),
}
LENGTHS = {"sorted": ([5, 3, 1], True), "unsorted": ([2, 4, 4], False), "ties": ([4, 4, 4], True)}


def sequences(t, lengths=(2, 5, 3), width=(3,)):
    draw = np.random.default_rng(0)
    return [t.tensor(draw.standard_normal((n, *width)).astype(np.float32)) for n in lengths]


def arrays(values):
    return [np.asarray(v.detach().numpy() if hasattr(v, "detach") else v) for v in values]


def agree(ours, theirs, tolerance=2e-6):
    for a, b in zip(arrays(ours), arrays(theirs), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def both_layers(name):
    kind, options = LAYERS[name]
    theirs, ours = getattr(torch.nn, kind)(3, 4, **options), getattr(tg.nn, kind)(3, 4, **options)
    ours.load_state_dict({k: tg.tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    return ours, theirs, options.get("batch_first", False)


def run(t, layer, x, state, lengths, enforce_sorted, batch_first):
    """Everything that comes out, and a loss of it."""
    rnn = t.nn.utils.rnn
    packed = rnn.pack_padded_sequence(x, lengths, batch_first, enforce_sorted)
    given = (state, state * 0.5) if type(layer).__name__ == "LSTM" else state
    y, last = layer(packed, given)
    out, found = rnn.pad_packed_sequence(y, batch_first, padding_value=-1.0)
    last = last if isinstance(last, tuple) else (last,)
    loss = (out * out).sum() + sum((part * part).sum() for part in last)
    return loss, out, found, *last


@pytest.mark.parametrize("mode", ["eager", "numpy", "jax"])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, lengths, mode):
    ours, theirs, batch_first = both_layers(name)
    sizes, enforce_sorted = lengths
    draw = np.random.default_rng(1)
    values = draw.standard_normal((3, 5, 3) if batch_first else (5, 3, 3)).astype(np.float32)
    rows = values if batch_first else values.swapaxes(0, 1)
    for row, size in zip(rows, sizes, strict=True):
        row[size:] = np.nan  # nobody may look
    count = theirs.num_layers * (2 if theirs.bidirectional else 1)
    start = draw.standard_normal((count, 3, 4)).astype(np.float32)

    def results(t, layer, function):
        x, state = t.tensor(values, requires_grad=True), t.tensor(start, requires_grad=True)
        found = function(t, layer, x, state, t.tensor(sizes), enforce_sorted, batch_first)
        return [*found, x.grad, state.grad, *(weight.grad for weight in layer.parameters())]

    def step(t, layer, *inputs):
        found = run(t, layer, *inputs)
        found[0].backward()
        return found

    def ours_step(x, state, lengths):
        return step(tg, ours, x, state, lengths, enforce_sorted, batch_first)

    if mode != "eager":
        ours_step = tg.compile(ours_step, backend=mode, fullgraph=True)
    expected = results(torch, theirs, step)
    found = results(tg, ours, lambda t, layer, x, state, sizes, *_: ours_step(x, state, sizes))
    agree(found, expected, 2e-5)


def test_other_lengths_take_the_same_graph():
    layer = tg.nn.LSTM(3, 4)

    def step(x, lengths):
        packed = tg.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        return tg.nn.utils.rnn.pad_packed_sequence(layer(packed)[0], total_length=5)[0]

    compiled = tg.compile(step, fullgraph=True)
    x = tg.randn(5, 3, 3)
    for sizes in ([5, 3, 1], [2, 4, 4], [1, 1, 1], [5, 5, 5]):
        agree([compiled(x, tg.tensor(sizes))], [step(x, tg.tensor(sizes))])
    assert compiled.stats()["recordings"] == 1


@pytest.mark.parametrize("mode", ["eager", "numpy"])
@pytest.mark.parametrize("enforce_sorted", [True, False])
def test_the_parts_of_a_packed_sequence(enforce_sorted, mode):
    def parts(t, given):
        packed = t.nn.utils.rnn.pack_sequence(given, enforce_sorted)
        data, batch_sizes, there, back = packed
        twice = t.nn.utils.rnn.PackedSequence(data * 2, batch_sizes, there, back)
        padded, lengths = t.nn.utils.rnn.pad_packed_sequence(
            twice, batch_first=True, total_length=7
        )
        found = [
            data,
            packed[0],
            batch_sizes,
            padded,
            lengths,
            *t.nn.utils.rnn.unpack_sequence(twice),
        ]
        return found if there is None else [*found, there, back]

    lengths = (5, 3, 2) if enforce_sorted else (2, 5, 3)
    ours = lambda given: parts(tg, given)
    function = ours if mode == "eager" else tg.compile(ours, fullgraph=True)
    agree(function(sequences(tg, lengths)), parts(torch, sequences(torch, lengths)))


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("width", [(), (3,), (2, 3)], ids=str)
def test_padding(width, batch_first, side):
    def padded(t):
        given = [s.requires_grad_() for s in sequences(t, width=width)]
        out = t.nn.utils.rnn.pad_sequence(given, batch_first, 0.5, side)
        (out * out).sum().backward()
        return [out, *(s.grad for s in given)]

    agree(padded(tg), padded(torch))


def test_padding_of_integers_and_back():
    for t in (torch, tg):
        rnn = t.nn.utils.rnn
        out = rnn.pad_sequence([t.tensor([1, 2, 3]), t.tensor([4])], True, -1)
        assert out.dtype == t.int64 and out.tolist() == [[1, 2, 3], [4, -1, -1]]
        back = rnn.unpad_sequence(out, t.tensor([3, 1]), batch_first=True)
        assert [row.tolist() for row in back] == [[1, 2, 3], [4]]


def test_a_packed_sequence_given_to_a_compiled_function():
    layer = tg.nn.GRU(3, 4)

    def step(packed):
        y, last = layer(packed)
        return y.data, last

    compiled = tg.compile(step, fullgraph=True)
    for lengths in ((2, 5, 3), (5, 1, 4), (2, 5, 3)):
        packed = tg.nn.utils.rnn.pack_sequence(sequences(tg, lengths), enforce_sorted=False)
        agree(compiled(packed), step(packed))


@pytest.mark.parametrize(
    "call",
    [
        lambda t, rnn, x: rnn.pack_padded_sequence(x, [1, 2, 3]),
        lambda t, rnn, x: rnn.pack_padded_sequence(x, [3, 0, 0]),
        lambda t, rnn, x: rnn.pack_padded_sequence(x, [2, 1]),
        lambda t, rnn, x: rnn.pad_sequence([]),
        lambda t, rnn, x: rnn.pad_packed_sequence(
            rnn.pack_padded_sequence(x, [3, 2, 1]), total_length=2
        ),
        lambda t, rnn, x: t.nn.LSTM(4, 2)(rnn.pack_padded_sequence(x, [3, 2, 1])),
        lambda t, rnn, x: rnn.pad_packed_sequence(t.ones(2, 3)),
    ],
)
def test_what_is_refused(call):
    with pytest.raises(tg.errors.InvalidValueError, match="between 1 and 5"):
        tg.nn.utils.rnn.pack_padded_sequence(tg.ones(5, 3, 3), [9, 2, 1])
    for t, errors in ((torch, (RuntimeError, ValueError, AttributeError)), (tg, tg.TracegradError)):
        with pytest.raises(errors):
            call(t, t.nn.utils.rnn, t.ones(5, 3, 3))
