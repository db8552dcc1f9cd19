"""Ordinary PyTorch scripts give PyTorch's results here: eager, and with the step compiled."""

import numpy as np
import pytest
import scripts_images
import scripts_sequences
import scripts_training
import torch

import tracegrad as tg

SCRIPTS = [*scripts_images.SCRIPTS, *scripts_sequences.SCRIPTS, *scripts_training.SCRIPTS]
NAMED = pytest.mark.parametrize("script", SCRIPTS, ids=[s.__name__ for s in SCRIPTS])
REFERENCE = {}


def eager(step):
    return step


def expected(script):
    if script not in REFERENCE:
        torch.manual_seed(0)
        REFERENCE[script] = script(torch, eager)
    return REFERENCE[script]


def check(script, wrap):
    theirs = expected(script)
    tg.manual_seed(0)
    ours = script(tg, wrap)
    assert list(ours) == list(theirs)
    for key, value in theirs.items():
        np.testing.assert_allclose(ours[key], value, rtol=2e-3, atol=2e-5, err_msg=key)
        assert np.asarray(ours[key]).dtype == np.asarray(value).dtype, key


@NAMED
def test_eager(script):
    check(script, eager)


@NAMED
def test_compiled_for_numpy(script):
    check(script, lambda step: tg.compile(step, backend="numpy"))


@pytest.mark.parametrize("script", [scripts_images.vae, scripts_sequences.dqn], ids=["vae", "dqn"])
def test_compiled_for_xla(script):
    pytest.importorskip("jax")
    check(script, lambda step: tg.compile(step, backend="jax"))
