"""What a compiled program found wrong, as one integer it returns.

XLA cannot raise inside a program. Each thing that can go wrong (passes/hazards.py) has a number; the
program returns the number of the first that did, 0 for none. The number of a program with checks or
bounded loops is read when the call ends; else at the next synchronisation, so that an index that may
be out of range costs a training loop no wait.

Once something went wrong, what comes after it is computed from garbage: a later code does not count,
and no loop goes on, since garbage might keep it going for ever.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from functools import reduce
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from tracegrad.backends.base import (
    CHECKS,
    BackendError,
    DivisionByZero,
    IndexOutOfRange,
    LinAlgError,
    TooManyTrips,
)
from tracegrad.ir import hazards as kinds_of
from tracegrad.ir.graph import Graph, Node
from tracegrad.ir.hazards import Hazard
from tracegrad.passes.hazards import hazards, kinds

Code = Any  # an i32 scalar; None where nothing can go wrong
AT_END = frozenset({kinds_of.CHECK, kinds_of.TRIPS})  # read when the call ends


class Flags:
    """The flags of one scope; code k means `errors[k - 1]`, a list that all scopes share.

    A sub-graph, which jax traces apart, is a scope of its own: it starts from the code found before
    it (`entering`) and its code then stands for both (`left`).
    """

    def __init__(self, errors: list[BackendError], watch: bool = True, code: Code = None):
        self._errors = errors
        self._watch = watch  # hazards, or only what is read when the call ends
        self._codes: list[Any] = [] if code is None else [code]
        self._seen: set[Hazard] = set()

    @property
    def code(self) -> Code:
        """What was found first."""
        if len(self._codes) > 1:
            self._codes = [reduce(_first, self._codes)]
        return self._codes[0] if self._codes else None

    def entering(self, *graphs: Graph) -> Code:
        """The code that a run of one of `graphs` starts from."""
        wanted = {kind for graph in graphs for kind in kinds(graph)}
        if self.code is None and (wanted if self._watch else wanted & AT_END):
            return np.int32(0)
        return self.code

    def inner(self, code: Code) -> Flags:
        return Flags(self._errors, self._watch, code)

    def left(self, code: Code) -> None:
        """A sub-graph that began with this scope's code ended with `code`."""
        self._codes = [] if code is None else [code]

    def watch(self, node: Node, arguments: Sequence[Any], result: Any) -> None:
        """Flag what `node` may raise for, once each."""
        for hazard in hazards(node):
            if hazard.kind == kinds_of.INSIDE or hazard in self._seen:
                continue  # a sub-graph has flagged its own
            if self._watch or hazard.kind in AT_END:
                self._seen.add(hazard)
                self._errors.append(_error(hazard, node))
                number = np.int32(len(self._errors))
                ok = _holds(hazard, node, arguments, result)
                self._codes.append(lax.select(ok, np.int32(0), number))


def _first(found: Any, later: Any) -> Any:
    return lax.select(lax.ne(found, np.int32(0)), found, later)


def clean(code: Code) -> Any:
    """Whether nothing was found."""
    return np.bool_(True) if code is None else lax.eq(code, np.int32(0))


def read_at_end(graph: Graph) -> bool:
    return not AT_END.isdisjoint(kinds(graph))


def _holds(hazard: Hazard, node: Node, arguments: Sequence[Any], result: Any) -> Any:
    """Whether all is well. For a loop, `result` is whether it still goes on at its bound."""
    if hazard.kind == kinds_of.TRIPS:
        return ~result
    if hazard.kind == kinds_of.DEFINITE:  # XLA answers nan where there is no factor
        return jnp.all(jnp.isfinite(jnp.diagonal(result, axis1=-2, axis2=-1)))
    value = arguments[node.inputs.index(hazard.subject)]
    if hazard.kind == kinds_of.INDEX:
        return jnp.all((value >= 0) & (value < hazard.size))
    if hazard.kind == kinds_of.ZERO:
        return jnp.all(value != 0)
    if hazard.kind == kinds_of.FINITE:
        return jnp.all(jnp.isfinite(value))
    if hazard.kind == kinds_of.FINITE_LOWER:
        return jnp.all(jnp.isfinite(jnp.tril(value)))
    return value  # of a check


def _error(hazard: Hazard, node: Node) -> BackendError:
    """What the NumPy kernels raise, as far as it is known before the values are."""
    name, loc = node.op.name, node.loc
    if hazard.kind in CHECKS:
        name = name if hazard.kind == kinds_of.CHECK else ""
        return CHECKS[hazard.kind](node.attrs["message"], name, loc)
    if hazard.kind == kinds_of.INDEX:
        return IndexOutOfRange(f"an index lies outside [0, {hazard.size})", name, loc)
    if hazard.kind == kinds_of.ZERO:
        return DivisionByZero("an integer was divided by zero", name, loc)
    if hazard.kind == kinds_of.DEFINITE:
        return LinAlgError("the matrix is not positive definite", name, loc)
    if hazard.kind == kinds_of.TRIPS:
        bound = node.attrs["max_trips"]
        return TooManyTrips(f"the loop's condition still holds after max_trips={bound}", name, loc)
    return LinAlgError(
        "the matrix holds an inf or nan, so the factorisation does not converge", name, loc
    )


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
    number = int(np.asarray(code))  # int(code) takes 14 us, of which this is 1
    if number:
        error = errors[number - 1]
        raise type(error)(error.message, error.op, error.loc)
