"""The standard pipeline with what a backend adds to it: which composites it takes whole."""

from __future__ import annotations

from tracegrad.ir.graph import Graph
from tracegrad.passes.base import Observer
from tracegrad.passes.pipeline import standard_pipeline


def optimise(graph: Graph, backend: str = "numpy", observers: tuple[Observer, ...] = ()) -> Graph:
    """The graph that `backend` ("numpy" or "jax") compiles: decomposed as far as it needs, simplified,
    folded.
    """
    from tracegrad.backends.numpy import interpret

    if backend == "jax":
        from tracegrad.backends.jax import claimed

        names = claimed()
    else:
        from tracegrad.backends.numpy.codegen import CLAIMED as names
    return standard_pipeline(names, interpret, observers=observers).run(graph)
