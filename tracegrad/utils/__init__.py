"""Helpers around training: `tracegrad.utils.data`, `tracegrad.utils.checkpoint`."""

from tracegrad.names import public
from tracegrad.utils import checkpoint, data

__all__ = ["checkpoint", "data"]

public(__name__)
