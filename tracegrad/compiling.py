"""`tracegrad.compile`: functions and modules."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from tracegrad.nn.module import Module
from tracegrad.tracer.errors import ArgumentError, InvalidValueError

_MODES = (None, "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
_INSPECTION = (
    "graph", "history", "source", "stats", "why", "explain", "memory", "dump", "benchmark",
)  # fmt: skip


def compile(
    model: Callable[..., Any] | Module | None = None, *, backend: str = "auto", fullgraph: bool = False,
    dynamic: bool | None = None, keep_grads: bool | str = "auto", recheck: int | None = None, max_paths: int = 8,
    max_unroll: int = 10_000, mode: str | None = None, **options: Any,
) -> Any:  # fmt: skip
    """`model` (a function or a Module), traced at its first call and run as one graph from then on.

    Ordinary imperative code is fine: forward, `loss.backward()`, `opt.step()`, `sched.step()`.
    Parameters, buffers, optimiser state and the random state are captured without being declared
    and updated after each run. A call that fails leaves them as they were.

    backend     "numpy", "jax", "eager" (returns `model`), or "auto" (NumPy)
    fullgraph   raise GraphBreakError instead of running eagerly what cannot be one graph
    dynamic     accepted; every shape gets its own graph
    keep_grads  whether `.grad` is written after a step that clears it itself: True, False, or
                "auto" (only if the step did not clear it before reading it)
    recheck     every N-th call records again, to find Python state that changed unseen; warns then
    max_paths   different paths through branches on tensor values that are kept, however often a
                loop on them turns; with more, eager, with a warning
    max_unroll  branches on tensor values in one call; with more, eager, or an error as `fullgraph`
    mode        one of PyTorch's, without effect
    options     for the backend:
                numpy: threads (of the pool and BLAS), fuse (False: a loop for each op),
                tile_bytes (working set of a fused loop), poison (nan into dead buffers: a test)
                jax: device ("cpu", "gpu", "gpu:1"), cache_dir (persistent compilation cache),
                matmul_precision ("highest", "high", "default"), hazards (report indices out of
                range and divisions by zero), mesh=Mesh.of(data=4) with input_specs, one per tensor
                argument: a mesh axis name or None per dimension

    The result has .graph, .history, .source, .stats(), .why(), .explain(), .memory(), .dump(dir),
    .benchmark(*args). Usable as a decorator, with or without arguments.

    Raises ArgumentError for something that cannot be called, an unknown option or backend,
    InvalidValueError for an unknown mode, JaxNotInstalledError for backend="jax" without jax.
    """
    keywords = dict(
        backend=backend, fullgraph=fullgraph, keep_grads=keep_grads, recheck=recheck, max_paths=max_paths,
        max_unroll=max_unroll, **options,
    )  # fmt: skip
    if mode not in _MODES:
        raise InvalidValueError(
            f"mode={mode!r}", fix=f"leave it out, or give one of {', '.join(map(repr, _MODES[1:]))}"
        )
    if model is not None and not callable(model):
        raise ArgumentError(
            f"compile() of {type(model).__name__}, which cannot be called",
            fix="give a function or a module",
        )
    del dynamic
    if model is None:
        return lambda function: compile(function, **keywords)
    from tracegrad.runtime.compile import compile_function

    if isinstance(model, Module):
        return compiled_module(model, keywords)
    return compile_function(model, **keywords)


class CompiledModule:
    """Mixin: a module whose call is compiled.

    It shares the original's state: one set of parameters, two ways to call. A copy, and what comes
    back from a pickle, is a copy of the original, compiled anew.

    _made_of  the original and the options of `compile`
    """

    _compiled: Any
    _made_of: tuple[Module, dict[str, Any]]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return type(self).__dict__["_compiled"](*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name in _INSPECTION:
            return getattr(type(self).__dict__["_compiled"], name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __copy__(self) -> Module:
        model, keywords = type(self)._made_of
        return compiled_module(copy.copy(model), keywords)

    def __deepcopy__(self, memo: dict[int, Any]) -> Module:
        model, keywords = type(self)._made_of
        copied = copy.deepcopy(model, memo)
        # A model may hold what it was compiled to, which has been copied with it then.
        return memo.get(id(self)) or compiled_module(copied, keywords)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return compiled_module, type(self)._made_of


def compiled_module(model: Module, keywords: dict[str, Any]) -> Module:
    """A module of the same class, state and `state_dict` keys whose `__call__` is compiled."""
    from tracegrad.runtime.compile import compile_function

    original = type(model)
    call = compile_function(model.__call__, name=original.__name__, **keywords)
    kind = type(
        original.__name__,
        (CompiledModule, original),
        {"_compiled": call, "_made_of": (model, keywords)},
    )
    result: Any = object.__new__(kind)
    result.__dict__ = model.__dict__
    return result
