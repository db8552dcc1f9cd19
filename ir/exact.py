"""What tells one attribute value from another, for every cache and comparison that needs it."""

from __future__ import annotations

from collections.abc import Hashable
from struct import Struct
from typing import Any

from tracegrad.ir.types import DType

_bits = Struct("<d").pack
_SELF = frozenset((int, str, type(None), DType))  # equal values of these are the same value
_TRUE, _FALSE = (bool, True), (bool, False)


def exact(value: Any) -> Hashable:
    """A key that is equal for the same values only: 1, 1.0 and True are three, 0.0 is not -0.0,
    and a nan is itself (by its bits). A sub-graph is what it computes.
    """
    kind = value.__class__
    if kind in _SELF:
        return value  # type: ignore[no-any-return]
    if kind is float:
        return _bits(value)
    if kind is bool:
        return _TRUE if value else _FALSE
    if kind is tuple:
        for part in value:
            if part.__class__ is not int:
                return tuple(map(exact, value))
        return value  # type: ignore[no-any-return]
    if kind is complex:
        return complex, _bits(value.real), _bits(value.imag)
    if hasattr(value, "fingerprint"):
        return kind, value.fingerprint()
    return kind, value
