"""Ordinary PyTorch scripts give PyTorch's results here: eager, and with the step compiled."""

import numpy as np
import pytest
import scripts_generative
import scripts_gradients
import scripts_habits
import scripts_images
import scripts_language
import scripts_metric
import scripts_policies
import scripts_recurrent
import scripts_sequences
import scripts_structures
import scripts_training
import scripts_vision
import scripts_vision_more
import torch

import tracegrad as tg

STEPS = [*scripts_images.SCRIPTS, *scripts_sequences.SCRIPTS, *scripts_training.SCRIPTS]
# In these, models and steps are wrapped: both can be compiled.
MODELS = [
    *scripts_vision.SCRIPTS,
    *scripts_vision_more.SCRIPTS,
    *scripts_language.SCRIPTS,
    *scripts_recurrent.SCRIPTS,
    *scripts_generative.SCRIPTS,
    *scripts_metric.SCRIPTS,
    *scripts_gradients.SCRIPTS,
    *scripts_policies.SCRIPTS,
    *scripts_habits.SCRIPTS,
    *scripts_structures.SCRIPTS,
]
SCRIPTS = STEPS + MODELS
NAMED = pytest.mark.parametrize("script", SCRIPTS, ids=[s.__name__ for s in SCRIPTS])
XLA = [
    scripts_images.vae, scripts_sequences.dqn, scripts_habits.minibatches_by_slicing,
    scripts_gradients.custom_functions, scripts_gradients.adversarial,
]  # fmt: skip
# How often a step is recorded: once, but for those with several shapes, flags or states.
RECORDINGS = {
    "truncated_bptt": 2,
    "seq2seq": 3,
    "fine_tuning": 2,
    "minibatches_by_slicing": 2,
    "epochs_and_checkpoints": 5,
}
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
    made = []

    def wrap(thing):
        if isinstance(thing, tg.nn.Module):
            return thing
        made.append(tg.compile(thing, backend="numpy", fullgraph=script in MODELS))
        return made[-1]

    check(script, wrap)
    for compiled in made if script in MODELS else []:
        assert compiled.stats()["recordings"] <= RECORDINGS.get(script.__name__, 1), compiled.why()


@pytest.mark.parametrize("script", MODELS, ids=[s.__name__ for s in MODELS])
def test_models_compiled_for_numpy(script):
    def wrap(thing):
        is_model = isinstance(thing, tg.nn.Module)
        return tg.compile(thing, backend="numpy", fullgraph=True) if is_model else thing

    check(script, wrap)


@pytest.mark.parametrize("script", XLA, ids=[s.__name__ for s in XLA])
def test_compiled_for_xla(script):
    pytest.importorskip("jax")

    def wrap(thing):
        return thing if isinstance(thing, tg.nn.Module) else tg.compile(thing, backend="jax")

    check(script, wrap)
