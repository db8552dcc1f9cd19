"""What no function takes is refused with a typed error at the user's line, by every public name."""

import inspect
import itertools
import os
import pickle
import traceback
import warnings

import numpy as np
import pytest

import tracegrad as tg
from tracegrad import nn
from tracegrad.errors import ArgumentError, InvalidValueError, TracegradError
from tracegrad.nn import functional as F

GOOD = (lambda: tg.ones(2, 3), lambda: tg.tensor([0, 1]))
BAD = (lambda: np.ones((2, 3), "f4"), lambda: [[1.0, 2.0]], lambda: None, lambda: "a", object)
CHANGING = {"seed", "manual_seed", "save", "load"}  # a state, or files; as all that begin with set_
ARGUMENTS = {
    "Linear": (3, 2), "Bilinear": (3, 3, 2), "Embedding": (3, 4), "EmbeddingBag": (3, 4), "GroupNorm": (1, 3),
    "LSTM": (3, 4), "GRU": (3, 4), "RNN": (3, 4), "LSTMCell": (3, 4), "GRUCell": (3, 4), "RNNCell": (3, 4),
    "MultiheadAttention": (4, 2), "TransformerEncoderLayer": (4, 2), "LPPool2d": (2, 2), "Unflatten": (1, (3, 1)),
    "Threshold": (1.0, 0.0), "Fold": ((2, 3), 2),
    **{f"Conv{t}{k}d": (1, 2, 2) for t in ("", "Transpose") for k in (1, 2, 3)},
    **{f"{t}Norm{k}d": (3,) for t in ("Batch", "Instance") for k in (1, 2, 3)},
}  # fmt: skip


def functions_of(owner, names):
    return {
        name: function
        for name in names
        if not name.startswith(("_", "set_")) and name not in CHANGING
        if inspect.isfunction(function := getattr(owner, name)) or callable(function)
        and not inspect.isclass(function)
    }  # fmt: skip


def layers():
    made = {}
    for name, kind in vars(nn).items():
        if inspect.isclass(kind) and issubclass(kind, nn.Module):
            for arguments in (ARGUMENTS.get(name, ()), (1,), (1, 0.0)):
                try:
                    made[name] = kind(*arguments)
                    break
                except TypeError:
                    continue
    return made


def constructors():
    return [
        kind
        for module in (nn, tg.optim, tg.optim.lr_scheduler, tg.utils.data)
        for name, kind in vars(module).items()
        if inspect.isclass(kind)
        and name[0] != "_"
        and kind is not nn.Module
        and kind.__module__.startswith(("tracegrad.nn", "tracegrad.optim", "tracegrad.utils"))
    ]


def own_names(module):
    own = [
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", "") == module.__name__
    ]
    return getattr(module, "__all__", own)


MODULES = (tg.autograd, tg.func, tg.linalg, tg.special, nn.init, nn.utils, nn.utils.rnn)
LAYERS = {
    name: layer for name, layer in layers().items() if type(layer).forward is not nn.Module.forward
}
METHODS = functions_of(tg.Tensor, dir(tg.Tensor)).keys() - {
    "size",
    "requires_grad_",
}  # as tuples are asked


def refused_or_done(function, arguments):
    try:
        function(*arguments)
    except TracegradError as error:
        assert "  where: " not in str(error) or "test_wrong_arguments.py" in str(error)
    except TypeError as error:
        assert traceback.extract_tb(error.__traceback__)[-1].filename == __file__  # by Python, here


@pytest.fixture(autouse=True)
def without_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize(
    "function",
    [
        *functions_of(tg, dir(tg)).values(),
        *functions_of(F, F.__all__).values(),
        *[f for module in MODULES for f in functions_of(module, own_names(module)).values()],
        *LAYERS.values(),
        *constructors(),
    ],
    ids=lambda function: getattr(function, "__name__", type(function).__name__),
)
def test_every_function_and_layer(function):
    for count in (1, 2, 3):
        for place in range(count):
            for others in itertools.product(GOOD, repeat=count - 1):
                for bad in BAD:
                    arguments = [make() for make in others]
                    arguments.insert(place, bad())
                    refused_or_done(function, arguments)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method(name):
    for between in ((), (lambda: 0,), GOOD[:1]):
        for bad in BAD:
            x = tg.ones(2, 3)
            refused_or_done(getattr(tg.Tensor, name), (x, *[make() for make in between], bad()))


