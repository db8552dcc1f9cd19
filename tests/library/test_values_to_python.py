"""What Python gets of a tensor: one number, a text."""

import datetime
import json

import numpy as np
import pytest

import tracegrad as tg
from tracegrad import nn

MANY = {
    "item": lambda x: x.item(), "bool": lambda x: 1 if x else 0, "float": float, "int": int,
    "index": lambda x: range(9)[x.long()],
}  # fmt: skip


@pytest.mark.parametrize("mode", ["eager", "numpy", "jax"])
@pytest.mark.parametrize("ask", MANY.values(), ids=MANY)
def test_one_number_of_many_elements(ask, mode):
    function = ask if mode == "eager" else tg.compile(lambda x: ask(x), backend=mode)
    with pytest.raises(tg.errors.ShapeError, match="(?s)3.*reduce it") as caught:
        function(tg.ones(3))
    assert "test_values_to_python.py:" in str(caught.value)


NUMBERS = {  # of a float a, an int i and a complex number c
    "NumPy": lambda a, i, c: [float(np.log(a)), bool(np.isnan(a)), float(np.mean([a, i]))],
    "arrays": lambda a, i, c: [(np.ones(2) * a).tolist(), (a * np.ones(2)).tolist()],
    "bits": lambda a, i, c: [i & 1, 8 | i, i ^ 2, 1 << i, i >> 1, ~i, i & i, i.bit_length()],
    "divmod": lambda a, i, c: [divmod(i, 2), divmod(7, i), 2**i, i**2],
    "parts": lambda a, i, c: [a.real + 0, a.imag, a.as_integer_ratio(), i.conjugate() + 0],
    "complex": lambda a, i, c: [c, c.imag, bool(c), abs(c)],
}


@pytest.mark.parametrize("backend", ["numpy", "jax"])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_of_the_graph_does_what_pythons_do(name, backend):
    def ask(x, z):
        return NUMBERS[name](x[0].item(), x[1].long().item(), z.item())

    compiled = tg.compile(ask, backend=backend)
    for a in (1.25, 0.5):
        given = tg.tensor([a, 5.0]), tg.tensor(a * 1j)
        assert compiled(*given) == ask(*given)
    assert not compiled.stats()["eager"]


def test_numpys_scalars_leave_arithmetic_to_the_graph():
    scaled = tg.compile(lambda x: x + np.float64(2) * x[0].item(), backend="numpy")
    assert [scaled(tg.ones(1) * k).item() for k in range(12)] == [3.0 * k for k in range(12)]
    assert scaled.stats()["recordings"] == 1


@pytest.mark.parametrize(
    "use",
    [lambda a: json.dumps({"loss": a}), lambda a: str(datetime.timedelta(seconds=a))],
    ids=["json", "timedelta"],
)
def test_code_that_takes_pythons_own_numbers_runs_eagerly(use):
    compiled = tg.compile(lambda x: use(x.item()), backend="numpy")
    with pytest.warns(UserWarning, match="(?s)Python's own numbers.*test_values_to_python.py:"):
        assert compiled(tg.tensor(1.5)) == use(1.5)
    assert compiled(tg.tensor(2.5)) == use(2.5)


def test_a_parameter_says_so_once():
    weight = nn.Parameter(tg.ones(2))
    expected = "Parameter containing:\ntensor([1., 1.], requires_grad=True)"
    assert repr(weight) == str(weight) == f"{weight}" == expected
    assert repr([weight]) == f"[{expected}]"
    assert repr(weight.detach()) == repr(nn.Buffer(tg.ones(2))) == "tensor([1., 1.])"
