"""Python values as parts of keys: equal only where a graph could not tell them apart."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np


class Same:
    """An object as part of a key: equal to itself only, and kept alive: its id stays its own."""

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


_BY_VALUE = frozenset({int, bool, str, bytes, type(None)})


def value_key(leaf: Any) -> Any:
    """What a non-tensor argument is compared by, beside its type: its value if it is immutable, else
    its identity.

    Python's own == will not do: it takes 2, 2.0 and True, or 0.0 and -0.0, for the same.
    """
    kind = type(leaf)
    if kind in _BY_VALUE:
        return leaf
    if isinstance(leaf, (float, complex, np.generic)):
        return np.asarray(leaf).tobytes()
    if isinstance(leaf, np.ndarray) and leaf.dtype != object:
        return (leaf.shape, leaf.dtype, leaf.tobytes())
    if kind in (set, frozenset):
        return frozenset(map(typed_key, leaf))
    if kind is tuple:  # inside of one of the others
        return tuple(map(typed_key, leaf))
    if isinstance(leaf, bytearray):
        return bytes(leaf)
    if isinstance(leaf, (slice, range)):
        return tuple(map(typed_key, (leaf.start, leaf.stop, leaf.step)))
    if is_frozen(kind):
        return tuple([typed_key(getattr(leaf, f.name, None)) for f in dataclasses.fields(kind)])
    return Same(leaf)


def typed_key(value: Any) -> Any:
    return (type(value), value_key(value))


def is_frozen(kind: type) -> bool:
    """Whether instances are compared by all that they hold: frozen dataclasses."""
    parameters = getattr(kind, "__dataclass_params__", None)
    return (
        parameters is not None and parameters.frozen and parameters.eq
        and all(field.compare for field in dataclasses.fields(kind))
    )  # fmt: skip
