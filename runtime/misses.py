"""How often the recordings of a function were spoiled, and by what: what changes at every call is no
constant of a graph. A number is an input then; anything else means eager calls.
"""

from __future__ import annotations

from typing import Any

from tracegrad.runtime.calls.signature import CHOICES, VALUES
from tracegrad.runtime.watch.facts import Fact

MAX_IN_A_ROW = 3  # recordings that the same fact spoils before the function stays eager
MAX_VALUES = 8  # the same for other values of arguments alone,
MAX_CHOICES = 64  # for other integers and names alone,
MAX_BY_MEMORY = 16  # for other memory behind them,
MAX_BY_ANYTHING = 32  # and for all facts together
MAX_WATCHED = 256  # attributes of which it is known that they have changed
ANYTHING = "some fact, another one each time"
MEMORY = "an argument shares memory with captured state, or has another .grad, than before"
# How many recordings in a row it may cause, and how to have none.
_LIMITS = {
    CHOICES: (
        MAX_CHOICES,
        "pass numbers that change at every call as tensors (tg.tensor(5)), and leave out names that it does not need",
    ),
    VALUES: (
        MAX_VALUES,
        "pass numbers and arrays as tensors (tg.tensor(0.5)), which are read at every call, and objects that stay",
    ),
    MEMORY: (
        MAX_BY_MEMORY,
        "call it with tensors that it cannot reach by itself (in a list from outside, say)",
    ),
    ANYTHING: (
        MAX_BY_ANYTHING,
        "make classes, functions and objects that stay outside the compiled function",
    ),
}
_OF_A_FACT = MAX_IN_A_ROW, "pass it as a tensor, or keep it out of the function"


class Misses:
    """Those of one compiled function."""

    def __init__(self) -> None:
        # culprit -> (number of the last recording's call, how many in a row by the call's key)
        self._in_a_row: dict[Any, tuple[int, dict[Any, int]]] = {}
        self._changed: set[tuple] = set()

    def one_more(self, culprit: Any, key: Any, calls: int) -> str:
        """Count a recording that a fact, or the values or memory of arguments, caused at call number
        `calls`; how to have none, once they are too many in a row.

        Facts by signature: a cache filled for one shape spoils the recordings of all others.
        """
        self._in_a_row = {c: known for c, known in self._in_a_row.items() if known[0] >= calls - 1}
        _, counts = self._in_a_row.get(culprit, (0, {}))
        key = None if culprit in (CHOICES, VALUES) else key
        count = counts[key] = counts.get(key, 0) + 1
        self._in_a_row[culprit] = calls, counts
        limit, fix = _LIMITS.get(culprit, _OF_A_FACT)
        return fix if count > limit else ""

    def changes_again(self, missed: Any) -> bool:
        """Whether a number under an attribute has a new value for the second time: a counter, or what
        is annealed.
        """
        if not isinstance(missed, Fact) or not missed.is_number():
            return False
        if missed.key in self._changed:
            return True
        if len(self._changed) < MAX_WATCHED:
            self._changed.add(missed.key)
        return False
