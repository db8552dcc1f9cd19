"""What a function was given that it does not take, said of the call: functions that only arrange ops
notice it late, in a line of ours (`'list' object has no attribute 'dim'`), and are not to look for it
at every call.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache, partial, wraps
from types import FunctionType
from typing import Any

import numpy as np

from tracegrad.ir.errors import TracegradError
from tracegrad.tracer.errors import ArgumentError, InvalidValueError
from tracegrad.tracer.locate import is_own_code, raised_at

NOTICED = (AttributeError, TypeError, ValueError, IndexError)  # that Python raises
_NUMBERS = ("int", "float", "bool")
_IN_WORDS = {
    "Tensor": "a tensor",
    "int": "an integer",
    "float": "a number",
    "bool": "True or False",
}
_NO_NUMBERS = (list, tuple, dict, set, str, bytes, type(None))


@cache  # an alias is the same function
def explained(function: Any, home: str, owner: str = "") -> Any:
    """`function`, whose errors about its arguments are typed ones. Ops check their own.

    home, owner  the module, and the class there, whose attribute it is: pickle looks there
    """
    if not isinstance(function, FunctionType):
        return function

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except NOTICED as error:
            if function.__name__ == "__init__":
                made, *given = args
                own = is_own_code(type(made).__init__.__code__)  # a user's class takes others
                shown = type(made).__name__ if own else owner.rstrip(".")
                explain(partial(function, made), shown, given, kwargs, error)
            else:
                explain(function, function.__name__, args, kwargs, error)
            raise

    call.__module__, call.__qualname__ = home, f"{owner}{function.__name__}"
    return call


def explain(
    function: Callable[..., Any], shown: str, args: Any, kwargs: Any, error: Exception
) -> None:
    """Raises ArgumentError or InvalidValueError for what a call of `function` was given, unless `error`
    says it already, or came through code of the user's.
    """
    if isinstance(error, TracegradError) or raised_at(error).line:
        return
    signature = inspect.signature(function)
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError as mismatch:
        raise ArgumentError(f"{shown}(): {mismatch}", fix=f"it takes {_names(signature)}") from None
    for name, value in given.items():
        parameter = signature.parameters[name]
        several = parameter.kind is inspect.Parameter.VAR_POSITIONAL
        for each in value if several else (value,):
            if needed := _needed(parameter.annotation, each):
                raise ArgumentError(
                    f"{shown}(): {name} is {_kind(each)}, {needed} is needed",
                    fix="make it a tensor first: tg.tensor(value)" if "tensor" in needed else "",
                ) from None
    kind = ArgumentError if isinstance(error, (AttributeError, TypeError)) else InvalidValueError
    raise kind(f"{shown}(): {error}", fix=f"it takes {_names(signature)}") from error


def _needed(annotation: Any, value: Any) -> str:
    """What a parameter annotated so takes, in words, where `value` is no such thing; else ""."""
    kinds = annotation.split(" | ") if isinstance(annotation, str) else []
    if any(kind.__name__ in kinds for kind in type(value).__mro__) or (
        value is None and "None" in kinds
    ):
        return ""
    if "Tensor" in kinds:
        return " or ".join(_IN_WORDS.get(kind, kind) for kind in kinds)
    if len(kinds) == 1 and kinds[0] in _NUMBERS:
        no_number = isinstance(value, np.ndarray) and value.size != 1
        return _IN_WORDS[kinds[0]] if no_number or isinstance(value, _NO_NUMBERS) else ""
    return ""


def _kind(value: Any) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"


def _names(signature: inspect.Signature) -> str:
    """The parameters without their annotations."""
    plain = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
    ]
    return str(inspect.Signature(plain))
