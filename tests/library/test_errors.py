"""Typical mistakes: messages say what is wrong, at which line of the user, and how to fix it."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import tracegrad as tg
from tracegrad import nn
from tracegrad.nn import functional as F


def twice():
    x = tg.ones(3, requires_grad=True)
    loss = (x * x).sum()
    loss.backward()
    loss.backward()


def written_leaf():
    w = tg.ones(2, requires_grad=True)
    w += 1


def truth():
    if tg.ones(3):
        pass


def uncallable_shape():
    layer = nn.Linear(2, 2)
    tg.compile(lambda x: layer(x), backend="numpy")(tg.ones(1, 3))


MISTAKES = {
    "linear": (
        lambda: nn.Linear(4, 3)(tg.ones(2, 5)),
        r"\[2, 5\] does not end in the 4 features",
        "shapes",
    ),
    "second layer": (
        lambda: nn.Sequential(nn.Linear(2, 3), nn.Linear(4, 1))(tg.ones(1, 2)),
        r"\[1, 3\]",
        "shapes",
    ),
    "compiled": (uncallable_shape, r"\[1, 3\] does not end in the 2 features", "shapes"),
    "matmul": (lambda: tg.ones(2, 3) @ tg.ones(2, 3), "must equal", "shapes"),
    "broadcast": (lambda: tg.ones(2, 3) + tg.ones(4), "do not broadcast", "shapes"),
    "cat": (lambda: tg.cat([tg.ones(2, 3), tg.ones(2, 4)]), "differ outside dimension 0", "shapes"),
    "view": (lambda: tg.ones(2, 3).view(4, 2), "does not hold 6 elements", "-1"),
    "conv": (lambda: nn.Conv2d(3, 4, 3)(tg.ones(1, 1, 8, 8)), "has 1 channels", "shapes"),
    "dtypes": (lambda: nn.Linear(2, 2)(tg.ones(1, 2, dtype=tg.float64)), "one dtype", "dtypes"),
    "float classes": (
        lambda: F.cross_entropy(tg.ones(2, 3), tg.tensor([0.0, 1.0])),
        "class indices of dtype",
        r"target\.long\(\)",
    ),
    "class count": (
        lambda: F.cross_entropy(tg.ones(2, 3), tg.tensor([0, 1, 2])),
        r"target has \[3\]",
        "class index",
    ),
    "target size": (
        lambda: F.binary_cross_entropy_with_logits(tg.ones(2, 1), tg.ones(2)),
        "different to the input size",
        "reshape",
    ),
    "float indices": (lambda: nn.Embedding(5, 2)(tg.tensor([1.0])), "integer indices", "dtypes"),
    "no gradient": (
        lambda: tg.ones(3).sum().backward(),
        "does not require grad",
        r"requires_grad_\(\)",
    ),
    "twice": (twice, "second time", "retain_graph=True"),
    "not a scalar": (lambda: tg.ones(3, requires_grad=True).backward(), "3 elements", "scalar"),
    "integer leaf": (lambda: tg.tensor([1], requires_grad=True), "int64", r"x\.float\(\)"),
    "leaf": (written_leaf, "leaf that requires grad", r"no_grad\(\)"),
    "numpy": (
        lambda: tg.ones(2, requires_grad=True).numpy(),
        "requires grad",
        r"detach\(\)\.numpy\(\)",
    ),
    "truth": (truth, "ambiguous", r"\.any\(\)"),
    "item": (lambda: tg.ones(2).item(), "one element", "reduce"),
    "cuda": (lambda: tg.ones(2).to("cuda"), "live on the CPU", 'backend="jax"'),
    "model to cuda": (lambda: nn.Linear(2, 2).cuda(), "live on the CPU", 'backend="jax"'),
    "current device": (lambda: tg.cuda.current_device(), "no CUDA device", "is_available"),
    "autocast": (
        lambda: tg.autocast("cpu", dtype=tg.bfloat16),
        "autocast on the CPU",
        "enabled=False",
    ),
    "backend": (
        lambda: tg.compile(twice, backend="inductor"),
        "unknown backend 'inductor'",
        "'numpy', 'jax'",
    ),
    "option": (
        lambda: tg.compile(twice, bakend="jax"),
        "no option 'bakend'",
        "did you mean 'backend'",
    ),
    "dtype": (lambda: tg.zeros(2, dtype="float32"), "not a dtype", r"tg\.float32"),
    "ragged": (lambda: tg.tensor([[1], [1, 2]]), "ragged", "same length"),
    "index": (lambda: tg.ones(3)["a"], "indexed by str", "integers"),
    "state dict": (
        lambda: nn.Linear(2, 2).load_state_dict({"weight": tg.ones(3, 2), "bais": tg.ones(2)}),
        r'(?s)"bais".*"bias".*\[3, 2\]',
        "strict=False",
    ),
    "saving code": (lambda: tg.save(twice, "never-written.tg"), "not plain data", "state_dict"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_message(name):
    mistake, what, fix = MISTAKES[name]
    with pytest.raises(tg.TracegradError, match=what) as caught:
        mistake()
    where = [line for line in str(caught.value).splitlines() if line.startswith("  where: ")]
    assert len(where) == 1 and "test_errors.py:" in where[0], caught.value
    advice = str(caught.value).partition("  fix:   ")[2]
    assert advice, caught.value
    assert re.search(fix, advice), advice
    assert f"[{type(caught.value).code}]" in advice


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: nn.Embedding(5, 2)(tg.tensor([7])),
        lambda: F.cross_entropy(tg.ones(2, 3), tg.tensor([0, 7])),
        lambda: tg.ones(3).gather(0, tg.tensor([7])),
        lambda: tg.compile(lambda x: x[tg.tensor([7])], backend="numpy")(tg.ones(3)),
    ],
)
def test_an_index_out_of_range(mistake):
    with pytest.raises(
        IndexError, match=r"(?s)7 is out of range.*valid.*where: .*test_errors\.py:"
    ):
        mistake()


def damaged(path):
    tg.save({"a": tg.ones(100)}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(bytes(content))


def cut_short(path):
    tg.save({"a": tg.ones(100)}, path)
    path.write_bytes(path.read_bytes()[:150])


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (damaged, tg.errors.CorruptFileError),
        (cut_short, tg.errors.CorruptFileError),
        (lambda path: path.write_bytes(b"nothing of ours " * 20), tg.errors.WrongFileError),
        (lambda path: path.write_bytes(np.ones(3).tobytes()), tg.errors.WrongFileError),
        (lambda path: torch.save({"a": torch.ones(2)}, path), tg.errors.WrongFileError),
    ],
)
def test_loading_a_bad_file(tmp_path, spoil, kind):
    path = tmp_path / "model.tg"
    spoil(path)
    with pytest.raises(kind) as caught:
        tg.load(path)
    message = str(caught.value)
    assert os.fspath(path) in message and "test_errors.py:" in message and "  fix:   " in message


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        tg.load(tmp_path / "absent.tg")


def test_a_tensor_that_outlives_its_trace():
    class Kept:
        hidden = None

    kept = Kept()

    def step(x):
        object.__setattr__(kept, "hidden", x * 2)  # unseen by the recording
        return x + 1

    tg.compile(step, backend="numpy")(tg.ones(2))
    with pytest.raises(tg.errors.LeakedTensorError, match=r"(?s)where: .*test_errors\.py:.*fix: "):
        kept.hidden + 1


@pytest.mark.parametrize(
    ("mistake", "kind", "match"),
    [
        (lambda: tg.ones(3)[5], IndexError, r"index 5.*size 3.*test_errors\.py:"),
        (lambda: tg.ones(2, 3).sum(5), IndexError, r"dim 5.*-2 to 1.*test_errors\.py:"),
        (lambda: tg.optim.SGD([], lr=0.1), ValueError, "empty parameter list"),
        (lambda: tg.optim.SGD([tg.ones(1)], lr=-1), ValueError, "learning rate"),
        (lambda: tg.ones(2).relu7(), AttributeError, "relu7"),
        (lambda: tg.relu7, AttributeError, "relu7"),
    ],
)
def test_pythons_own_errors(mistake, kind, match):
    with pytest.raises(kind, match=match):
        mistake()


def test_every_code_is_in_the_documentation():
    text = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
    kinds = [getattr(tg.errors, name) for name in tg.errors.__all__]
    assert len({kind.code for kind in kinds}) == len(kinds), "two errors share a code"
    for kind in kinds:
        if kind is not tg.TracegradError:
            assert f"| {kind.code} | {kind.__name__} |" in text, (
                f"describe {kind} in docs/errors.md"
            )
