"""What the tracer does in this thread: gradient mode and the running trace, in one ContextVar."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token
from functools import wraps
from inspect import isgeneratorfunction
from typing import TYPE_CHECKING, Any

from tracegrad.ir.types import DType, f32

if TYPE_CHECKING:
    from tracegrad.tracer.trace.recording import Trace


class Mode:
    """Immutable: gradient mode on or off, and the trace being recorded (None when eager)."""

    __slots__ = ("grad", "trace")

    def __init__(self, grad: bool, trace: Trace | None):
        self.grad = grad
        self.trace = trace


EAGER_GRAD = Mode(True, None)
EAGER_NO_GRAD = Mode(False, None)

_mode: ContextVar[Mode] = ContextVar("tracegrad_mode", default=EAGER_GRAD)
get_mode = _mode.get


def set_mode(mode: Mode) -> Token[Mode]:
    return _mode.set(mode)


def reset_mode(token: Token[Mode]) -> None:
    _mode.reset(token)


def mode_with(grad: bool, trace: Trace | None) -> Mode:
    if trace is None:
        return EAGER_GRAD if grad else EAGER_NO_GRAD
    return Mode(grad, trace)


def current_trace() -> Trace | None:
    return _mode.get().trace


class set_grad_enabled:
    """Turn gradients on or off: at once when called, and as a context manager or decorator."""

    def __init__(self, mode: bool):
        before = _mode.get()
        self._before = before.grad
        self._wanted = bool(mode)
        _mode.set(mode_with(self._wanted, before.trace))

    def __enter__(self) -> None:
        _mode.set(mode_with(self._wanted, _mode.get().trace))

    def __exit__(self, *exception: object) -> None:
        _mode.set(mode_with(self._before, _mode.get().trace))

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """As a decorator: the mode is that of the function, and what it was everywhere else."""
        _mode.set(mode_with(self._before, _mode.get().trace))
        return wrapped_in(lambda: set_grad_enabled(self._wanted), function)


def wrapped_in(mode: Callable[[], Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` run inside `mode()`; a generator function between each two yields."""

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with mode():
            return function(*args, **kwargs)

    @wraps(function)
    def resumed(*args: Any, **kwargs: Any) -> Any:
        generator = function(*args, **kwargs)
        resume, given = generator.send, None
        while True:
            try:
                with mode():
                    value = resume(given)
            except StopIteration as end:
                return end.value
            try:
                given = yield value
                resume = generator.send
            except GeneratorExit:
                with mode():
                    generator.close()
                raise
            except BaseException as error:
                resume, given = generator.throw, error

    return resumed if isgeneratorfunction(function) else wrapped


class _GradMode:
    """Context manager and decorator (with or without parentheses) that fixes the gradient mode."""

    _wanted = False
    _stack: list[bool]

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        self = super().__new__(cls)
        self._stack = []
        return self if function is None else self(function)

    def __enter__(self) -> None:
        mode = _mode.get()
        self._stack.append(mode.grad)
        if mode.grad is not self._wanted:
            _mode.set(mode_with(self._wanted, mode.trace))

    def __exit__(self, *exception: object) -> None:
        before = self._stack.pop()
        mode = _mode.get()
        if mode.grad is not before:
            _mode.set(mode_with(before, mode.trace))

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return wrapped_in(type(self), function)


class no_grad(_GradMode):
    """Operations inside are not recorded for differentiation."""

    _wanted = False


class inference_mode(_GradMode):
    """As `no_grad` (tensors made inside are ordinary tensors here)."""

    _wanted = False

    def __new__(cls, mode: Any = None) -> Any:
        if mode is False:
            return enable_grad()
        return super().__new__(cls, None if mode is True else mode)


class enable_grad(_GradMode):
    """Operations inside are recorded for differentiation."""

    _wanted = True


def is_grad_enabled() -> bool:
    """Whether operations are recorded for gradients now, in this thread."""
    return _mode.get().grad


DEFAULT_DTYPE: list[DType] = [f32]  # one for all threads; read as an item by every eager op


def get_default_dtype() -> DType:
    """The dtype of tensors made from Python floats (float32 unless changed), in every thread."""
    return DEFAULT_DTYPE[0]


def set_default_dtype(dtype: DType) -> None:
    """Set the dtype of tensors made from Python floats: a floating dtype, for all threads.

    Raises ArgumentError otherwise.
    """
    if not isinstance(dtype, DType) or not dtype.is_float:
        from tracegrad.tracer.errors import ArgumentError

        raise ArgumentError(
            f"the default dtype must be a floating dtype, got {dtype!r}",
            fix="use tg.float32, tg.float64, tg.float16 or tg.bfloat16",
        )
    trace = _mode.get().trace
    if trace is not None and dtype is not DEFAULT_DTYPE[0]:
        trace.refuse(
            "set_default_dtype() inside a compiled function",
            "call it before, or give a dtype where tensors are made",
            "it would hold for everything after, and only a recording would call it",
        )
    DEFAULT_DTYPE[0] = dtype
