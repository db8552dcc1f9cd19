"""Large elementwise updates piece by piece, so that every temporary stays in the cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from tracegrad.tracer.memory.storage import protect_saved, writable
from tracegrad.tracer.state import get_mode
from tracegrad.tracer.tensor import Tensor, wrap

PIECE = 1 << 16  # elements: a few arrays of them fit a second-level cache


def pieces(read: Tensor, *written: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """Tensors of one shape as the pieces, in the same order, on which an update that reads `read`
    and writes `written` in place may run one after another: elementwise, under no_grad.

    The tensors themselves where there is one piece only, and while recording.
    """
    whole = (read, *written)
    if get_mode().trace is not None or read._data.size <= PIECE or not all(map(divisible, whole)):
        return (whole,)
    size = read._data.size
    return cut(whole) if all(t._data.size == size for t in written) else (whole,)


def cut(tensors: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, ...]]:
    """Stretches of PIECE elements of the first tensor, which is read, and of those written."""
    read, *written = tensors
    for tensor in written:
        protect_saved(tensor)
    arrays = [read._data.reshape(-1), *(writable(tensor).reshape(-1) for tensor in written)]
    for start in range(0, read._data.size, PIECE):
        yield tuple([wrap(array[start : start + PIECE]) for array in arrays])


def divisible(tensor: Tensor) -> bool:
    """Whether the elements lie in memory one after another, each once."""
    array = tensor._data
    return array.__class__ is np.ndarray and array.flags.c_contiguous
