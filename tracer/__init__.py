"""Python -> IR: the Tensor, eager execution with its tape, and recording."""

from tracegrad.tracer.locate import scope
from tracegrad.tracer.observed import (
    Observed,
    ParamGroup,
    ReportingDict,
    host_action,
    new_state,
    note_item,
    recording_watch,
)
from tracegrad.tracer.state import (
    current_trace,
    enable_grad,
    get_mode,
    is_grad_enabled,
    no_grad,
    set_grad_enabled,
)
from tracegrad.tracer.device import Device
from tracegrad.tracer.size import Size
from tracegrad.tracer.tensor import Tensor

__all__ = [
    "Device",
    "Observed",
    "ParamGroup",
    "ReportingDict",
    "Size",
    "Tensor",
    "current_trace",
    "enable_grad",
    "get_mode",
    "host_action",
    "is_grad_enabled",
    "new_state",
    "note_item",
    "no_grad",
    "recording_watch",
    "scope",
    "set_grad_enabled",
]
