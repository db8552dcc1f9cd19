"""jax's global settings, set for a `with` block only; the user's own values are untouched.

The persistent compilation cache's settings are no public context managers: they are reached in
`_cache` alone, and where a release has moved them the cache is left off with one warning.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import jax

CACHE_BYTES = 1 << 30  # the folder's bound


@contextmanager
def lowering(precision: str, cache_dir: str | None) -> Iterator[None]:
    """Around tracing and compiling: 64-bit types, one matmul precision, jit switched on."""
    with ExitStack() as stack:
        stack.enter_context(jax.enable_x64(True))
        stack.enter_context(jax.disable_jit(False))
        stack.enter_context(jax.default_matmul_precision(precision))
        if cache_dir is not None:
            stack.enter_context(_cache(cache_dir))
        yield
    if cache_dir is not None:
        prune(Path(cache_dir), CACHE_BYTES)


def prune(directory: Path, limit: int) -> None:
    """Delete the oldest entries until `limit` bytes are left. (jax's bound needs a package.)"""
    entries = []
    for path in directory.glob("*-cache"):
        with suppress(FileNotFoundError):  # another process prunes too
            entries.append((path.stat().st_mtime, path.stat().st_size, path))
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= limit:
            return
        path.unlink(missing_ok=True)
        total -= size


@contextmanager
def _cache(directory: str) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            from jax._src import compilation_cache, config

            settings = (
                (config.enable_compilation_cache, True),
                (config.compilation_cache_dir, directory),
                (config.persistent_cache_min_compile_time_secs, 0.0),
                (config.persistent_cache_min_entry_size_bytes, 0),
            )
            for setting, value in settings:
                stack.enter_context(setting(value))
            # The cache keeps the folder it first saw; forget it on both sides, so the user's own
            # stays theirs.
            compilation_cache.reset_cache()
            stack.callback(compilation_cache.reset_cache)
        except (ImportError, AttributeError, TypeError) as error:
            warnings.warn(
                f"this jax release has no compilation cache settings ({error}); compiling without",
                RuntimeWarning,
                stacklevel=2,
            )
        yield
