"""The standard pipeline with what a backend adds to it: which composites it takes whole."""

from __future__ import annotations

from tracegrad.backends.base import DEFAULT_OPTIONS, Options
from tracegrad.ir.graph import Graph
from tracegrad.passes.base import Observer
from tracegrad.passes.pipeline import standard_pipeline


def optimise(
    graph: Graph, backend: str = "numpy", options: Options = DEFAULT_OPTIONS, observers: tuple[Observer, ...] = ()
) -> Graph:  # fmt: skip
    """The graph that `backend` compiles: decomposed as far as it needs, simplified, folded."""
    from tracegrad.backends.numpy import interpret

    if backend == "jax":
        from tracegrad.backends.jax import claimed

        names = claimed()
    else:
        from tracegrad.backends.numpy import codegen

        names = getattr(codegen, "CLAIMED", frozenset())
    return standard_pipeline(names, interpret, observers=observers).run(graph)
