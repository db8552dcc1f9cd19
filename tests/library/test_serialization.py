"""save and load: round trips, sharing, atomicity, clear errors for unreadable files."""

import io
import json
import os
import pickle
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch

import tracegrad as tg
from tracegrad import nn, optim
from tracegrad.errors import CorruptFileError, SerializationError, WrongFileError


def round_trip(obj):
    stream = io.BytesIO()
    tg.save(obj, stream)
    stream.seek(0)
    return tg.load(stream)


@pytest.mark.parametrize(
    "obj",
    [
        None, True, 3, -(2**70), 1.5, 0.1, float("inf"), -0.0, 2 + 3j, "text \u00e9\n", b"\x00\xff",
        [1, [2, (3, "x")]], {"a": 1, 2: [3], (1, 2): None}, OrderedDict(b=1, a=2), {1, 2},
        frozenset({3}), Counter({5: 2}), tg.float32, [], (), {},
    ],
    ids=repr,
)  # fmt: skip
def test_plain_data(obj):
    back = round_trip(obj)
    assert back == obj and type(back) is type(obj)
    assert repr(back) == repr(obj)


def test_nan():
    assert np.isnan(round_trip(float("nan")))


@pytest.mark.parametrize(
    "dtype",
    ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32",
     "float64", "complex64", "complex128"],
)  # fmt: skip
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3)])
def test_tensors_of_every_dtype(dtype, shape):
    values = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    tensor = tg.tensor(values).to(getattr(tg, dtype))
    back = round_trip(tensor)
    assert back.dtype == tensor.dtype and back.shape == tensor.shape
    assert back.tolist() == tensor.tolist()
    if dtype != "bfloat16":
        array = values.astype(dtype)
        again = round_trip(array)
        assert isinstance(again, np.ndarray) and again.dtype == array.dtype
        np.testing.assert_array_equal(again, array)


def test_kinds_and_requires_grad():
    tracked = tg.ones(2).requires_grad_()
    back = round_trip({"p": nn.Parameter(tg.ones(2)), "t": tracked, "c": tg.ones(1)})
    assert isinstance(back["p"], nn.Parameter) and back["p"].requires_grad
    assert back["t"].requires_grad and not back["c"].requires_grad
    back["c"].add_(1)  # loaded tensors can be written
    frozen = round_trip(nn.Parameter(tg.ones(2), requires_grad=False))
    assert isinstance(frozen, nn.Parameter) and not frozen.requires_grad
    scalar = round_trip(np.float32(1.5))
    assert type(scalar) is np.float32 and scalar == 1.5


def test_sharing():
    base = tg.arange(6).float()
    same, alias, part = base, base.detach(), base[2:4]
    a, b, c, d, other = round_trip([base, same, alias, part, tg.arange(6).float()])
    assert a is b and a is not c
    a[2] = 50.0
    assert c[2].item() == 50 and d[0].item() == 50 and other[2].item() == 2
    tied = nn.Linear(3, 3)
    model = nn.Sequential(tied, tied)
    state = round_trip(model.state_dict())
    state["0.weight"][0, 0] = 9.0
    assert state["1.weight"][0, 0].item() == 9.0


def test_shared_buffers_are_stored_once(tmp_path):
    big = tg.zeros(1000)
    tg.save([big, big.detach(), big[:500]], tmp_path / "f")
    assert os.path.getsize(tmp_path / "f") < 6000


def test_strided_views_are_saved_as_copies():
    square = tg.arange(6).reshape(2, 3)
    turned, column = round_trip([square.t(), square[:, 1]])
    assert turned.tolist() == [[0, 3], [1, 4], [2, 5]] and column.tolist() == [1, 4]


def test_a_training_checkpoint(tmp_path):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    opt = optim.Adam(model.parameters())
    schedule = optim.lr_scheduler.MultiStepLR(opt, [1, 2])
    model(tg.ones(2, 3)).sum().backward()
    opt.step()
    schedule.step()
    path = tmp_path / "check.tg"
    tg.save({"m": model.state_dict(), "o": opt.state_dict(), "s": schedule.state_dict()}, path)
    state = tg.load(path)
    assert type(state["m"]) is OrderedDict and state["m"]._metadata == model.state_dict()._metadata
    fresh = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    fresh.load_state_dict(state["m"])
    other = optim.Adam(fresh.parameters())
    other.load_state_dict(state["o"])
    again = optim.lr_scheduler.MultiStepLR(other, [1, 2])
    again.load_state_dict(state["s"])
    assert again.milestones == Counter([1, 2]) and other.param_groups[0]["betas"] == (0.9, 0.999)
    for a, b in zip(model.parameters(), fresh.parameters()):
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())


