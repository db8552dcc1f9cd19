"""Helpers around training: `tracegrad.utils.data`, `tracegrad.utils.checkpoint`."""

from tracegrad.names import refuse_other_names
from tracegrad.utils import checkpoint, data

__all__ = ["checkpoint", "data"]

refuse_other_names(__name__)
