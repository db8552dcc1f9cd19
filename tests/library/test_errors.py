"""Typical mistakes: messages say what is wrong, at which line of the user, and how to fix it."""

import os
import re
import sys
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


LEAF = tg.ones(2, requires_grad=True)
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
    "embedding of a vector": (
        lambda: F.embedding(tg.tensor([0]), tg.ones(3)),
        r"weight \[V, D\], not one of shape \[3\]",
        "shapes",
    ),
    "float condition": (
        lambda: tg.where(tg.ones(2), 1.0, 2.0),
        "bool condition, not float32",
        "dtypes",
    ),
    "float mask": (lambda: tg.ones(2).masked_select(tg.ones(2)), "bool mask", "mask != 0"),
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
        r'(?s)"bias".*"bais".*\[3, 2\]',
        "strict=False",
    ),
    "position": (lambda: tg.ones(3)[5], "index 5 is out of range", "shape"),
    "dimension": (lambda: tg.ones(3).sum(4), "dim 4 is out of range", "shape"),
    "dimension's kind": (lambda: tg.ones(3).sum("a"), "an integer, not 'a'", "number"),
    "mask's shape": (lambda: tg.ones(3)[tg.tensor([True])], "does not fit", "shape"),
    "nothing to join": (lambda: tg.cat([]), "at least one tensor", "list"),
    "pieces": (lambda: tg.ones(3).split(0), "pieces of 0", "above 0"),
    "chunks": (lambda: tg.ones(3).chunk(0), "into 0 pieces", "above 0"),
    "moved twice": (
        lambda: tg.ones(2, 3).movedim((0, -2), (0, 1)),
        r"\(0, -2\) to the places",
        "shapes",
    ),
    "narrow of a number": (lambda: tg.tensor(1.0).narrow(0, 0, 1), "0 dimensions", ""),
    "nothing beside": (lambda: tg.hstack([]), "at least one tensor", "a list of tensors"),
    "moved": (
        lambda: tg.ones(2, 3).movedim((0, 1), (0,)),
        r"\(0, 1\) to the places \(0,\)",
        "shapes",
    ),
    "sizes": (lambda: tg.zeros(-1), r"sizes \[-1\]", "not negative"),
    "size's kind": (lambda: tg.zeros("a"), "'a', not an integer", "integers"),
    "how many": (lambda: tg.arange(5.0).topk(True), "topk.*: k is True, not an integer", "help"),
    "classes": (lambda: F.one_hot(tg.arange(3), True), "num_classes is True", "help"),
    "number of pieces": (lambda: tg.ones(4).chunk(2.0), "chunks is 2.0, not an integer", "n // 2"),
    "value's kind": (lambda: tg.full((2,), "a"), "'a', not a number", "number"),
    "strings": (lambda: tg.from_numpy(np.array(["a"])), "from_numpy", "numbers"),
    "length of a number": (lambda: len(tg.tensor(1.0)), "0-d", "numel"),
    "seed": (lambda: tg.manual_seed("a"), "seed", "integer"),
    "generator": (lambda: tg.rand(2, generator=3), "not a Generator", r"tg\.Generator"),
    "random state": (lambda: tg.set_rng_state(tg.ones(2)), "random state", "get_rng_state"),
    "default dtype": (lambda: tg.set_default_dtype("float32"), "floating dtype", r"tg\.float32"),
    "device name": (lambda: tg.ones(2).to("gpu"), "no device is called 'gpu'", "cpu"),
    "mode": (lambda: tg.compile(twice, mode="fast"), "mode='fast'", "reduce-overhead"),
    "not a function": (lambda: tg.compile(3), "cannot be called", "function"),
    "rate": (lambda: tg.optim.SGD([tg.ones(1)], lr="a"), "learning rate", "number"),
    "no parameters": (lambda: tg.optim.Adam([]), "empty parameter list", "parameters"),
    "parameter twice": (
        lambda: tg.optim.SGD([{"params": [LEAF]}, {"params": [LEAF]}], lr=1),
        "more than one parameter group",
        "one group",
    ),
    "group": (lambda: tg.optim.SGD([{"lr": 1}], lr=1), "without 'params'", "params"),
    "computed parameter": (lambda: tg.optim.SGD([LEAF * 2], lr=1), "non-leaf", "Parameter"),
    "optimiser's state": (
        lambda: tg.optim.SGD([LEAF], lr=1).load_state_dict({"a": 1}),
        "not the state dict",
        r"optimizer\.state_dict\(\)",
    ),
    "schedule": (lambda: tg.optim.lr_scheduler.StepLR(LEAF, 1), "not an Optimizer", "help"),
    "schedule's length": (
        lambda: tg.optim.lr_scheduler.OneCycleLR(tg.optim.SGD([LEAF], lr=1), max_lr=1),
        "total_steps",
        "value",
    ),
    "batch size": (
        lambda: tg.utils.data.DataLoader(tg.utils.data.TensorDataset(LEAF), batch_size=0),
        "batch_size=0",
        "value",
    ),
    "groups": (lambda: nn.Conv2d(3, 4, 3, groups=2), "divisible by groups", "value"),
    "heads": (lambda: nn.MultiheadAttention(5, 2), "divisible by num_heads", "value"),
    "recurrent input": (lambda: nn.GRU(4, 3)(tg.ones(2, 5, 6)), "Expected 4, got 6", "shapes"),
    "reduction": (
        lambda: F.mse_loss(LEAF, LEAF, reduction="avg"),
        "avg is not a valid value",
        "value",
    ),
    "missing target": (lambda: F.mse_loss(LEAF, None), "target is NoneType", r"tg\.tensor"),
    "logits": (lambda: F.cross_entropy(tg.tensor(1.0), tg.tensor(0)), "classes", r"\[N, C"),
    "int32 classes": (
        lambda: F.cross_entropy(tg.ones(1, 3), tg.zeros(1, dtype=tg.int32)),
        "class indices of dtype int32",
        r"target\.long\(\)",
    ),
    "unknown name": (lambda: tg.stft, "tracegrad has no 'stft'", "dir"),
    "misspelt layer": (lambda: nn.Liner, "tracegrad.nn has no 'Liner'", "mean 'Linear'"),
    "misspelt function": (lambda: F.crossentropy, "crossentropy", "mean 'cross_entropy'"),
    "misspelt schedule": (lambda: tg.optim.lr_scheduler.StepLr, "StepLr", "mean 'StepLR'"),
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
        __slots__ = ("hidden",)

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
        (lambda: tg.ones(3)[5], IndexError, r"(?s)index 5.*size 3.*test_errors\.py:.*fix: "),
        (lambda: tg.ones(2, 3).sum(5), IndexError, r"(?s)dim 5.*-2 to 1.*test_errors\.py:.*fix: "),
        (lambda: tg.optim.SGD([], lr=0.1), ValueError, "empty parameter list"),
        (lambda: tg.optim.SGD([tg.ones(1)], lr=-1), ValueError, "learning rate"),
        (lambda: tg.ones(2).relu7(), AttributeError, "relu7"),
        (lambda: tg.relu7, AttributeError, "relu7"),
    ],
)
def test_pythons_own_errors(mistake, kind, match):
    with pytest.raises(kind, match=match):
        mistake()


