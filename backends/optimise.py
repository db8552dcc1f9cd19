"""The standard pipeline with what a backend adds to it: which composites it takes whole."""

from __future__ import annotations

from tracegrad.backends.base import backend_named
from tracegrad.backends.numpy import interpret
from tracegrad.ir.graph import Graph
from tracegrad.passes.base import Observer
from tracegrad.passes.pipeline import standard_pipeline


def optimise(graph: Graph, backend: str = "numpy", observers: tuple[Observer, ...] = ()) -> Graph:
    """The graph that `backend` ("numpy" or "jax") compiles: decomposed as far as it needs, simplified,
    folded.
    """
    claimed = backend_named(backend).claimed()
    return standard_pipeline(claimed, interpret, observers=observers).run(graph)
