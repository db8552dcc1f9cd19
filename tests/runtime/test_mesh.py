"""A step over a mesh of four virtual devices gives the losses of one device, with dropout."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

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


def test_four_devices_give_the_single_device_losses() -> None:
    pytest.importorskip("jax")
    environment = {
        **os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu",
    }  # fmt: skip
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "agree" in result.stdout
