"""Helpers around training: `tracegrad.utils.data`, `tracegrad.utils.checkpoint`."""

from tracegrad.utils import checkpoint, data

__all__ = ["checkpoint", "data"]
