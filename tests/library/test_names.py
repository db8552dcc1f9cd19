"""The names of `tracegrad` are PyTorch's, and behave as there."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import tracegrad as tg

OWN = {
    "Mesh",
    "TracegradError",
    "batching",
    "compiling",
    "errors",
    "ir",
    "names",
    "passes",
    "runtime",
    "settings",
    "tracer",
    "cli",
    "demo",
    "demo_report",
    "serialization",
}


def test_every_public_name_is_pytorchs():
    shown = {name for name in dir(tg) if not name.startswith("_")}
    assert {name for name in shown if not hasattr(torch, name)} <= OWN


@pytest.mark.parametrize(
    "call",
    [
        lambda t, x: x.diagonal(),
        lambda t, x: x.diagonal(1),
        lambda t, x: x.T.diagonal(-2),
        lambda t, x: x.diagonal(9),
        lambda t, x: t.stack([x, x + 1]).diagonal(1, 2, 0),
        lambda t, x: x.unfold(1, 2, 1),
        lambda t, x: x.unfold(0, 3, 2),
        lambda t, x: x.clone().fill_diagonal_(5),
        lambda t, x: t.zeros(7, 2).fill_diagonal_(5, wrap=True),
        lambda t, x: t.tensor_split(x, 3, dim=1),
        lambda t, x: x.tensor_split((1, 2)),
        lambda t, x: t.hsplit(x, 2),
        lambda t, x: t.vsplit(x, [1]),
        lambda t, x: x.split_with_sizes([1, 3], 1),
        lambda t, x: t.atleast_1d(t.tensor(1.0), x),
        lambda t, x: t.atleast_2d(x[0]),
        lambda t, x: t.atleast_3d(x),
        lambda t, x: t.column_stack([x[:, 0], x]),
        lambda t, x: t.dstack([x, x]),
        lambda t, x: t.block_diag(x, x[:1]),
        lambda t, x: t.broadcast_tensors(x, x[:1]),
        lambda t, x: t.vdot(x[0], x[1]),
        lambda t, x: t.diagflat(x, 1),
        lambda t, x: x.mH,
        lambda t, x: t.select_scatter(x, x[0], 0, 1),
        lambda t, x: t.logspace(0, 2, 5),
        lambda t, x: t.slice_scatter(x, x[:2], 0, 1, 3),
        lambda t, x: t.diagonal_scatter(x, t.ones(3)),
        lambda t, x: t.scalar_tensor(3),
        lambda t, x: t.FloatTensor([1, 2]),
        lambda t, x: t.LongTensor([[1], [2]]),
        lambda t, x: t.relu_(x - 3),
        lambda t, x: t.isin(x, t.tensor([1.0, 5.0])),
        lambda t, x: x.new_full((2,), 3.0),
        lambda t, x: x.new_tensor([1, 2]),
        lambda t, x: x.real,
        lambda t, x: t.dropout(x, 0.5, False),
    ],
)
def test_values(call):
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    ours, theirs = call(tg, tg.tensor(values)), call(torch, torch.tensor(values))
    for a, b in zip(
        *((r if isinstance(r, tuple | list) else (r,)) for r in (ours, theirs)), strict=True
    ):
        assert tuple(a.shape) == tuple(b.shape) and a.dtype.public_name == str(
            b.dtype
        ).removeprefix("torch.")
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6)


def test_writing_through_a_diagonal():
    x = tg.zeros(3, 4)
    x.diagonal().fill_(1)
    x.T.diagonal(-1).add_(2)
    assert x.tolist() == [[1, 2, 0, 0], [0, 1, 2, 0], [0, 0, 1, 2]]


def test_questions_about_the_machine():
    assert not tg.cuda.is_available() and tg.cuda.device_count() == 0
    assert not tg.backends.mps.is_available() and not tg.accelerator.is_available()
    tg.backends.cudnn.benchmark = True
    tg.cuda.manual_seed_all(0)
    tg.use_deterministic_algorithms(True)
    tg.set_float32_matmul_precision("high")
    assert tg.get_default_device() == "cpu" and tg.ones(2).get_device() == -1 and tg.ones(2).is_cpu
    assert isinstance(tg.float32, tg.dtype) and tg.broadcast_shapes((3, 1), (4,)) == (3, 4)
    assert (
        not tg.is_nonzero(tg.tensor(0))
        and tg.is_signed(tg.ones(1))
        and not tg.is_signed(tg.zeros(1, dtype=tg.uint8))
    )


def test_questions_to_a_dtype():
    for name in ("float16", "bfloat16", "float32", "int64", "int8", "uint8", "bool", "complex64"):
        ours, theirs = getattr(tg, name), getattr(torch, name)
        for question in ("is_floating_point", "is_signed", "is_complex", "itemsize"):
            assert getattr(ours, question) == getattr(theirs, question), (name, question)


def test_split_by_its_names():
    for t in (torch, tg):
        x = t.arange(5.0)
        halves = [x.split(split_size=2), t.split(x, split_size_or_sections=2), x.split(t.tensor(2))]
        for pieces in halves:
            assert [piece.tolist() for piece in pieces] == [[0, 1], [2, 3], [4]]
        assert [len(piece) for piece in x.split(split_size=[1, 4], dim=0)] == [1, 4]
    with pytest.raises(tg.errors.ArgumentError, match="of no size"):
        tg.ones(2).split()


def test_threads():
    before = tg.get_num_threads()
    tg.set_num_threads(1)
    assert tg.get_num_threads() == 1
    tg.set_num_threads(before)


def test_mixed_precision_is_off_without_cuda():
    with tg.autocast("cpu", enabled=False):
        assert (tg.ones(2, 2) @ tg.ones(2, 2)).dtype is tg.float32
    with pytest.warns(UserWarning, match="autocast for 'cuda' is off"), tg.autocast("cuda"):
        pass
    scaler = tg.amp.GradScaler(enabled=False)
    w = tg.ones(2, requires_grad=True)
    optimizer = tg.optim.SGD([w], lr=0.5)
    scaler.scale(w.sum()).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert w.tolist() == [0.5, 0.5]


def test_print_options():
    x = tg.tensor([1.23456789])
    try:
        tg.set_printoptions(precision=2)
        assert repr(x) == "tensor([1.23])"
    finally:
        tg.set_printoptions(profile="default")
    assert repr(x) == "tensor([1.2346])"


SCRIPT = """
import tracegrad as torch
import tracegrad.nn as nn
import tracegrad.nn.functional as F
import tracegrad.optim as optim
from tracegrad.amp import GradScaler, autocast
from tracegrad.nn.utils import clip_grad_norm_
from tracegrad.optim.lr_scheduler import StepLR
from tracegrad.utils.data import DataLoader, Dataset, TensorDataset, random_split
from tracegrad.backends import cudnn

cudnn.benchmark = True
model = nn.Linear(2, 1)
step = torch.compile(lambda x: F.mse_loss(model(x), torch.zeros(3, 1)))
print(float(step(torch.ones(3, 2)).detach()) >= 0)
"""


def test_import_forms():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "True\n", done.stderr


def test_assert_close_asserts_under_python_dash_o():
    code = """
import tracegrad as tg
for actual, expected in [(tg.ones(2), tg.ones(3)), ([1.0], [1.0, 2.0]), ({}, {"a": 1.0}), (1, 1.0)]:
    try:
        tg.testing.assert_close(actual, expected)
    except AssertionError as error:
        print(str(error).split()[0])
"""
    shown = subprocess.run(
        [sys.executable, "-O", "-c", code], capture_output=True, text=True, check=True
    )
    assert shown.stdout.split() == ["shapes", "lengths", "keys", "dtypes"]
