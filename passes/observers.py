"""Observers of a pipeline: history, timing, and the checks of `TRACEGRAD_CHECK`.

Level 0 checks nothing, 1 verifies the graph after every pass, 2 also runs it before and after each
pass that changed it and compares (below 1 GFLOP), 3 does so on several inputs and whatever it
costs. Passes know no backend, so the evaluator is given.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tracegrad.ir.errors import TracegradError, VerifyError
from tracegrad.ir.graph import Graph
from tracegrad.ir.ops.structure import graph_flops
from tracegrad.ir.types import dtype_of
from tracegrad.ir.verify import verify
from tracegrad.passes.base import Step
from tracegrad.passes.sampling import Array, generate_inputs

Evaluate = Callable[[Graph, Sequence[Array]], Sequence[Array]]
MakeInputs = Callable[[Graph, int], Sequence[Array]]

FLOP_LIMIT = 1e9  # of level 2
SAMPLES = 3  # of level 3
CANCELLED = 1e-2  # results below this are compared as if they were this large

# Reassociation moves a result by a few roundings of its largest intermediate, so the bound is
# relative to the largest element.
_TOLERANCE = {"f64": 1e-9, "c128": 1e-9, "f32": 2e-4, "c64": 2e-4, "f16": 2e-2, "bf16": 1e-1}


def check_level() -> int:
    """`TRACEGRAD_CHECK`, 0 where it is not set. Raises ValueError for anything but 0 to 3."""
    text = os.environ.get("TRACEGRAD_CHECK", "0")
    if text not in ("0", "1", "2", "3"):
        raise ValueError(f"TRACEGRAD_CHECK is {text!r}; it is one of 0, 1, 2, 3")
    return int(text)


@dataclass
class History:
    """The graph after every pass, with the pass's name; what dumps and viewers read."""

    graphs: list[tuple[str, Graph]] = field(default_factory=list)

    def __call__(self, step: Step) -> None:
        if not self.graphs:
            self.graphs.append(("trace", step.before))
        self.graphs.append((step.pass_.name, step.after))


@dataclass
class Timing:
    """Seconds and node counts of every pass, in order."""

    rows: list[tuple[str, float, int, int]] = field(default_factory=list)

    def __call__(self, step: Step) -> None:
        row = (step.pass_.name, step.seconds, len(step.before.nodes), len(step.after.nodes))
        self.rows.append(row)

    def __str__(self) -> str:
        lines = [f"{'pass':<20} {'ms':>8} {'nodes':>7} {'after':>7}"]
        lines += [f"{n:<20} {s * 1e3:8.2f} {b:7} {a:7}" for n, s, b, a in self.rows]
        return "\n".join(lines)


@dataclass
class Check:
    """Verifies each pass's graph and, with an evaluator, that its outputs kept their values."""

    level: int
    evaluate: Evaluate | None = None
    make_inputs: MakeInputs = generate_inputs
    require_loc: bool = False
    _graph: Graph | None = None  # whose values are in `_values`: one evaluation a pass, not two
    _values: list[list[Array]] = field(default_factory=list)
    _inputs: list[Sequence[Array]] = field(default_factory=list)

    def __call__(self, step: Step) -> None:
        if self.level < 1 or step.after is step.before:
            return
        verify(step.after, step.pass_.name, require_loc=self.require_loc)
        if step.pass_.preserves == "none":
            self._graph = None
            self._inputs = []
            return
        self._check_signature(step)
        if step.pass_.preserves == "values" and self.level >= 2:
            self._check_values(step)

    def _check_signature(self, step: Step) -> None:
        before, after = step.before, step.after
        if before.inputs != after.inputs or before.input_names != after.input_names:
            raise VerifyError(f"after {step.pass_.name}: the inputs changed")
        types = [(a.type, b.type) for a, b in zip(before.outputs, after.outputs)]
        if len(before.outputs) != len(after.outputs) or any(a != b for a, b in types):
            raise VerifyError(f"after {step.pass_.name}: outputs changed type: {types}")

    def _check_values(self, step: Step) -> None:
        if self.evaluate is None:
            return
        if step.before.fingerprint() == step.after.fingerprint():
            return
        if self.level == 2 and graph_flops(step.before) > FLOP_LIMIT:
            return
        if self._graph is not step.before:
            if not self._inputs:
                samples = SAMPLES if self.level >= 3 else 1
                self._inputs = [self.make_inputs(step.before, seed) for seed in range(samples)]
            try:
                self._values = [self._run(step.before, arrays) for arrays in self._inputs]
            except TracegradError as error:
                if error.unexpected:
                    raise
                return  # the program refuses these inputs, so they show nothing
        after = [self._run(step.after, arrays) for arrays in self._inputs]
        for seed, (olds, news) in enumerate(zip(self._values, after)):
            for name, old, new in zip(step.after.output_names, olds, news):
                problem = difference(old, new)
                if problem:
                    raise VerifyError(
                        f"after {step.pass_.name}: output {name!r} of graph {step.after.name!r} "
                        f"changed its value (inputs of seed {seed}): {problem}\n"
                        f"  at {step.after.outputs[step.after.output_names.index(name)].loc}\n"
                        f"  run again with TRACEGRAD_CHECK={self.level} to see it again"
                    )
        self._graph, self._values = step.after, after

    def _run(self, graph: Graph, arrays: Sequence[Array]) -> list[Array]:
        assert self.evaluate is not None
        return [np.array(value) for value in self.evaluate(graph, arrays)]


def difference(old: Array, new: Array, tolerance: float | None = None) -> str:
    """How `new` differs from `old` beyond rounding; "" when it does not. nan equals nan."""
    if old.dtype != new.dtype or old.shape != new.shape:
        return f"{old.dtype}{list(old.shape)} became {new.dtype}{list(new.shape)}"
    if old.size == 0:
        return ""
    bound = _TOLERANCE.get(dtype_of(old.dtype).name)
    if bound is None:
        wrong = int((old != new).sum())
        return f"{wrong} of {old.size} elements differ" if wrong else ""
    wide = np.complex128 if dtype_of(old.dtype).is_complex else np.float64
    a, b = old.astype(wide), new.astype(wide)
    with np.errstate(all="ignore"):
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        finite = np.isfinite(a) & np.isfinite(b)
        # Cancellation leaves rounding noise of the operands, which are of order one, where zero is
        # exact.
        scale = float(np.abs(a[np.isfinite(a)]).max(initial=CANCELLED))
        close = finite & (np.abs(a - b) <= (tolerance or bound) * scale)
    bad = ~(same | close)
    if not bad.any():
        return ""
    first = np.unravel_index(int(np.argmax(bad)), bad.shape)
    where = list(map(int, first))
    return (
        f"{int(bad.sum())} of {old.size} elements differ, at {where} {a[first]} became {b[first]}"
    )