def test_there_are_many():
    assert len(LAYERS) > 80 and len(METHODS) > 400


@pytest.mark.parametrize(
    "run", [lambda f: f, lambda f: tg.compile(f, backend="numpy")], ids=["eager", "numpy"]
)
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, a: nn.LSTM(3, 4)(a), r"LSTM\(\): input is of type ndarray, a tensor or PackedSequence is needed"),
        (lambda x, a: nn.BatchNorm1d(3)(a), r"BatchNorm1d\(\): input is of type ndarray, a tensor is needed"),
        (lambda x, a: nn.BatchNorm1d(3)(None), r"BatchNorm1d\(\): input is None, a tensor is needed"),
        (lambda x, a: F.cross_entropy(a, x), r"cross_entropy\(\): input is of type ndarray, a tensor is needed"),
        (lambda x, a: F.cross_entropy(x, [0, 1]), r"cross_entropy\(\): target is of type list, a tensor is needed"),
        (lambda x, a: F.relu([1.0]), r"relu\(\): an operand is list, a tensor or a number is needed"),
        (lambda x, a: F.dropout(x, "a"), r"dropout\(\): p is of type str, a number is needed"),
        (lambda x, a: F.mse_loss(x), r"mse_loss\(\): missing a required argument: 'target'"),
        (lambda x, a: tg.sum(x, a), r"an array of shape \[2, 3\] is given where a number is needed"),
        (lambda x, a: x.expand_as([1]), r"expand_as\(\): other is of type list, a tensor is needed"),
        (lambda x, a: x.chunk([1]), r"chunk\(\): chunks is of type list, an integer is needed"),
        (lambda x, a: tg.cat(x, x, x), r"cat\(\): .* positional arguments"),
    ],
)  # fmt: skip
def test_it_says_which(call, message, run):
    array = np.ones((2, 3), "f4")
    with pytest.raises(ArgumentError, match=message) as error:
        run(lambda x: call(x, array))(tg.ones(2, 3))
    assert f"where: {os.path.relpath(__file__)}" in str(error.value)


def test_files_of_no_kind():
    with pytest.raises(
        ArgumentError, match="of type dict, a path or an open binary file is needed"
    ):
        tg.save("model.pt", {"weight": tg.ones(2)})
    with pytest.raises(ArgumentError, match="of type list, a path"):
        tg.load([])


def test_errors_of_the_users_own_functions_are_theirs():
    def distance(a, b):
        return a.nothing - b  # a name that no tensor has

    class Mine(nn.Module):
        def forward(self, x):
            return [].dim()  # type: ignore[attr-defined]

    x = tg.ones(2, 3)
    with pytest.raises(AttributeError, match="nothing"):
        F.triplet_margin_with_distance_loss(x, x, x, distance_function=distance)
    for model in (Mine(), nn.Sequential(Mine())):
        with pytest.raises(AttributeError, match="'list' object has no attribute 'dim'") as error:
            model(None)
        assert not isinstance(error.value, TracegradError)


def test_errors_in_numpy_are_of_the_call():
    """It may stand in another folder than the standard library: in a virtual environment."""
    with pytest.raises(InvalidValueError, match=r"masked_select\(\): shape mismatch"):
        tg.masked_select(tg.ones(2, 3), tg.ones(2, dtype=tg.bool))


def test_functions_are_found_again_by_pickle():
    for function in (
        tg.stack,
        tg.asarray,
        tg.cat,
        F.cross_entropy,
        F.relu,
        tg.Tensor.view,
        tg.Tensor.swapdims,
    ):
        assert pickle.loads(pickle.dumps(function)) is function


def test_in_a_folder_that_is_removed(tmp_path, monkeypatch):
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    step = tg.compile(lambda x: x * 2, backend="numpy")
    assert step(tg.ones(2)).tolist() == [2.0, 2.0]
    assert os.path.isabs(step.graph.nodes[-1].loc.file)
