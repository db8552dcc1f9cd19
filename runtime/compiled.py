"""A compiled function: recorded at its first call, replayed as executables from then on.

A call looks up its signature (types of tensors, values of everything else, gradient mode), checks
the Python facts that recording saw, walks the path tree, and commits: state is written, gradients
set, results wrapped, all or nothing. Whatever does not fit records again, and `why()` says what
changed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import update_wrapper
from typing import Any

from tracegrad.runtime.calls.containers import IdentityMatters
from tracegrad.runtime.calls.signature import Call, Signature
from tracegrad.runtime.execution.autograd_call import call_programs
from tracegrad.runtime.execution.run import OnlyTheFunction, Runner, SharedOutside
from tracegrad.runtime.execution.usual import Usual, usual_call
from tracegrad.runtime.forest import MAX_SIGNATURES, Forest
from tracegrad.runtime.function_like import FunctionLike
from tracegrad.runtime.misses import ANYTHING, MEMORY, Misses
from tracegrad.runtime.paths.lowering import Compiler
from tracegrad.runtime.paths.segments import Step
from tracegrad.runtime.paths.tree import Final, Specialisation
from tracegrad.runtime.recordings.recorded import Recorded
from tracegrad.runtime.recordings.results import finish
from tracegrad.runtime.reports.inspection import Event, Given, Inspection
from tracegrad.runtime.settings import Settings
from tracegrad.runtime.watch.facts import Fact, HostFact
from tracegrad.runtime.watch.observer import Observer
from tracegrad.tracer.errors import GraphBreakError, UnsupportedError
from tracegrad.tracer.locate import is_installed, raised_at, warn
from tracegrad.tracer.state import Mode, get_mode, mode_with, reset_mode, set_mode
from tracegrad.tracer.trace.buffers import MemoryMatters
from tracegrad.tracer.trace.numbers import TracedNumber
from tracegrad.tracer.trace.recording import LeftToPython, NumberAt, Trace

MAX_VARYING = 256  # numbers of Python's that are inputs because they differ from turn to turn
MAX_LEFT = 8  # calls in a row that fail inside a `try` of what they record before all are eager
MAX_EVENTS = 200  # recordings that `why()` still explains
_LOOK_AGAIN = object()


class NumbersVary(Exception):
    """Numbers of Python's are to be inputs: the call is recorded again."""


