"""Programs of this folder run on both backends."""

from __future__ import annotations

import importlib.util

import pytest


@pytest.fixture(params=["numpy", "jax"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "jax" and importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    return str(request.param)
