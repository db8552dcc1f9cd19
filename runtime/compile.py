"""`compile`: options in, CompiledFunction out."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from tracegrad.backends.base import Options
from tracegrad.backends.jax.errors import JaxNotInstalledError, require_jax
from tracegrad.runtime.compiled import CompiledFunction
from tracegrad.runtime.lowering import Compiler
from tracegrad.tracer.errors import ArgumentError
from tracegrad.tracer.locate import here

BACKENDS = ("auto", "numpy", "jax", "eager")


def compile_function(
    function: Callable[..., Any], *, backend: str = "auto", fullgraph: bool = False, keep_grads: bool | str = "auto",
    recheck: int | None = None, max_paths: int = 8, max_unroll: int = 10_000, name: str = "", **options: Any,
) -> Any:  # fmt: skip
    """A callable that runs `function` as one compiled graph. See `tracegrad.compile`."""
    if backend not in BACKENDS:
        raise ArgumentError(
            f"unknown backend {backend!r}",
            where=here(),
            fix=f"one of {', '.join(map(repr, BACKENDS))}",
        )
    known = {field.name for field in fields(Options)} - {"donate"}
    unknown = sorted(set(options) - known)
    if unknown:
        own = (
            "backend",
            "dynamic",
            "fullgraph",
            "keep_grads",
            "max_paths",
            "max_unroll",
            "mode",
            "recheck",
        )
        from difflib import get_close_matches  # here, because it takes long to import

        near = get_close_matches(unknown[0], [*known, *own], 1)
        raise ArgumentError(
            f"compile() has no option {unknown[0]!r}", where=here(),
            fix=f"did you mean {near[0]!r}?" if near else f"the options are {', '.join(sorted({*known, *own}))}",
        )  # fmt: skip
    if keep_grads not in (True, False, "auto"):
        raise ArgumentError(
            f"keep_grads is True, False or 'auto', not {keep_grads!r}", where=here()
        )
    if backend == "eager" or os.environ.get("TRACEGRAD_DISABLE") == "1":
        return function
    backend = "numpy" if backend == "auto" else backend
    if backend == "jax" and importlib.util.find_spec("jax") is None:
        try:
            require_jax()
        except JaxNotInstalledError as error:
            raise error.located("", here()) from error.__cause__
    return CompiledFunction(
        function, backend=backend, fullgraph=fullgraph, keep_grads=keep_grads, recheck=recheck, max_paths=max_paths,
        max_unroll=max_unroll, name=name or getattr(function, "__qualname__", repr(function)),
        compiler=Compiler(backend, options),
    )  # fmt: skip
