"""What a compiled program found wrong, as integers it returns.

XLA cannot raise inside a program. Each thing that can go wrong has a number; the program returns
the number of the first that did, 0 for none. Two kinds: `check` nodes, read when the call ends; and
the hazards that the NumPy kernels raise for (an index out of range, an integer divided by zero, a
matrix that is not positive definite), which are read at the next synchronisation, so that they cost
a training loop no wait.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from tracegrad.backends.base import (
    BackendError,
    IndexOutOfRange,
    IntegerDivisionByZero,
    LinAlgError,
)
from tracegrad.backends.jax.lowering_index import bounds
from tracegrad.ir.graph import Node

Codes = tuple[Any, Any]  # (checks, hazards), i32 scalars


class Flags:
    """The flags of one scope; code k means `errors[k - 1]`, a list that all scopes share."""

    def __init__(self, errors: list[BackendError] | None = None, hazards: bool = True):
        self.errors: list[BackendError] = [] if errors is None else errors
        self.watch_hazards = hazards
        self._checks: list[Any] = []
        self._hazards: list[Any] = []
        self._seen: set[Any] = set()

    def inner(self) -> Flags:
        """Flags of a sub-graph, which jax traces apart."""
        return Flags(self.errors, self.watch_hazards)

    def _code(self, ok: Any, error: BackendError) -> Any:
        self.errors.append(error)
        return lax.select(ok, np.int32(0), np.int32(len(self.errors)))

    def require(self, ok: Any, error: BackendError) -> None:
        """Raise `error` at the end of the call where `ok` is false."""
        self._checks.append(self._code(ok, error))

    def hazard(self, key: Any, ok: Any, error: BackendError) -> None:
        """Raise `error` at the next synchronisation where `ok()` is false; once a `key`."""
        if key not in self._seen:
            self._seen.add(key)
            self._hazards.append(self._code(ok(), error))

    def absorb(self, codes: Codes) -> None:
        """Take over what a sub-graph found."""
        self._checks.append(codes[0])
        self._hazards.append(codes[1])

    @staticmethod
    def first(old: Codes, new: Codes) -> Codes:
        """The codes found first: `old` where set, else `new`."""
        zero = np.int32(0)
        return tuple(lax.select(lax.ne(a, zero), a, b) for a, b in zip(old, new))  # type: ignore[return-value]

    def codes(self) -> Codes:
        return _any(self._checks), _any(self._hazards)

    @property
    def has_checks(self) -> bool:
        return bool(self._checks)

    @property
    def has_hazards(self) -> bool:
        return bool(self._hazards)


def _any(codes: list[Any]) -> Any:
    return jnp.max(jnp.stack(codes)) if codes else lax.full((), 0, np.int32)


def hazards(flags: Flags, node: Node, arguments: tuple[Any, ...], result: Any) -> None:
    """Flag what the NumPy kernel of this op would raise for."""
    if not flags.watch_hazards:
        return
    name = node.op.name
    for position, (index, size) in enumerate(bounds(name, arguments, node.attrs)):
        operand = node.inputs[position + 1]
        if _upper_bound(operand) >= size:
            error = IndexOutOfRange(f"an index lies outside [0, {size})", name, node.loc)
            flags.hazard((operand, size), lambda i=index, n=size: _within(i, n), error)
    if name in ("floor_div", "rem") and node.type.dtype.is_int:
        divisor = node.inputs[1]
        if divisor.op.name == "constant" and np.all(divisor.attrs["value"].array != 0):
            return
        flags.hazard(
            (divisor, "zero"),
            lambda: jnp.all(arguments[1] != 0),
            IntegerDivisionByZero("an integer was divided by zero", name, node.loc),
        )
    if name == "svd":
        flags.hazard(
            (node, "finite"),
            lambda: jnp.all(jnp.isfinite(arguments[0])),
            LinAlgError("SVD did not converge: the matrix is not finite", name, node.loc),
        )
    if name == "cholesky":
        flags.hazard(
            (node, "positive"),
            lambda: jnp.all(jnp.isfinite(result)) | ~jnp.all(jnp.isfinite(arguments[0])),
            LinAlgError("the matrix is not positive definite", name, node.loc),
        )


def _within(index: Any, size: int) -> Any:
    return jnp.all((index >= 0) & (index < size))


_VIEWS = frozenset({"reshape", "transpose", "broadcast_to", "slice"})


def _upper_bound(index: Node) -> float:
    """The largest value `index` can hold by its own op; inf if unknown or maybe negative."""
    while index.op.name in _VIEWS:
        index = index.inputs[0]
    name = index.op.name
    if name == "iota":
        return float(index.type.shape[index.attrs["axis"]] - 1)
    if name in ("argmax", "argmin", "argsort"):
        return float(index.inputs[0].type.shape[index.attrs["axis"]] - 1)
    if name == "constant":
        array = index.attrs["value"].array
        if array.size == 0:
            return -1.0
        return float(array.max()) if array.min() >= 0 else float("inf")
    return float("inf")


class _Pending(threading.local):
    """Hazard codes of this thread's calls that nobody has read yet."""

    def __init__(self) -> None:
        self.codes: deque[tuple[Any, list[BackendError]]] = deque()


_pending = _Pending()
PENDING_KEPT = 32  # older codes are long computed: reading one costs no wait


def defer(code: Any, errors: list[BackendError]) -> None:
    """Remember the hazard code of a call; raises what an old call found."""
    _pending.codes.append((code, errors))
    if len(_pending.codes) > PENDING_KEPT:
        _read_oldest()


def raise_pending() -> None:
    """Raise the first hazard that this thread's calls found and nobody has seen."""
    while _pending.codes:
        _read_oldest()


def _read_oldest() -> None:
    raise_code(*_pending.codes.popleft())


def raise_code(code: Any, errors: list[BackendError]) -> None:
    number = int(code)
    if number:
        error = errors[number - 1]
        raise type(error)(error.message, error.op, error.loc)
