"""Counter-based random bits: Threefry-2x32 (Salmon et al., SC 2011), as jax.random computes it.

Element i is the xor of the two words of the block whose counter is i (the "partitionable" form), so
the bits are the same on every backend, sharded or not.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from tracegrad.backends.jax.lowering_elementwise import Lowering


def _typed(key: Any) -> Any:
    # Named here, because the user may have configured another default generator.
    return jax.random.wrap_key_data(key, impl="threefry2x32")


def fold_in(key: Any, data: Any) -> Any:
    return jax.random.key_data(jax.random.fold_in(_typed(key), data))


def random_bits(key: Any, *, shape: tuple[int, ...]) -> Any:
    with jax.threefry_partitionable(True):
        return jax.random.bits(_typed(key), shape, np.uint32)


LOWERINGS: dict[str, Lowering] = {"fold_in": fold_in, "random_bits": random_bits}
