"""The NumPy backend: `KERNELS` (meaning), `interpret` (node by node), `compile` (fast path)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tracegrad.backends.base import DEFAULT_OPTIONS, Executable, Options
from tracegrad.backends.numpy.interpret import interpret, run_node
from tracegrad.backends.numpy.kernels import KERNELS

if TYPE_CHECKING:
    from tracegrad.ir.graph import Graph

SOURCE_FILE = "source.py"


def compile(graph: Graph, options: Options = DEFAULT_OPTIONS) -> Executable:
    """Generated straight-line NumPy for `graph`. See `codegen.compile`."""
    from tracegrad.backends.numpy import codegen  # loaded when first needed: eager code never is

    return codegen.compile(graph, options)


def claimed() -> frozenset[str]:
    """Names of the composite ops that generated code runs whole."""
    from tracegrad.backends.numpy.codegen_fast import CLAIMED

    return CLAIMED


def own_array(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A copy."""
    return np.array(array)


__all__ = [
    "KERNELS", "SOURCE_FILE", "Executable", "Options", "claimed", "compile", "interpret", "own_array", "run_node",
]  # fmt: skip
