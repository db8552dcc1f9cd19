"""From tracegrad's random stream to NumPy's: shuffling follows `tracegrad.manual_seed`."""

from __future__ import annotations

import numpy as np

import tracegrad as tg
from tracegrad.tracer.creation.random import next_key


def generator_from(generator: tg.Generator | None) -> np.random.Generator:
    """A NumPy generator seeded by the next key of `generator` (the default stream if None)."""
    return np.random.default_rng(next_key(generator).tolist())