def test_a_gradient_that_does_not_exist():
    x = tg.ones(2, requires_grad=True)
    with pytest.raises(tg.errors.MissingVJPError) as caught:
        tg.nextafter(x, x + 1).sum().backward()
    message = str(caught.value)
    assert "nextafter at" in message and "test_errors.py:" in message
    assert "  fix:   " in message and message.endswith("[TG013]")


def test_jax_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(tg.errors.JaxNotInstalledError) as caught:
        tg.compile(lambda x: x, backend="jax")
    message = str(caught.value)
    assert isinstance(caught.value, ImportError) and "test_errors.py:" in message
    assert "fix:   pip install 'tracegrad[jax]'" in message and message.endswith("[TG026]")


def test_every_code_is_in_the_documentation():
    text = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
    kinds = [getattr(tg.errors, name) for name in tg.errors.__all__]
    assert len({kind.code for kind in kinds}) == len(kinds), "two errors share a code"
    for kind in kinds:
        assert issubclass(kind, tg.TracegradError)
        if kind is not tg.TracegradError:
            assert f"| {kind.code} | {kind.__name__} |" in text, (
                f"describe {kind} in docs/errors.md"
            )


VALUES = {
    "index": lambda x: x[(x * 7).long()],
    "probability": lambda x: F.binary_cross_entropy(x * 3, x),
    "matrix": lambda x: tg.linalg.inv(x[:, None] * x),
    "weights": lambda x: tg.multinomial(-x, 1),
    "class": lambda x: F.one_hot((x * 7).long(), 3) * x[0],
    "divisor": lambda x: x.long() // (x * 0).long(),
}


@pytest.mark.parametrize("mode", ["eager", "numpy", "jax"])
@pytest.mark.parametrize("name", VALUES)
def test_a_failed_step_changes_nothing(name, mode):
    """The error names the line and a fix; parameters, optimiser slots and random state stay."""
    tg.manual_seed(3)
    layer = nn.Linear(2, 2)
    optimizer = tg.optim.Adam(layer.parameters(), lr=0.1)

    def step(x, fails):
        optimizer.zero_grad()
        hidden = F.dropout(layer(x), 0.5)
        loss = (hidden * hidden).sum()
        if fails:
            loss = loss + VALUES[name](x).sum()
        loss.backward()
        optimizer.step()
        return loss

    run = step if mode == "eager" else tg.compile(step, backend=mode)
    x = tg.ones(2)
    for _ in range(2):
        run(x, False)

    def state():
        slots = optimizer.state_dict()["state"]
        return [
            [p.tolist() for p in layer.parameters()],
            [[tg.as_tensor(v).tolist() for v in slot.values()] for slot in slots.values()],
            # eager draws before it fails; on XLA the error comes after the call
            tg.get_rng_state().tolist() if mode == "numpy" else None,
        ]

    before = state()
    with pytest.raises(tg.errors.BackendError, match=r"(?s)where: .*test_errors\.py:.*fix: "):
        run(x, True).item()
    assert state() == before
    run(x, False)
    assert state() != before


def earlier(name):
    """The ops of `VALUES` on the same shapes, at lines of this function."""
    x = tg.ones(2)
    if name == "index":
        x[(x * 0).long()]
    elif name == "probability":
        F.binary_cross_entropy(x * 0.5, x)
    elif name == "matrix":
        tg.linalg.inv(tg.eye(2))
    elif name == "weights":
        tg.multinomial(x, 1)
    elif name == "class":
        F.one_hot((x * 2).long(), 3)
    else:
        x.long() // x.long()


@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize("name", VALUES)
def test_an_eager_error_names_the_line_of_its_own_call(name, tracked):
    """Not that of the first call with these shapes, whose program is used again."""
    earlier(name)
    with pytest.raises(tg.errors.BackendError) as caught:
        VALUES[name](tg.ones(2, requires_grad=tracked))
    where = str(caught.value).partition("where: ")[2].partition("\n")[0]
    assert "test_errors.py" in where and "earlier" not in where and "lambda" in where
