"""Functions under functools.lru_cache: a mask by its size, positions, rotary tables.

What fills such a cache outlives the recording that asked for it, so it is computed eagerly: the
cache keeps a real tensor, as it does without compiling, and the graph captures that.
"""

from __future__ import annotations

import functools
import gc
from typing import Any

from tracegrad.runtime.watch.facts import CallFact, ItemFact
from tracegrad.tracer.memory.bundle import value_in_xla
from tracegrad.tracer.memory.storage import Storage
from tracegrad.tracer.state import get_mode, mode_with, reset_mode, set_mode
from tracegrad.tracer.tensor import Tensor
from tracegrad.tracer.trace.recording import Trace
from tracegrad.tracer.trace.traced import Cell, TracedValue


class Filling:
    """A cached function runs eagerly within a recording, from here to `end()`."""

    def __init__(self, trace: Trace):
        # What the trace has written has its new value in the graph only: it is hidden meanwhile.
        self._hidden: list[tuple[Tensor, dict[str, Any]]] = []
        outer: Any = trace
        while outer is not None:
            for cell in outer.cells.values():
                if cell.written and cell.owner is not None:
                    self._hide(outer, cell)
            outer = outer.outer
        self._draws = [(generator, generator._count) for generator, _ in trace.random_draws]
        self._token = set_mode(mode_with(get_mode().grad, None))

    def _hide(self, trace: Trace, cell: Cell) -> None:
        owner = cell.owner
        for tensor in owner.members() if isinstance(owner, Storage) else [owner]:
            value_in_xla(tensor)  # out of a bundle, which others may open meanwhile
            fields = tensor.__dict__
            self._hidden.append((tensor, dict(fields)))
            fields.clear()
            fields["_traced"] = TracedValue(trace, cell, (), 0, cell.value, False)

    def end(self) -> bool:
        """Whether the recording may go on: no random number was drawn out of turn."""
        reset_mode(self._token)
        for tensor, fields in reversed(self._hidden):
            tensor.__dict__.clear()
            tensor.__dict__.update(fields)
        in_turn = all(generator._count == count for generator, count in self._draws)
        for generator, count in self._draws:
            generator._count = count
        return in_turn


def cache_facts(function: functools._lru_cache_wrapper[Any]) -> list[ItemFact | CallFact]:
    """What the cache held is there still: it was not cleared. Its tensors are captured like others."""
    info = function.cache_info()
    if not info.currsize:
        return []
    if info.currsize != info.maxsize:
        for entries in gc.get_referents(function):
            if type(entries) is dict and is_cache(entries, function):
                return [ItemFact(entries, key, entry) for key, entry in entries.items()]
    # Of a full one, entries leave it by themselves.
    return [
        CallFact(
            lambda: function.cache_info().misses >= info.misses,
            lambda: f"the cache of {function.__name__} was cleared",
            ("cache", id(function)),
        )
    ]


def is_cache(entries: dict, function: functools._lru_cache_wrapper[Any]) -> bool:
    """Whether this is the function's own table, no result or attribute of it."""
    if entries is function.__dict__ or len(entries) != function.cache_info().currsize:
        return False
    bounded = function.cache_info().maxsize is not None
    return not bounded or all(type(e).__name__ == "_lru_list_elem" for e in entries.values())
