"""PackedSequence is an argument and a result as a user's dataclass is: one recording for all lengths."""

import pytest

import tracegrad as tg
from tracegrad import nn
from tracegrad.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
def test_a_compiled_recurrent_layer_takes_and_returns_them(cell, backend):
    tg.manual_seed(0)
    layer = cell(3, 4, batch_first=True, bidirectional=True)
    compiled = tg.compile(layer, backend=backend, fullgraph=True)
    for k in range(5):
        x, lengths = tg.randn(3, 5, 3), tg.tensor([1 + k % 4, 5, 3])
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        found = []
        for call in (layer, compiled):
            out, _ = call(packed)
            assert isinstance(out, PackedSequence)
            padded, counts = pad_packed_sequence(out, batch_first=True)
            assert counts.tolist() == lengths.tolist()
            layer.zero_grad()
            padded.square().sum().backward()
            found.append((padded.detach(), out.data.detach(), layer.weight_hh_l0.grad.clone()))
        for a, b in zip(*found, strict=True):
            assert tg.allclose(a, b, atol=1e-5)
    assert compiled.stats()["recordings"] == 1
