"""The order of the passes: one screen.

    trace -> autodiff -> [ this file ] -> backend

Autodiff has run already: composites were differentiated whole, so they may be taken apart now.
"""

from __future__ import annotations

from tracegrad.passes.base import Observer, Pass, Pipeline
from tracegrad.passes.cleanup import DropMarkers
from tracegrad.passes.cse import CSE
from tracegrad.passes.decompose import Decompose
from tracegrad.passes.fold import Fold
from tracegrad.passes.observers import Evaluate
from tracegrad.passes.simplify import Simplify


def standard_passes(
    claimed: frozenset[str] = frozenset(),
    evaluate: Evaluate | None = None,
) -> tuple[Pass, ...]:
    """The passes every backend runs.

    claimed   names of composites that the backend takes natively
    evaluate  runs a graph; with it, small constant results are folded
    """
    return (
        DropMarkers(),  # detach, rebind: autodiff has read them
        Simplify(),  # composites are still whole: fewer nodes to rewrite
        Decompose(claimed),
        Simplify(),
        CSE(),
        Fold(evaluate),
        Simplify(),  # folded constants enable more rules
        CSE(),
    )


def standard_pipeline(
    claimed: frozenset[str] = frozenset(),
    evaluate: Evaluate | None = None,
    *,
    observers: tuple[Observer, ...] = (),
) -> Pipeline:
    """`standard_passes` as a pipeline with observers."""
    return Pipeline(standard_passes(claimed, evaluate), observers)
