"""Over a mesh of four virtual devices: the losses of one device, with dropout, and its gradients."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import tracegrad as tg
from tracegrad.errors import ArgumentError, BackendError, ShapeError

PROGRAM = """
import numpy as np
import tracegrad as tg
from tracegrad import nn
from tracegrad.nn import functional as F

def losses(**options):
    tg.manual_seed(3)
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 4))
    optimizer = tg.optim.Adam(model.parameters(), lr=1e-2)

    def train_step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    step = tg.compile(train_step, backend="jax", fullgraph=True, **options)
    random = np.random.default_rng(0)
    found = []
    for _ in range(5):
        x = tg.tensor(random.standard_normal((8, 12)).astype("f4"))
        found.append(float(step(x, tg.tensor(random.integers(0, 4, 8)))))
    return found

import jax
assert len(jax.devices()) == 4
single = losses()
sharded = losses(mesh=tg.Mesh.of(data=4), input_specs=(("data", None), ("data",)))
np.testing.assert_allclose(sharded, single, rtol=1e-5)
print("agree")
"""


GRADIENTS_OUTSIDE = """
import numpy as np
import tracegrad as tg

def gradients(**options):
    weight = (tg.arange(12.0).reshape(4, 3) * 0.1).requires_grad_()
    total = tg.zeros(())

    def scores(x):
        with tg.no_grad():
            total.add_(x.sum())
        return (x @ weight).tanh() if total > 0 else (x @ weight).sin()

    scores = tg.compile(scores, backend="jax", fullgraph=True, **options)
    found = []
    for sign in (1.0, 1.0, -9.0):
        x = (tg.arange(32.0).reshape(8, 4) * sign * 0.01).requires_grad_()
        weight.grad = None
        scores(x).pow(2).sum().backward()
        found += [weight.grad.numpy(), x.grad.numpy(), total.numpy().copy()]
    return found

import jax
assert len(jax.devices()) == 4
single = gradients()
sharded = gradients(mesh=tg.Mesh.of(data=4), input_specs=(("data", None),))
for ours, expected in zip(sharded, single):
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)
print("agree")
"""


@pytest.mark.parametrize("program", [PROGRAM, GRADIENTS_OUTSIDE], ids=["losses", "gradients"])
def test_four_devices_give_what_a_single_device_gives(program: str) -> None:
    pytest.importorskip("jax")
    environment = {
        **os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu",
    }  # fmt: skip
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "agree" in result.stdout


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"mesh": tg.Mesh.of(data=4), "input_specs": (("data", None),)}, ShapeError, "dimension 0 cannot be cut"),
        ({"mesh": tg.Mesh.of(data=4), "input_specs": (("model",),)}, ArgumentError, "no mesh axis 'model'"),
        ({"mesh": tg.Mesh.of(data=2), "input_specs": (("data", None, None),)}, ArgumentError, "too many entries"),
        ({"input_specs": (("data",),)}, ArgumentError, "no mesh axis 'data'"),
        ({"mesh": 4}, ArgumentError, "mesh=4: it has axes"),
        ({"mesh": tg.Mesh.of(data=0)}, ArgumentError, "one or more devices"),
        ({"mesh": tg.Mesh.of(data=2.5)}, ArgumentError, "one or more devices"),
        ({"mesh": tg.Mesh.of(data=4096)}, BackendError, "needs 4096 devices"),
    ],
)  # fmt: skip
def test_what_cannot_be_placed_is_refused_in_the_users_words(options, error, message) -> None:
    """XLA's own words came through: IndivisibleError, "Resource axis: model of P('model',)"."""
    pytest.importorskip("jax")
    weight = tg.ones(3)

    def step(x):
        weight.add_(1)
        return x @ weight

    with pytest.raises(error, match=message) as caught:
        tg.compile(step, backend="jax", **options)(tg.ones(6, 3))
    assert "fix:" in str(caught.value)
    if error is not BackendError:
        assert "test_mesh.py" in str(caught.value)
    assert weight.tolist() == [1.0, 1.0, 1.0]
