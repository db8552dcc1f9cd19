"""NumPy's functions given tensors, against PyTorch."""

import numpy as np
import pytest
import torch

import tracegrad as tg
from tracegrad.tracer.errors import GradientError

pytestmark = pytest.mark.filterwarnings("ignore:__array")  # PyTorch's own

RETURN_TENSORS = {
    "exp": lambda q: np.exp(q),
    "no dimensions": lambda q: np.exp(q.sum()),
    "of two": lambda q: np.add(q, np.ones(3)),
    "on the right": lambda q: np.multiply(np.ones(3, np.float32), q),
    "truth": lambda q: np.greater(q, 1),
    "two results": lambda q: np.modf(q)[1],
    "reduced": lambda q: np.maximum.reduce(q),
    "squeezed": lambda q: np.squeeze(q[None]),
}
RETURN_ARRAYS = {
    "out": lambda q: np.negative(q, out=np.zeros(3, np.float32)),
    "stack": lambda q: np.stack([q, q]),
    "where": lambda q: np.where(np.array([True, False, True]), q, 0),
}


@pytest.mark.parametrize("function", RETURN_TENSORS.values(), ids=RETURN_TENSORS)
def test_tensors_are_returned(function):
    ours, theirs = (function(m.tensor([0.5, 1.5, 2.5])) for m in (tg, torch))
    assert type(ours) is tg.Tensor and type(theirs) is torch.Tensor
    assert str(ours.dtype).split(".")[-1] == str(theirs.dtype).split(".")[-1]
    assert ours.tolist() == pytest.approx(theirs.tolist())
    compiled = tg.compile(function)
    assert compiled(tg.tensor([0.5, 1.5, 2.5])).tolist() == ours.tolist()


@pytest.mark.parametrize("function", RETURN_ARRAYS.values(), ids=RETURN_ARRAYS)
def test_arrays_are_returned(function):
    ours, theirs = (function(m.tensor([0.5, 1.5, 2.5])) for m in (tg, torch))
    assert type(ours) is type(theirs) is np.ndarray
    assert ours.tolist() == theirs.tolist()


FUNCTIONS = {
    "exp": np.exp,
    "of what is computed": lambda p: np.exp(p * 2),
    "array": np.array,
    "asarray": np.asarray,
    "stack": lambda p: np.stack([p, p]),
    "list": lambda p: np.array([p, p]),
    "assigned": lambda p: np.zeros(3).__setitem__(slice(None), p),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_no_gradient_is_lost_in_silence(function):
    with pytest.raises(RuntimeError):
        function(torch.ones(3, requires_grad=True))
    weight = tg.ones(3, requires_grad=True)
    with pytest.raises(GradientError, match=f"where: .*{__name__.rsplit('.', 1)[-1]}.py"):
        function(weight)
    function(weight.detach())
    with tg.no_grad():
        function(weight)
