"""Values at the edges of dtypes, and what a dtype may be given as: PyTorch's answers, also compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import tracegrad as tg
from tests.runtime.programs import BACKENDS

INF, NAN = float("inf"), float("nan")


def gradient_of(loss: str) -> Callable[[Any], Any]:
    def program(lib: Any) -> Any:
        x = lib.tensor([INF, -INF, 5.0, 0.3, NAN], requires_grad=True)
        getattr(lib.nn.functional, loss)(x, lib.zeros(5), reduction="sum").backward()
        return x.grad

    return program


PROGRAMS: dict[str, Callable[[Any], Any]] = {
    "half roots": lambda lib: lib.tensor([-INF, -0.0, 4.0]).half() ** 0.5,
    "powers by a tensor": lambda lib: lib.tensor([-INF, -0.0, 4.0]) ** lib.tensor(0.5),
    "powers by a full tensor": lambda lib: lib.tensor([-INF, -0.0, 4.0]) ** lib.full((3,), 0.5),
    "ldexp, large": lambda lib: lib.ldexp(lib.tensor([1e-30, 0.0]), lib.tensor([130, 130])),
    "ldexp, small": lambda lib: lib.ldexp(lib.tensor([1e38, -3.0]), lib.tensor([-150, 3])),
    "ldexp, double": lambda lib: lib.ldexp(lib.tensor([2.0]).double(), lib.tensor([130])),
    "lcm": lambda lib: lib.lcm(lib.tensor([100, 6]), lib.tensor([-128, -128]).to(lib.int8)),
    "gcd": lambda lib: lib.gcd(lib.tensor([64]).to(lib.int8), lib.tensor(-128).to(lib.int8)),
    "searchsorted": lambda lib: lib.searchsorted(
        lib.tensor([1.0, 2.0, 3.0]), lib.tensor([NAN, 2.5, 3.0, -INF])
    ),
    "searchsorted, right": lambda lib: lib.searchsorted(
        lib.tensor([1.0, 2.0, 3.0]), lib.tensor([NAN, 2.5, 3.0, INF]), right=True
    ),
    "bucketize": lambda lib: lib.bucketize(lib.tensor([NAN, 1.5]), lib.tensor([1.0, 2.0])),
    "addcmul": lambda lib: lib.addcmul(
        lib.zeros(1), lib.full((1,), 1e20), lib.full((1,), 1e20), value=1e-20
    ),
    "addcmul by nothing": lambda lib: lib.addcmul(
        lib.ones(1), lib.full((1,), 1e30), lib.full((1,), 1e30), value=0
    ),
    "addcdiv": lambda lib: lib.addcdiv(
        lib.zeros(1), lib.full((1,), 1e20), lib.full((1,), 1e-20), value=1e-20
    ),
    "smooth_l1_loss": gradient_of("smooth_l1_loss"),
    "huber_loss": gradient_of("huber_loss"),
    "dtype=bool": lambda lib: lib.zeros(2, dtype=bool),
    "dtype=float": lambda lib: lib.tensor([1, 0], dtype=float),
    "dtype=int": lambda lib: lib.ones(2).sum(dtype=int),
    "to(int)": lambda lib: lib.tensor([1.5, -1.5]).to(int),
    "arange of float": lambda lib: lib.arange(3, dtype=float),
    "a layer of float": lambda lib: lib.zeros(1, dtype=lib.nn.Linear(2, 1, dtype=float).weight.dtype),
}  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
@pytest.mark.parametrize("mode", ["eager", *BACKENDS])
def test_it_is_pytorchs(program: Callable[[Any], Any], mode: str) -> None:
    expected = program(torch).detach()
    run = program if mode == "eager" else tg.compile(program, backend=mode)
    found = run(tg).detach()
    assert str(found.dtype).removeprefix("tracegrad") == str(expected.dtype).removeprefix("torch")
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-6)
    if found.dtype.is_floating_point:
        np.testing.assert_array_equal(np.signbit(found.numpy()), np.signbit(expected.numpy()))


def test_a_layer_goes_to_pythons_float() -> None:
    assert tg.nn.Linear(2, 1).to(float).weight.dtype is tg.float64


@pytest.mark.parametrize("count", [11, 1])
def test_unique_bfloat16_with_nan(count: int) -> None:
    values = [3.0, NAN, 1.0, 2.0, 3.0, 1.0, -1.0, NAN, 2.0, 3.0, 1.0][:count]
    results = [
        lib.tensor(values).bfloat16().unique(return_inverse=True, return_counts=True)
        for lib in (torch, tg)
    ]
    for expected, found in zip(*results):
        np.testing.assert_array_equal(found.float().numpy(), expected.float().numpy())


@pytest.mark.parametrize(
    "data",
    [
        [np.float32(3), 1], [np.float32(1), 2.0], [1, np.float32(3)], [np.int32(1), 2], [np.float16(1), 1],
        [np.int8(1), 1.5], [np.float64(1), 2.0], [[np.float32(1)], [True]], [np.int32(1), np.float32(2)],
    ],
    ids=str,
)  # fmt: skip
def test_lists_of_numpys_numbers_and_pythons(data: Any) -> None:
    expected, found = torch.tensor(data), tg.tensor(data)
    assert str(found.dtype).split(".")[1] == str(expected.dtype).split(".")[1]
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda x: x.sum({0, 1}), r"sum\(\): \{0, 1\} is set"),
        (lambda x: x.mean({}), r"mean\(\): \{\} is dict"),
        (lambda x: x.long() * 2**70, "a number is too large"),
        (lambda x: x.to(str), "not a dtype"),
    ],
)
def test_refused_with_the_users_line(call: Callable[[Any], Any], text: str) -> None:
    with pytest.raises(tg.TracegradError, match=text) as caught:
        call(tg.ones(2, 2))
    assert "test_edges_in_every_mode.py" in str(caught.value)


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda x: x.size(5), IndexError, r"size\(5\) of a tensor with 2 dimensions"),
        (lambda x: x.size("a"), TypeError, "an integer is needed"),
        (lambda x: tg.finfo("a"), TypeError, "not a dtype"),
        (lambda x: tg.finfo(tg.int64), TypeError, "needs a floating dtype"),
        (lambda x: tg.iinfo(None), TypeError, "needs an integer dtype"),
        (lambda x: tg.func.grad(lambda a: a**2)(2.0), TypeError, "an argument is float"),
        (lambda x: setattr(x, "data", np.ones(2)), TypeError, "data is set to ndarray"),
        (lambda x: tg.tensor(np.array(["a"])), TypeError, "which no tensor has"),
        (lambda x: tg.tensor(np.array([1, 2], dtype=object)), TypeError, "which no tensor has"),
        (lambda x: tg.from_numpy(np.ones(2, "uint16")), TypeError, r"convert it: array\.astype"),
        (lambda x: tg.from_numpy(np.ones(2, ">f4")), TypeError, "swap its bytes"),
    ],
)
def test_refused_as_pytorch_refuses(call: Callable[[Any], Any], kind: type, text: str) -> None:
    with pytest.raises(kind, match=text) as caught:
        call(tg.ones(2, 2))
    assert isinstance(caught.value, tg.TracegradError)
    assert "test_edges_in_every_mode.py" in str(caught.value)
