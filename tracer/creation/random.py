"""Random state: a seed key and an operation counter; every random op draws its own Threefry key.

The key of the n-th random op is fold_in(seed key, n), so a program draws the same numbers eager,
compiled, on NumPy or XLA, whatever is reordered, split or recomputed (Salmon et al., "Parallel
random numbers: as easy as 1, 2, 3", SC 2011). A recorded step advances the counter by the number of
ops it recorded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tracegrad.backends.numpy.kernels.random import ahead, keys_from
from tracegrad.tracer.errors import ArgumentError
from tracegrad.tracer.state import get_mode
from tracegrad.tracer.tensor import Tensor, wrap

_MASK = 0xFFFFFFFF
_BATCH = 64  # keys derived at once: one costs as much as all


def outside_recordings(what: str) -> None:
    """Refuse, while recording, what concerns the position of a stream."""
    trace = get_mode().trace
    if trace is not None:
        trace.refuse(
            f"{what} inside a compiled function",
            "do it before calling the function",
            "a stream is drawn from when the graph runs, and Python knows where it is before and after only",
        )


class Generator:
    """A random stream: `manual_seed(n)` restarts it, with the same numbers in every mode."""

    # A number, and the keys of the operations from that number on. One object: threads may draw.
    _batch: tuple[int, list[np.ndarray]] = (0, [])

    def __init__(self, device: str = "cpu"):
        outside_recordings("a random generator is made")
        self.device = device
        self.manual_seed(0)

    def manual_seed(self, seed: int) -> Generator:
        """Restart the stream at `seed` (any int; taken modulo 2^64)."""
        outside_recordings("a random stream is seeded")
        if not hasattr(seed, "__int__"):
            raise ArgumentError(f"a seed is {seed!r}, not an integer", fix="give an integer")
        seed = int(seed) & (2**64 - 1)
        self._seed = seed
        self._restart((seed >> 32, seed & _MASK), 0)
        return self

    def _restart(self, key: tuple[int, int], count: int) -> None:
        self._key, self._count = key, count
        self._batch = (0, [])

    def initial_seed(self) -> int:
        """The seed that the stream was last restarted at."""
        outside_recordings("the seed of a random stream is asked for")
        return self._seed

    def seed(self) -> int:
        """Restart at a fresh seed from the operating system, and return it."""
        fresh = int.from_bytes(os.urandom(8), "little") >> 1
        self.manual_seed(fresh)
        return fresh

    def get_state(self) -> Tensor:
        """The stream's position as a tensor of three int64: seed words and operation count."""
        outside_recordings("the state of a random stream is asked for")
        return wrap(np.array([*self._key, self._count], np.int64))

    def set_state(self, state: Tensor) -> Generator:
        """Go to a position that `get_state` returned."""
        outside_recordings("the state of a random stream is set")
        if not isinstance(state, Tensor) or tuple(state.shape) != (3,):
            raise ArgumentError(
                f"this is not a random state: {state!r}", fix="give what get_rng_state() returned"
            )
        high, low, count = (int(v) for v in state.tolist())
        self._seed = (high << 32) | low
        self._restart((high, low), count)
        return self

    def next_key(self) -> Tensor:
        """The key (u32[2]) of the next random operation."""
        trace = get_mode().trace
        if trace is not None:
            return trace.next_key(self)
        number, (first, keys) = self._count, self._batch
        self._count += 1
        if not first <= number < first + len(keys):
            made = keys_from(np.array(self._key, np.uint32), number & _MASK, _BATCH)
            ahead.announce(made)
            first, keys = self._batch = number, list(made)
        return wrap(keys[number - first])

    def snapshot(self) -> np.ndarray:
        """Key words and counter as one u32[3]: what a compiled step takes as its random state."""
        return np.array((*self._key, self._count & _MASK), np.uint32)


default_generator = Generator()


def manual_seed(seed: int) -> Generator:
    """Seed the default stream. Returns it."""
    return default_generator.manual_seed(seed)


def seed() -> int:
    """Restart the global stream at a fresh seed from the operating system, and return it."""
    return default_generator.seed()


def initial_seed() -> int:
    """The seed that the global stream was last restarted at."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """Position of the default stream."""
    return default_generator.get_state()


def set_rng_state(state: Tensor) -> None:
    """Go to a position of the default stream."""
    default_generator.set_state(state)


@contextmanager
def fork_rng(devices: Any = None, enabled: bool = True, **ignored: Any) -> Iterator[None]:
    """Inside, the default stream may go anywhere; afterwards it is where it was."""
    state = get_rng_state() if enabled else None
    try:
        yield
    finally:
        if state is not None:
            set_rng_state(state)


def next_key(generator: Generator | None = None) -> Any:
    if generator is None:
        return default_generator.next_key()
    if not isinstance(generator, Generator):
        raise ArgumentError(
            f"generator is {type(generator).__name__}, not a Generator", fix="use tg.Generator()"
        )
    return generator.next_key()
