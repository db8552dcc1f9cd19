"""The stale-state firewall: one recording observed, so that no replay misses a change of Python's state.

While a function is recorded, what it reads becomes facts (sightings.py): attributes, by hooks
(attributes.py); globals, closures and defaults, by a profile hook (code.py); tensors
and their gradients, as the trace captured them (tensor_facts.py). What it changes becomes effects,
or is refused (effects.py). The facts are checked before every replay.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tracegrad.ir.loc import Loc
from tracegrad.runtime.calls.containers import IdentityMatters
from tracegrad.runtime.calls.signature import Call
from tracegrad.runtime.recordings.origins import Origins
from tracegrad.runtime.watch.attributes import AttributeWatch
from tracegrad.runtime.watch.caches import cache_facts
from tracegrad.runtime.watch.code import CodeWatch
from tracegrad.runtime.watch.effects import Effects
from tracegrad.runtime.watch.facts import Fact, Place
from tracegrad.runtime.watch.tensor_facts import add_tensor_facts, read_gradients_by_name
from tracegrad.tracer.errors import LeakedTensorError, UnsupportedError
from tracegrad.tracer.locate import here, start_of
from tracegrad.tracer.trace.recording import Trace


class Observer:
    """Context manager around one recording: then `facts`, `effects` and `noticed` are complete.

    origins  of the objects that were there before the recording
    """

    origins: Origins

    def __init__(
        self,
        trace: Trace,
        function: Callable[..., Any],
        call: Call,
        gradients_by_name: bool = False,
    ):
        self.trace, self.function, self.call = trace, function, call
        self.gradients_by_name = gradients_by_name
        self._attributes = AttributeWatch(trace)
        self._sightings = self._attributes.sightings
        self._code = CodeWatch(self._sightings)
        inside = [] if call.opened is None else [values for _, _, values in call.opened.objects]
        self._begins = place_of(function)
        self._effects = Effects(self._attributes, (call.args, call.kwargs, inside), self._begins)
        if call.opened is not None:
            self._sightings.opened = call.opened.ids()

    @property
    def facts(self) -> list[Any]:
        return self._sightings.facts

    @property
    def effects(self) -> list[tuple[Any, Any]]:
        """Names that the function bound anew, with their new values."""
        return self._effects.found

    @property
    def complaint(self) -> UnsupportedError | None:
        """Why the function cannot be recorded, if that was said while it ran."""
        return self._sightings.complaint

    @property
    def noticed(self) -> list[str]:
        """Effects that no replay repeats, in words."""
        return self._code.noticed

    def __enter__(self) -> Observer:
        self._attributes.install()
        try:
            self._sightings.visit(self.function)
            if isinstance(self.function, functools.partial):
                for name in ("func", "args", "keywords"):
                    place = Place("attribute", self.function, name)
                    self._sightings.add(place, place.read(), here())
            self._effects.note_arguments()
        except BaseException:
            self._attributes.uninstall()
            raise
        self._code.start()
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        self._code.stop()
        try:
            if kind is None:
                # Before that: it also finds what functions made by the recording hold.
                self.origins = Origins(self._sightings, self.call, self._begins)
                self._code.resolve()
                add_tensor_facts(self._sightings, self.trace, self.call.tensors)
                for function in self._sightings.cached.values():
                    self._sightings.facts += cache_facts(function)
            elif isinstance(error, LeakedTensorError):
                self._code.explain(error)
            elif isinstance(error, Exception):
                # What cannot be repeated becomes the complaint: such a function runs eagerly.
                with suppress(UnsupportedError):
                    self._effects.changed()
        finally:
            self._attributes.uninstall()
        if kind is None:
            self._keep_opened_closed()
            if self._sightings.complaint is not None:
                raise self._sightings.complaint
            self._effects.find()
            for place, _ in self._effects.found:
                if place.kind == "item":  # that very dict is written, not one like it
                    self.origins.expect(place.holder)
            if self.gradients_by_name:
                read_gradients_by_name(self._sightings, self.trace)

    def _keep_opened_closed(self) -> None:
        """Drop the facts on containers that are known by their content. Raises IdentityMatters."""
        sightings = self._sightings
        if self.call.opened is None:
            return
        if not self.call.opened.unchanged() or not sightings.met.isdisjoint(sightings.opened):
            raise IdentityMatters
        sightings.facts = [
            fact for fact in sightings.facts
            if not (isinstance(fact, Fact) and id(fact.place.holder) in sightings.opened)
        ]  # fmt: skip

    def put_back(self) -> None:
        """Undo what the function did to Python's state."""
        self._effects.put_back()


def place_of(function: Callable[..., Any]) -> Loc:
    """The line where a function begins, or where its call is."""
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    if code is None:
        return here()
    return start_of(code)
