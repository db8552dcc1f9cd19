"""Helpers around training: `tracegrad.utils.data`."""

from tracegrad.utils import data

__all__ = ["data"]
