"""Whether a result is its operand, a view of it or a copy: what a write to it changes, as in PyTorch."""

import pytest
import torch

import tracegrad as tg

CALLS = """
+y | y.positive() | y.type_as(y) | y.type_as(y.double()) | y.conj() | m.conj(y) | m.positive(y) | y.adjoint()
y.to(y) | y.float() | y.double().float() | y.contiguous() | y.t().contiguous() | m.real(y) | m.clone(y)
y.reshape(3, 2) | y.t().reshape(-1) | m.ravel(y) | y.flatten(0, 0) | m.squeeze(y) | y[...] | y[:] | y[[0, 1]]
m.atleast_2d(y) | m.broadcast_to(y, (2, 3)) | y.expand_as(y) | m.movedim(y, 0, 1) | m.diagonal(y) | m.diag(y)
F.dropout(y, 0.5, False) | F.dropout(y, 0.0) | m.nn.Dropout().eval()(y) | m.nn.Identity()(y) | m.nn.Flatten(0)(y)
m.tensor_split(y, 2)[0] | m.stack([y])[0] | m.cat([y]) | y.tile(1) | y.roll(0) | F.pad(y, (0, 0)) | m.round(y)
y.to(m.float32, False, True) | y.to(y, True, False) | y.to('cpu', m.float32, True, True) | y.to(y, copy=True)
m.as_tensor(y) | y.data | y.detach() | y.requires_grad_(False) | m.nn.Parameter(y) | m.select(y, 0, 1)
"""
CALLS = [call.strip() for line in CALLS.strip().splitlines() for call in line.split("|")]


def written(m, call):
    y = m.arange(6.0).reshape(2, 3) + 1.0
    result = eval(call, {"m": m, "F": m.nn.functional, "y": y})
    with m.no_grad():
        result.fill_(77.0)
    return (y == 77.0).sum()


@pytest.mark.parametrize("mode", ["eager", "numpy"])
@pytest.mark.parametrize("call", CALLS)
def test_a_write_to_the_result(call, mode):
    run = written if mode == "eager" else tg.compile(written, backend=mode, fullgraph=True)
    assert run(tg, call).item() == written(torch, call).item()
