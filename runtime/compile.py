"""`compile`: options in, CompiledFunction out."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from tracegrad.backends.base import Mesh, Options
from tracegrad.backends.jax.errors import JaxNotInstalledError, require_jax
from tracegrad.runtime.compiled import CompiledFunction
from tracegrad.runtime.paths.lowering import Compiler
from tracegrad.runtime.settings import Settings
from tracegrad.tracer.errors import ArgumentError
from tracegrad.tracer.locate import here

BACKENDS = ("auto", "numpy", "jax", "eager")


def compile_function(function: Callable[..., Any], **options: Any) -> Any:
    """A callable that runs `function` as one compiled graph.

    options: fields of Settings, and of the backend's Options. See `tracegrad.compile`.
    """
    own = {field.name for field in fields(Settings)}
    settings = Settings(**{name: options.pop(name) for name in own & options.keys()})
    backend = settings.backend
    if backend not in BACKENDS:
        raise ArgumentError(
            f"unknown backend {backend!r}",
            where=here(),
            fix=f"one of {', '.join(map(repr, BACKENDS))}",
        )
    refuse_unknown(options, own)
    refuse_mesh(options.get("mesh"))
    if settings.keep_grads not in (True, False, "auto"):
        raise ArgumentError(
            f"keep_grads is True, False or 'auto', not {settings.keep_grads!r}", where=here()
        )
    if backend == "eager" or os.environ.get("TRACEGRAD_DISABLE") == "1":
        return function
    if backend == "jax" and importlib.util.find_spec("jax") is None:
        try:
            require_jax()
        except JaxNotInstalledError as error:
            raise error.located("", here()) from error.__cause__
    settings = replace(
        settings,
        backend="numpy" if backend == "auto" else backend,
        name=settings.name or getattr(function, "__qualname__", repr(function)),
    )
    return CompiledFunction(function, settings, Compiler(settings.backend, options))


def refuse_mesh(mesh: Any) -> None:
    """Raise ArgumentError for what is no mesh, or one of no devices."""
    if mesh is None:
        return
    axes = mesh.axes if isinstance(mesh, Mesh) else None
    if not axes or not all(isinstance(size, int) and size > 0 for _, size in axes):
        raise ArgumentError(
            f"mesh={mesh!r}: it has axes of one or more devices",
            where=here(),
            fix="mesh=tg.Mesh.of(data=4)",
        )


def refuse_unknown(options: dict[str, Any], own: set[str]) -> None:
    """Raise ArgumentError for an option that no backend has."""
    known = {field.name for field in fields(Options)} - {"donate"}
    unknown = sorted(options.keys() - known)
    if not unknown:
        return
    from difflib import get_close_matches  # here, because it takes long to import

    known |= (own - {"name"}) | {"dynamic", "mode"}
    near = get_close_matches(unknown[0], known, 1, 0.75)
    raise ArgumentError(
        f"compile() has no option {unknown[0]!r}", where=here(),
        fix=f"did you mean {near[0]!r}?" if near else f"the options are {', '.join(sorted(known))}",
    )  # fmt: skip
