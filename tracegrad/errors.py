"""Errors the user-facing library raises. Each message says what, where, why and how to fix it."""

from tracegrad.backends.base import (
    BackendError,
    CheckFailed,
    DivisionByZero,
    IndexOutOfRange,
    LinAlgError,
    TooManyTrips,
    ValueOutOfRange,
)
from tracegrad.backends.jax.errors import JaxNotInstalledError
from tracegrad.ir.errors import MissingVJPError, TracegradError
from tracegrad.tracer.errors import (
    ArgumentError,
    DevicePlacementError,
    DroppedGradientError,
    GradientError,
    GraphBreakError,
    InPlaceError,
    InvalidValueError,
    LeakedTensorError,
    MissingNameError,
    NothingCompiledError,
    OutOfRangeError,
    ShapeError,
    UnsupportedError,
    UserError,
)


class StateDictError(UserError, RuntimeError):
    """A state dict does not fit the module; the message lists every key that is wrong."""

    code = "TG020"
    usual_fix = (
        "make the model as it was when the state was saved, or give strict=False to pass over missing "
        "and unexpected keys"
    )


class SerializationError(UserError, RuntimeError):
    """A file cannot be written or read; the message names the file and the way out."""

    code = "TG021"


class CorruptFileError(SerializationError):
    """The file is damaged or cut short."""

    code = "TG022"


class WrongFileError(SerializationError):
    """The file is sound but is not one that `tracegrad.save` wrote."""

    code = "TG023"


class UnreadableFileError(SerializationError, OSError):
    """The system does not let the file be read."""

    code = "TG027"


class MissingFileError(UnreadableFileError, FileNotFoundError):
    """There is no such file."""

    code = "TG028"


class DataLoaderError(UserError, RuntimeError):
    """A data set, sampler or collate function cannot be used as asked."""

    code = "TG024"


class MissingExtraError(UserError, ImportError):
    """An optional dependency is not installed; the message gives the pip command."""

    code = "TG025"


__all__ = [
    "ArgumentError",
    "BackendError",
    "CheckFailed",
    "CorruptFileError",
    "DataLoaderError",
    "DevicePlacementError",
    "DroppedGradientError",
    "GradientError",
    "GraphBreakError",
    "InPlaceError",
    "IndexOutOfRange",
    "DivisionByZero",
    "InvalidValueError",
    "JaxNotInstalledError",
    "LeakedTensorError",
    "LinAlgError",
    "MissingExtraError",
    "MissingFileError",
    "MissingNameError",
    "MissingVJPError",
    "NothingCompiledError",
    "OutOfRangeError",
    "SerializationError",
    "ShapeError",
    "StateDictError",
    "TooManyTrips",
    "TracegradError",
    "UnreadableFileError",
    "UnsupportedError",
    "ValueOutOfRange",
    "WrongFileError",
]
