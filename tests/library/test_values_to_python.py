"""What Python gets of a tensor: one number, a text."""

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


def test_a_parameter_says_so_once():
    weight = nn.Parameter(tg.ones(2))
    expected = "Parameter containing:\ntensor([1., 1.], requires_grad=True)"
    assert repr(weight) == str(weight) == f"{weight}" == expected
    assert repr([weight]) == f"[{expected}]"
    assert repr(weight.detach()) == repr(nn.Buffer(tg.ones(2))) == "tensor([1., 1.])"
