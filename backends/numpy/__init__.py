"""The NumPy backend: `KERNELS` (meaning), `interpret` (node by node), `compile` (fast path)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracegrad.backends.base import DEFAULT_OPTIONS, Executable, Options
from tracegrad.backends.numpy.interpret import interpret, run_node
from tracegrad.backends.numpy.kernels import KERNELS

if TYPE_CHECKING:
    from tracegrad.ir.graph import Graph


def compile(graph: Graph, options: Options = DEFAULT_OPTIONS) -> Executable:
    """Generated straight-line NumPy for `graph`. See `codegen.compile`."""
    from tracegrad.backends.numpy import codegen  # loaded when first needed: eager code never is

    return codegen.compile(graph, options)


__all__ = ["KERNELS", "Executable", "Options", "compile", "interpret", "run_node"]
