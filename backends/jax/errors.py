"""Errors of this backend that need no jax to exist."""

from __future__ import annotations

from tracegrad.backends.base import BackendError


class JaxNotInstalledError(BackendError, ImportError):
    """The JAX backend was asked for, and jax cannot be imported."""

    code = "TG026"
    fix = "pip install 'tracegrad[jax]', or use backend=\"numpy\""


def require_jax() -> None:
    """Import jax. Raises JaxNotInstalledError, naming the fix, where it is missing."""
    try:
        import jax  # noqa: F401
    except ImportError as error:
        raise JaxNotInstalledError(
            f"the JAX backend needs jax, which cannot be imported ({error})"
        ) from error
