"""Graph -> one XLA executable, through jax.lax. The only place that imports jax, when used.

Start reading at `lowering.py` (what each op means to XLA), then `executable.py` (how it is called).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracegrad.backends.base import DEFAULT_OPTIONS, Options
from tracegrad.backends.jax.arrays import (
    from_numpy,
    is_jax_array,
    may_donate,
    raise_pending,
    to_numpy,
)
from tracegrad.backends.jax.errors import JaxNotInstalledError, require_jax

if TYPE_CHECKING:
    from tracegrad.backends.jax.executable import JaxExecutable
    from tracegrad.ir.graph import Graph

SOURCE_FILE = "source.mlir"  # StableHLO
own_array = from_numpy


def compile(graph: Graph, options: Options = DEFAULT_OPTIONS) -> JaxExecutable:
    """One XLA executable for `graph`. Raises JaxNotInstalledError or UnsupportedOp."""
    require_jax()
    from tracegrad.backends.jax.executable import JaxExecutable

    return JaxExecutable(graph, options)


def claimed() -> frozenset[str]:
    """Names of the composite ops that this backend lowers whole."""
    require_jax()
    from tracegrad.backends.jax.lowering import CLAIMED

    return CLAIMED


def devices() -> list[Any]:
    """The devices XLA sees."""
    require_jax()
    import jax

    return list(jax.devices())


def device(name: str) -> Any:
    """The device "cpu", "gpu", "gpu:1", ... Raises BackendError for one that is not there."""
    require_jax()
    from tracegrad.backends.jax.sharding import device_named

    return device_named(name)


__all__ = [
    "SOURCE_FILE", "JaxNotInstalledError", "claimed", "compile", "device", "devices", "from_numpy", "is_jax_array",
    "may_donate", "own_array", "raise_pending", "require_jax", "to_numpy",
]  # fmt: skip
