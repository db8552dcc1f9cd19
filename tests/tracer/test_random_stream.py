"""The stream's keys are derived in batches and small draws ahead of time: the same numbers as one by
one.
"""

import threading

import jax
import numpy as np
import pytest

import tracegrad as tg
from tracegrad.backends.numpy.kernels.random import FEW, Ahead, few_bits, keys_from, random_bits
from tracegrad.tracer.creation.random import Generator


def expected(seed, number):
    key = np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32)
    return np.asarray(jax.random.fold_in(key, number))


@pytest.mark.parametrize("seed", [0, 5, 2**40 + 3])
def test_keys_are_fold_in_of_the_count(seed):
    stream, other = Generator().manual_seed(seed), Generator().manual_seed(9)
    for number in range(150):
        np.testing.assert_array_equal(stream.next_key().numpy(), expected(seed, number))
        if number % 3 == 0:
            np.testing.assert_array_equal(other.next_key().numpy(), expected(9, number // 3))


def test_a_state_set_or_a_count_advanced_is_followed():
    stream = Generator().manual_seed(4)
    stream.next_key()
    state = stream.get_state()
    first = [stream.next_key().numpy() for _ in range(3)]
    stream._count += 40  # what a compiled step does
    np.testing.assert_array_equal(stream.next_key().numpy(), expected(4, 44))
    stream._count += 100
    np.testing.assert_array_equal(stream.next_key().numpy(), expected(4, 145))
    stream.set_state(state)
    for before in first:
        np.testing.assert_array_equal(stream.next_key().numpy(), before)
    stream.manual_seed(6)
    np.testing.assert_array_equal(stream.next_key().numpy(), expected(6, 0))


def test_a_count_beyond_32_bits_starts_over():
    stream = Generator().manual_seed(4)
    stream._count = 2**32 - 2
    for number in (2**32 - 2, 2**32 - 1, 0, 1):
        np.testing.assert_array_equal(stream.next_key().numpy(), expected(4, number))


def test_threads_draw_keys_of_the_stream():
    stream, drawn = Generator().manual_seed(2), []
    known = {expected(2, number).tobytes() for number in range(400)}

    def draw():
        drawn.extend(stream.next_key().numpy().tobytes() for _ in range(100))

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(drawn) == 400 and known.issuperset(drawn)


# Sizes of draws, one after another; -1 leaves a key of the batch out, -2 takes the one before again.
PATTERNS = [
    [8] * 140, [1] * 12 + [32] * 12 + [33] * 12, [4, 5] * 12, [7] * 10 + [-1] + [7] * 3 + [-1, -1, 7, 7],
    [3] * 11 + [-2, -2, 3, -2, 3], [9] * 12 + [4] + [9] * 12,
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_bits_made_ahead_are_those_of_the_key(pattern):
    keys, ahead, place = keys_from(np.array([3, 4], np.uint32), 0, 64), Ahead(), 0
    ahead.announce(keys)
    size = 1
    for wanted in pattern:
        if wanted == -1:
            place += 1
            continue
        size, at = (size, max(place - 1, 0)) if wanted == -2 else (wanted, place)
        key = keys[at % 64].copy()
        if place and place % 64 == 0:
            ahead.announce(keys)
        np.testing.assert_array_equal(ahead.bits(key, size), few_bits(key, size, 0))
        place += wanted != -2


@pytest.mark.parametrize("shape", [(), (8,), (2, 3), (0,), (33,), (FEW + 1,)])
def test_random_bits_of_a_stream_are_those_of_jax(shape):
    stream = Generator().manual_seed(11)
    for _ in range(5):
        key = stream.next_key().numpy()
        with jax.threefry_partitionable(True):
            theirs = np.asarray(jax.random.bits(key, shape))
        np.testing.assert_array_equal(random_bits(key, shape), theirs)


def test_draws_are_the_same_one_by_one_and_together():
    tg.manual_seed(3)
    together = [tg.rand(6) for _ in range(20)]
    for number, x in enumerate(together):
        tg.manual_seed(3)
        tg.default_generator._count = number
        np.testing.assert_array_equal(tg.rand(6).numpy(), x.numpy())


def test_a_draw_may_be_written_without_touching_the_next():
    tg.manual_seed(3)
    expected = [tg.rand(6).numpy().copy() for _ in range(20)]
    tg.manual_seed(3)
    for numbers in expected:
        x = tg.rand(6)
        np.testing.assert_array_equal(x.numpy(), numbers)
        x.zero_()