@pytest.mark.parametrize(
    "obj, match",
    [
        ({"model": nn.Linear(1, 1)}, r"cannot save obj\['model'\]: .*Linear is not plain data"),
        ([1, [lambda: 0]], r"cannot save obj\[1\]\[0\]"),
        (np.array(["a"]), "cannot save an array"),
    ],
)
def test_what_cannot_be_saved(obj, match, tmp_path):
    with pytest.raises(SerializationError, match=match):
        tg.save(obj, tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


def test_a_loss_comes_back_as_a_leaf():
    """PyTorch's usual checkpoint has the loss in it, with its history."""
    loss = round_trip({"loss": tg.ones(2, requires_grad=True) * 2})["loss"]
    assert loss.tolist() == [2, 2] and loss.requires_grad and loss.is_leaf


def test_cycles_cannot_be_saved():
    loop = []
    loop.append(loop)
    with pytest.raises(SerializationError, match="contains itself"):
        round_trip(loop)
    twice = [1]
    assert round_trip([twice, twice]) == [[1], [1]]


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "f"
    tg.save([1], path)

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", fail)
    with pytest.raises(SerializationError, match="cannot write .*: disk full"):
        tg.save([2], path)
    monkeypatch.undo()
    assert tg.load(path) == [1] and [p.name for p in tmp_path.iterdir()] == ["f"]
    with pytest.raises(SerializationError, match="cannot write"):
        tg.save(1, tmp_path / "missing" / "f")
    with pytest.raises(SerializationError, match="cannot write .*irectory"):
        tg.save(1, tmp_path)
    assert [p.name for p in tmp_path.parent.iterdir() if tmp_path.name in p.name] == [tmp_path.name]


def test_saving_leaves_the_umask_alone(tmp_path, monkeypatch):
    """Another thread's files would be open to everybody for a moment."""
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask belongs to the process"))
    tg.save({"x": tg.ones(2)}, tmp_path / "x.tg")
    assert [path.name for path in tmp_path.iterdir()] == ["x.tg"]


def test_saved_files_have_ordinary_permissions(tmp_path):
    (tmp_path / "plain").write_text("x")
    tg.save(1, tmp_path / "f")
    assert (tmp_path / "f").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_wrong_files(tmp_path):
    with pytest.raises(FileNotFoundError) as missing:
        tg.load(tmp_path / "nothing")
    with pytest.raises(OSError) as unreadable:
        tg.load(tmp_path)
    for caught in (missing, unreadable):
        assert isinstance(caught.value, SerializationError) and "fix:" in str(caught.value)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(WrongFileError, match="not a file written by tracegrad.save"):
        tg.load(tmp_path / "text")
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(WrongFileError, match="has no manifest.json"):
        tg.load(tmp_path / "zip")
    torch.save({"w": torch.ones(2)}, tmp_path / "torch.pt")
    with pytest.raises(WrongFileError, match="PyTorch checkpoint"):
        tg.load(tmp_path / "torch.pt")
    (tmp_path / "pickle").write_bytes(pickle.dumps([1]))
    with pytest.raises(WrongFileError):
        tg.load(tmp_path / "pickle")


def rewritten(path, change):
    """The archive at `path` with its manifest changed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members["manifest.json"])
    change(manifest)
    members["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    "change, error",
    [
        (lambda m: m.update(version=99), WrongFileError),
        (lambda m: m.update(format="other"), WrongFileError),
        (lambda m: m.update(buffers=[4]), CorruptFileError),
        (lambda m: m["root"].update(t="code"), CorruptFileError),
        (lambda m: m["root"].update(dtype="f99"), CorruptFileError),
        (lambda m: m["root"].update(shape=[10**9]), CorruptFileError),
        (lambda m: m["root"].update(offset=-4), CorruptFileError),
        (lambda m: m["root"].update(buffer=7), CorruptFileError),
        (lambda m: m.pop("root"), CorruptFileError),
        (lambda m: m.pop("buffers"), CorruptFileError),
    ],
)
def test_manifests_that_lie(tmp_path, change, error):
    path = tmp_path / "f"
    tg.save(tg.ones(4), path)
    rewritten(path, change)
    with pytest.raises(error):
        tg.load(path)


def test_every_flipped_byte_and_every_truncation_is_an_error_or_harmless(tmp_path):
    path = tmp_path / "f"
    tg.save({"w": tg.arange(8)}, path)
    good = path.read_bytes()
    for size in range(0, len(good), 7):
        path.write_bytes(good[:size])
        with pytest.raises(SerializationError):
            tg.load(path)
    for position in range(0, len(good), 3):
        damaged = bytearray(good)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            back = tg.load(path)
        except SerializationError as error:
            assert str(path) in str(error)
        else:  # a field of the zip format that nothing depends on
            assert back["w"].tolist() == list(range(8))


def test_unknown_devices_are_refused(tmp_path):
    tg.save(tg.ones(1), tmp_path / "f")
    for place in ("cpu", tg.device("cpu"), lambda storage, at: storage, {"cuda:0": "cpu"}):
        assert tg.load(tmp_path / "f", map_location=place).item() == 1
    for place in ("cuda", {"cpu": "cuda"}):
        with pytest.raises(RuntimeError):
            tg.load(tmp_path / "f", map_location=place)


@pytest.mark.parametrize("size", [11, 12])
def test_views_of_bytes_as_other_dtypes(size):
    """Their base may end, and they may begin, within an element."""
    raw = np.arange(size, dtype=np.uint8)
    parts = [tg.from_numpy(raw[a:b].view(t)) for a, b, t in ((1, 9, "<i4"), (3, 5, "<i2"))]
    for given in ([*parts, tg.from_numpy(raw)], [tg.from_numpy(raw), *parts]):
        for saved, back in zip(given, round_trip(given), strict=True):
            assert saved.dtype == back.dtype and saved.tolist() == back.tolist()


def test_streams_of_another_kind():
    with pytest.raises(WrongFileError, match="starts with b'hell'"):
        tg.load(io.BytesIO(b"hello world"))
    for use in (tg.load, lambda stream: tg.save(1, stream)):
        with pytest.raises(TypeError, match="open as text"):
            use(io.StringIO("hello"))
