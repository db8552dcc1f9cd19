"""What `TRACEGRAD_CHECK` asks for, of every pass that a backend runs."""

from __future__ import annotations

from tracegrad.passes.base import Observer


def checks(require_loc: bool = False) -> tuple[Observer, ...]:
    """The verifying observer at the level of TRACEGRAD_CHECK (0: none); see passes/observers.py."""
    from tracegrad.passes.observers import Check, check_level

    level = check_level()
    if level == 0:
        return ()
    from tracegrad.backends.numpy import interpret

    return (Check(level, interpret, require_loc=require_loc),)