class CompiledFunction(FunctionLike, Inspection):
    """What `tracegrad.compile` returns for a function. See `compile` for the options."""

    def __init__(self, function: Callable[..., Any], settings: Settings, compiler: Compiler):
        update_wrapper(self, function, updated=())
        self.function = function
        self.settings = settings
        self._compiler = compiler
        self._lock = threading.RLock()
        self._signatures: list[Signature] = []
        self._events: list[Event] = []
        self._misses = Misses()
        self._by_memory: set[Any] = set()  # keys of calls where the memory behind a view matters
        self._by_identity: set[type] = set()  # classes of containers that themselves matter
        self._varying: frozenset[NumberAt] = frozenset()  # for new trees; see `Trace`
        self._eager_reason = ""
        self._calls = 0
        self._recordings = 0
        self._python_calls = 0  # that the function itself has answered, for an error it may catch
        self._left_to_python = (0, 0)  # how many calls in a row that ended so, the last of them
        self._record_seconds = 0.0
        self._runner = Runner(settings.backend)
        self._forest = Forest(settings.max_paths, compiler, self._runner)
        self._last: Final | None = None
        self._given: Given | None = None
        self._usual: Usual | None = None  # calls like the last one, the short way
        self._usual_of: Specialisation | None = None  # the recording that they find

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        mode = get_mode()
        if mode.trace is not None or self._eager_reason:
            return self.function(*args, **kwargs)  # inside another recording: inlined
        usual = self._usual
        if usual is not None and not kwargs and (result := usual(args, mode.grad)) is not None:
            self._calls += 1
            return result
        call = Call(args, kwargs, mode.grad)
        if call.opened is not None and not self._by_identity.isdisjoint(call.opened.kinds()):
            call = Call(args, kwargs, mode.grad, by_identity=True)
        if call.behind and call.key in self._by_memory:
            call = Call(args, kwargs, mode.grad, True, call.by_identity)
        self._calls += 1
        try:
            if self.settings.recheck and self._calls % self.settings.recheck == 0:
                return self._recheck(call)
            while (result := self._answer(call)) is _LOOK_AGAIN:
                if self._eager_reason:
                    return self.function(*args, **kwargs)
            return result
        except OnlyTheFunction as error:
            if isinstance(error, SharedOutside):
                self._stay_eager(
                    "it writes a tensor made by from_numpy, and another such tensor lies in the same memory",
                    "call from_numpy once and make the other one a view of that tensor, or copy it",
                )
            else:
                self._python_calls += 1
        return self.function(*args, **kwargs)

    def _answer(self, call: Call) -> Any:
        """The result by a recording that fits, or by a new one.

        _LOOK_AGAIN where another thread has recorded since this one looked.
        """
        events = self._recordings, self._eager_reason
        reason, missed = "", None  # of the newest recording that does not fit: the nearest one
        facts: list[Any] = []
        for specialisation in self._forest.of(call.key):
            failed = specialisation.check()
            if failed is not None:
                facts, missed = specialisation.facts, specialisation.facts[failed]
                continue
            if not specialisation.aliasing.fits(call):
                reason, missed = MEMORY, None
                continue
            done, result = self._runner.walk(specialisation, call)
            if done:
                self._finished(done)
                if not self.settings.recheck and self._usual_of is not specialisation:
                    self._usual = usual_call(specialisation, call)
                    self._usual_of = specialisation if self._usual else None
                return result
            if isinstance(result, str):
                return self._record(call, result, specialisation, events=events)
            missed = result
        if missed is None:
            return self._record(call, reason, culprit=reason or None, events=events)
        reason = missed.describe()
        if len(self._varying) < MAX_VARYING and self._misses.changes_again(missed):
            changing = [fact for fact in facts if isinstance(fact, Fact) and fact.is_number()]
            self._varying |= {fact.key for fact in changing if not fact.holds()}
            reason += "; it is read at every call from now on"
        return self._record(call, reason, culprit=missed.key, events=events)

    def _recheck(self, call: Call) -> Any:
        """Record instead of a cached call: the graph is the same if nothing changed unseen."""
        with self._lock:
            found = self._forest.of(call.key)
            old = next((s for s in found if s.check() is None and s.aliasing.fits(call)), None)
            if old is not None:
                found.remove(old)
            others = {*map(id, found)}
            varying = None if old is None else old.varying
            result = self._record(call, "recheck: a recorded call was asked for", varying=varying)
            found = self._forest.of(call.key)
            # The new one may be under another key, or not be: then there is nothing to compare.
            if old is None or not found or id(found[-1]) in others or self._eager_reason:
                return result
            if found[-1].agrees_with(old):
                found[-1] = old  # with all its paths
            else:
                warn(
                    f"tracegrad: {self.name} had run a stale graph: something it reads changed unseen since it was "
                    "recorded. The new graph is used from now on; why() names the values that are watched"
                )
            return result

    # -- recording -------------------------------------------------------------------------------

    def _record(
        self,
        call: Call,
        reason: str,
        specialisation: Specialisation | None = None,
        culprit: Any = None,
        events: tuple[int, str] | None = None,
        varying: frozenset[NumberAt] | None = None,
    ) -> Any:
        """The result by a new recording; by the function itself where there can be none.

        varying  which numbers are inputs; those known to vary if it is not said
        """
        recorded = None
        with self._lock:
            if events is not None and events != (self._recordings, self._eager_reason):
                return _LOOK_AGAIN
            self._usual = self._usual_of = None
            if not reason:
                reason, arguments = call.signature.compared_with(self._signatures)
                culprit = arguments or culprit
            if culprit is None or not any(
                self._too_many(call, reason, each) for each in (culprit, ANYTHING)
            ):
                by_name = isinstance(culprit, tuple) and culprit[0] == "grad"
                recorded = self._recorded(call, reason, specialisation, by_name, varying)
        if recorded is None:
            return self.function(*call.args, **call.kwargs)
        call, tree, path, trace = recorded
        done, result = self._runner.walk(tree, call, path)
        if isinstance(result, HostFact):
            self._stay_eager(result.describe(), "call it outside the compiled function", trace)
            return self.function(*call.args, **call.kwargs)
        if not done:
            raise AssertionError(f"a path just recorded was not found: {result}")
        self._finished(done)
        return result

    def _recorded(
        self,
        call: Call,
        reason: str,
        specialisation: Specialisation | None,
        gradients_by_name: bool,
        varying: frozenset[NumberAt] | None = None,
    ) -> tuple[Call, Specialisation, list[Step], Trace] | None:
        """Record the call and add its path to a tree; None for what stays eager.

        Returns the call as it had to be looked at, too.
        """
        started = time.perf_counter()
        if varying is None:
            varying = self._varying if specialisation is None else specialisation.varying
        trace = Trace(self.settings.max_unroll, varying)
        observer = Observer(trace, self.function, call, gradients_by_name)
        try:
            recorded = self._observed_run(call, trace, observer)
            self._look_for_varying_numbers(trace, specialisation)
            if self.settings.recheck:
                recorded.note_programs()
            programs = call_programs(recorded, call.grad, self._compiler)
            trace.undo_host_actions()
            observer.put_back()
            facts = observer.facts
            tree, path = self._forest.add(call, recorded, programs, facts, specialisation)
            if excess := self._forest.excess(tree, path):
                self._stay_eager(*excess, trace)
        except (MemoryMatters, IdentityMatters) as matters:
            trace.discard()
            observer.put_back()
            call = self._looked_at_closer(call, isinstance(matters, MemoryMatters))
            gradients_by_name = False
        except NumbersVary:
            trace.discard()
            observer.put_back()
            self._forest.forget(specialisation)
        except BaseException as error:
            trace.discard()
            if trace.left_to_python:
                observer.put_back()
                self._python_calls += 1
                count, last = self._left_to_python
                count = count + 1 if last == self._calls - 1 else 1
                self._left_to_python = count, self._calls
                if count >= MAX_LEFT:
                    self._stay_eager(
                        f"an operation that a `try` is around has failed in {MAX_LEFT} calls in a row",
                        "ask before it fails (an index compared with the size, say), or keep it outside",
                        trace,
                    )
                return None
            # What code in between has made another error of counts, too.
            refused = error if isinstance(error, UnsupportedError) else observer.complaint
            if refused is None or not isinstance(error, Exception):
                observer.put_back()
                raise
            observer.put_back()
            self._break(refused)
            return None
        else:
            recorded.forget_arguments()
            self._recordings += 1
            self._given = Given(call.args, call.kwargs)
            self._record_seconds += time.perf_counter() - started
            self._signatures.append(call.signature)
            del self._signatures[:-MAX_SIGNATURES]
            self._events.append(Event(reason or "the first call", observer.noticed))
            del self._events[:-MAX_EVENTS]
            return call, tree, path, trace
        return self._recorded(call, reason, None, gradients_by_name)

    def _look_for_varying_numbers(self, trace: Trace, tree: Specialisation | None) -> None:
        """Raise NumbersVary if a number of Python's has differed from turn to turn, or from path to path,
        and is a constant of the graph: each of its values would be a program of its own.
        """
        if not trace.guards:
            return
        known = {} if tree is None else tree.numbers
        varied = {at for at, value in trace.numbers.items() if known.get(at, value) != value}
        varying = self._varying.union(trace.varying, varied, trace.varied)
        if not (varied | trace.varied) <= trace.varying and len(varying) <= MAX_VARYING:
            self._varying = varying
            raise NumbersVary

    def _observed_run(self, call: Call, trace: Trace, observer: Observer) -> Recorded:
        """Run the function while it is recorded and observed."""
        call.declare(trace)
        with observer:
            token = set_mode(Mode(call.grad, trace))
            try:
                returned = self._run_recorded(call)
                if trace.left_to_python:
                    raise LeftToPython
                left = get_mode().grad
                trace.grad_left = None if left is call.grad else left
            finally:
                reset_mode(token)
        token = set_mode(Mode(False, trace))
        try:
            keep_grads, effects = self.settings.keep_grads, observer.effects
            return finish(trace, returned, keep_grads, call.tensors, effects, observer.origins)
        finally:
            reset_mode(token)

    def _run_recorded(self, call: Call) -> Any:
        try:
            return self.function(*call.args, **call.kwargs)
        except TypeError as error:
            if TracedNumber.__name__ not in str(error) and not given_a_number(error):
                raise
            raise UnsupportedError(
                "a number read from a tensor goes to code that takes Python's own numbers only",
                where=raised_at(error), why=str(error).splitlines()[0], fix="give it float(x) or int(x)",
            ) from None  # fmt: skip

    def _looked_at_closer(self, call: Call, by_memory: bool) -> Call:
        """The call, and all like it from now on, with the memory behind its views or with its
        containers as what they are.
        """
        if by_memory:
            if len(self._by_memory) >= MAX_SIGNATURES:
                self._by_memory.clear()  # each is found again by one recording
            self._by_memory.add(call.key)
            return Call(call.args, call.kwargs, call.grad, True, call.by_identity)
        opened: Any = call.opened
        opened.put_back()
        self._by_identity |= opened.kinds()
        return Call(call.args, call.kwargs, call.grad, by_identity=True)

    def _finished(self, final: Final) -> None:
        """A call has run through `final`."""
        self._last = final
        if final.plan.grad_left is not None:
            set_mode(mode_with(final.plan.grad_left, get_mode().trace))

    def _too_many(self, call: Call, reason: str, culprit: Any) -> bool:
        """Count a recording; what changes at every call means eager."""
        fix = self._misses.one_more(culprit, call.key, self._calls)
        if fix:
            self._stay_eager(f"this changes between calls: {reason}", fix)
        return bool(fix)

    def _stay_eager(self, why: str, fix: str, trace: Trace | None = None) -> None:
        if self.settings.fullgraph:
            where = trace.guards[-1].loc if trace is not None and trace.guards else None
            raise GraphBreakError(f"{self.name} cannot be one graph", where=where, why=why, fix=fix)
        self._eager_reason = why
        warn(f"tracegrad: {self.name} runs eagerly from now on: {why}. Fix: {fix}")

    def _break(self, error: UnsupportedError) -> None:
        """Something that cannot be recorded: an error under fullgraph, else eager with one warning."""
        if self.settings.fullgraph:
            raise GraphBreakError(f"{self.name} cannot be one graph:\n{error}") from None
        self._eager_reason = str(error).splitlines()[0]
        warn(f"tracegrad: {self.name} runs eagerly from now on:\n{error}")


def given_a_number(error: BaseException) -> bool:
    """Whether installed code, json say, raised it while it had a number of the trace in its hands."""
    step: Any = error.__traceback__
    while step.tb_next is not None:
        step = step.tb_next
    held = step.tb_frame.f_locals.values()
    return is_installed(step.tb_frame.f_code) and any(isinstance(v, TracedNumber) for v in held)
