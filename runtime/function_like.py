"""What a compiled function has in common with Python's own: it binds to instances, and is copied and
pickled as functions are.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from types import MethodType
from typing import Any

from tracegrad.runtime.paths.lowering import Compiler
from tracegrad.runtime.settings import Settings
from tracegrad.tracer.state import get_mode

OWN_METHODS = "_compiled_methods"  # the attribute of an instance that holds its OwnMethods


class OwnMethods:
    """The compiled methods of one instance, kept among its attributes; copies make theirs anew."""

    __slots__ = ("instance", "methods")

    def __init__(self, instance: Any = None):
        self.instance = instance
        self.methods: dict[Any, Any] = {}

    def __reduce__(self) -> Any:
        return OwnMethods, ()


class FunctionLike:
    """The part of a CompiledFunction that stands for a function."""

    function: Callable[..., Any]
    settings: Settings
    _compiler: Compiler

    def __get__(self: Any, instance: Any, owner: Any = None) -> Any:
        """The compiled method of `instance`: its own, which is dropped together with it."""
        if instance is None:
            return self
        fields = getattr(instance, "__dict__", None)
        if (
            fields is None
            or type(instance).__eq__ is not object.__eq__
            or get_mode().trace is not None
        ):
            return partial(self, instance)  # what is compared by value shares its recordings
        own = fields.get(OWN_METHODS)
        if own is None or own.instance is not instance:  # a shallow copy has the original's
            own = fields[OWN_METHODS] = OwnMethods(instance)
        found = own.methods.get(self)
        return found or own.methods.setdefault(self, self._of(MethodType(self.function, instance)))

    def _of(self: Any, function: Callable[..., Any]) -> Any:
        """Another function with the same options and executables."""
        return type(self)(function, self.settings, self._compiler)

    def __copy__(self) -> Any:
        return self  # as functions are

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Itself, as functions are; a method's copy is compiled anew, for the copy of its object."""
        function = copy.deepcopy(self.function, memo)
        return self if function is self.function else self._again()(function)

    def __reduce__(self: Any) -> Any:
        """Its name where it stands under it, as functions have it; else how to compile it again."""
        found: Any = sys.modules.get(self.__module__)
        for name in getattr(self, "__qualname__", "").split("."):
            found = getattr(found, name, None)
        return self.__qualname__ if found is self else (self._again(), (self.function,))

    def _again(self) -> Callable[[Any], Any]:
        """What compiles another function with the same options."""
        from tracegrad.runtime.compile import compile_function

        return partial(compile_function, **asdict(self.settings), **self._compiler.options)
