"""What may be given as varargs may be given by PyTorch's name too, eager and recorded."""

import pytest
import torch
from everywhere import MODES

import tracegrad as tg
from tracegrad.errors import ArgumentError

CALLS = """
x.flip(dims=[0]) | t.flip(x, dims=(0, 1)) | x.permute(dims=(1, 0)) | t.permute(x, dims=(1, 0))
x.repeat(repeats=(2, 1)) | x.tile(dims=(2,)) | x.view(size=(3, 2)) | x.view(size=[-1]) | x.view(dtype=t.int32)
x.reshape(shape=(3, 2)) | t.reshape(input=x, shape=(-1,)) | x[0].expand(size=(2, -1))
x.swapaxes(axis0=0, axis1=1) | t.swapdims(x, dim0=0, dim1=1) | t.dot(x[0], tensor=x[1])
x.new_zeros(size=(2, 1)) | x.new_full(size=(2,), fill_value=3) | x.new_tensor(data=[1, 2])
t.arange(end=3) | t.arange(start=1, end=3) | t.arange(0, 4, step=2)
""".replace("\n", "|").split("|")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("call", [call.strip() for call in CALLS if call.strip()])
def test_by_name(call, mode):
    def values(t, run):
        function = eval(f"lambda x: {call}", {"t": t})
        result = run(function)(t.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
        return result.shape, result.tolist(), result.is_floating_point()

    run = (lambda f: f) if mode == "eager" else (lambda f: tg.compile(f, backend=mode))
    assert values(tg, run) == values(torch, lambda f: f)


def test_sizes_of_random_integers():
    for numbers in (
        tg.randint(3, size=(50,)), tg.randint(3, (50,)), tg.randint(high=3, size=(50,)), tg.randint(0, 3, (50,)),
    ):  # fmt: skip
        assert numbers.shape == (50,) and set(numbers.tolist()) <= {0, 1, 2}


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x.repeat(2, repeats=(3,)), lambda x: x.sum(0, dim=1), lambda x: x.add(x, other=2),
        lambda x: x.view(4, size=(2, 2)), lambda x: x.view(4, dtype=tg.int32),
        lambda x: x.reshape(4, shape=(2, 2)), lambda x: x.expand(2, 2, size=(3, 2, 2)),
        lambda x: x.permute(0, 1, dims=(1, 0)),
    ],
)  # fmt: skip
def test_given_twice(call):
    with pytest.raises(ArgumentError, match="twice"):
        call(tg.ones(2, 2))
