"""The meaning of every op: `KERNELS[name](*arrays, **attrs)` gives an array, or a tuple of them.

Plain NumPy, no tricks: fast paths are compared with these. Results are always `np.ndarray` (0-d
included) of the dtype the op's type rule says; they may be views of the inputs, so callers treat
them as read-only.
"""

from tracegrad.backends.numpy.kernels import (
    composite,
    contract,
    elementwise,
    index,
    linalg,
    random,
    reduce,
    select,
    shape,
    special,
    structure,
    window,
)
from tracegrad.backends.numpy.kernels.registry import KERNELS

__all__ = [
    "KERNELS",
    "composite",
    "contract",
    "elementwise",
    "index",
    "linalg",
    "random",
    "reduce",
    "select",
    "shape",
    "special",
    "structure",
    "window",
]
