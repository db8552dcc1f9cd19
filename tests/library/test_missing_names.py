"""Names that are not here: an explained AttributeError."""

import pickle

import pytest

import tracegrad as tg
from tracegrad import nn
from tracegrad.nn import functional as F

NAMESPACES = {
    "tg": tg, "nn": nn, "nn.functional": F, "nn.init": nn.init, "nn.utils": nn.utils, "optim": tg.optim,
    "optim.lr_scheduler": tg.optim.lr_scheduler, "linalg": tg.linalg, "special": tg.special, "func": tg.func,
    "autograd": tg.autograd, "amp": tg.amp, "cuda": tg.cuda, "utils": tg.utils, "utils.data": tg.utils.data,
    "utils.checkpoint": tg.utils.checkpoint, "a tensor": tg.ones(2), "a dtype": tg.float32,
}  # fmt: skip


@pytest.mark.parametrize("owner", NAMESPACES.values(), ids=NAMESPACES)
def test_names_that_are_not_here_are_attribute_errors_for_python(owner):
    assert not hasattr(owner, "no_such_name") and not hasattr(owner, "_no_such_name")
    assert getattr(owner, "no_such_name", 3) == 3
    with pytest.raises(AttributeError) as caught:
        owner._no_such_name  # noqa: B018
    assert not isinstance(caught.value, tg.TracegradError)
    with pytest.raises(tg.errors.MissingNameError) as caught:
        owner.no_such_name  # noqa: B018
    message = str(caught.value)
    assert (
        "no_such_name" in message and "where: " in message and "test_missing_names.py:" in message
    )
    assert "why: " in message and "fix: " in message and message.endswith("[TG014]")
    assert repr(caught.value) == f"MissingNameError({message!r})"


@pytest.mark.parametrize(
    "owner, wrong, meant",
    [
        (nn.utils, "clip_grad_norm", "clip_grad_norm_"),
        (nn.init, "xavier_unifrom_", "xavier_uniform_"),
        (tg.autograd, "gradd", "grad"),
        (nn, "Lineer", "Linear"),
        (tg.ones(2), "unsqeeze", "unsqueeze"),
        (nn.Parameter(tg.ones(2)), "requires_grads", "requires_grad"),
        (tg.float32, "is_floating", "is_float"),
    ],
)
def test_a_misspelt_name_is_guessed(owner, wrong, meant):
    with pytest.raises(tg.errors.MissingNameError, match=f"did you mean '{meant}'"):
        getattr(owner, wrong)


def test_a_file_is_not_what_was_meant():
    with pytest.raises(tg.errors.MissingNameError) as caught:
        nn.Transformer  # noqa: B018
    assert "'transformer'" not in str(caught.value)
    with pytest.raises(tg.errors.MissingNameError) as caught:
        tg.jit  # noqa: B018
    assert "did you mean" not in str(caught.value)


def test_the_error_goes_to_another_process_as_text():
    with pytest.raises(tg.errors.MissingNameError) as caught:
        tg.ones(2).unsqeeze  # noqa: B018
    there = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(there, AttributeError) and str(there) == str(caught.value)
