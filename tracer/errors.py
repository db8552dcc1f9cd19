"""Errors the tracer raises: what happened, the user's line, why, and how to fix it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

from tracegrad.ir.errors import TracegradError


class UserError(TracegradError):
    """Base of errors about what the user's code does.

    `where` is the user's line that is running, unless given; `fix` the class's usual advice.
    """

    usual_fix = ""

    def __init__(self, what: str, *, where: object = None, why: str = "", fix: str = ""):
        from tracegrad.tracer.locate import here

        where = here() if where is None else where
        fix = fix or self.usual_fix
        lines = [what]
        if where and getattr(where, "line", 1):  # 0: no line of the user's is running
            lines.append(f"  where: {where}")
        if why:
            lines.append(f"  why:   {why}")
        if fix:
            lines.append(f"  fix:   {fix}")
        lines[-1] += f"  [{self.code}]"
        super().__init__("\n".join(lines))


class GradientError(UserError, RuntimeError):
    """backward() or grad() that cannot be: no graph, freed graph, non-scalar loss."""

    code = "TG001"
    usual_fix = "make the result depend on tensors that require grad, and reduce it to one element"


class InPlaceError(UserError, RuntimeError):
    """An in-place write that PyTorch refuses too (a leaf that needs grad, an expanded tensor...)."""

    code = "TG002"


class LeakedTensorError(UserError, RuntimeError):
    """A tensor recorded inside a compiled function was used after its trace had ended."""

    code = "TG003"


class UnsupportedError(UserError, NotImplementedError):
    """Something the library does not do (yet), eager or while recording."""

    code = "TG004"


class DroppedGradientError(UserError, RuntimeError):
    """`.grad` was read, but the compiled step kept it inside the graph."""

    code = "TG005"


class ArgumentError(UserError, TypeError):
    """A function was called with arguments it does not take."""

    code = "TG006"
    usual_fix = "help() of the function says what it takes"


class InvalidValueError(UserError, ValueError, RuntimeError):
    """A value that an argument, a hyper-parameter or an option cannot have.

    PyTorch raises ValueError for some of these and RuntimeError for others: this is both.
    """

    code = "TG011"
    usual_fix = "give a value that the message allows"


class OutOfRangeError(UserError, IndexError):
    """A position, dimension or number of dimensions that the tensor does not have."""

    code = "TG012"
    usual_fix = "print the shape of the tensor on that line; the last position or dimension is -1"


class ShapeError(UserError, RuntimeError, ValueError):
    """Shapes or dtypes that do not fit together: an error of both kinds, as InvalidValueError is."""

    code = "TG007"
    usual_fix = "print the shapes and dtypes of the tensors on that line"


class GraphBreakError(UserError, RuntimeError):
    """A compiled function did something that cannot stay in one graph, under fullgraph=True."""

    code = "TG008"


class DevicePlacementError(UserError, RuntimeError):
    """A device that this machine or backend does not have."""

    code = "TG009"


class NothingCompiledError(UserError, RuntimeError):
    """A graph, a source or a dump was asked of a function that has not been called yet."""

    code = "TG010"


class MissingNameError(UserError, AttributeError):
    """A name that this library does not have, although PyTorch may.

    An AttributeError, so that hasattr() and getattr() with a default work: they raise one and throw it
    away, so the name that was perhaps meant is looked for when the message is read.
    """

    code = "TG014"

    def __init__(self, owner: str, name: str, known: Iterable[str], instead: str):
        super().__init__(
            f"{owner} has no {name!r}",
            why="a PyTorch script runs as far as the names it uses exist here",
            fix="{fix}",
        )
        self.name = self.wanted = name
        self.known, self.instead = known, instead

    def __str__(self) -> str:
        from difflib import get_close_matches  # here, because it takes long to import

        near = get_close_matches(self.wanted, [k for k in self.known if k[0] != "_"], 1, 0.75)
        return str(self.args[0]).replace(
            "{fix}", f"did you mean {near[0]!r}?" if near else self.instead
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return AttributeError, (str(self),)  # for another process: the text alone


class NotHere:
    """Stands in a class for a method of PyTorch's that it does not have: asking for it says so.

    hasattr() is False, and an instance can have an attribute of the name.
    """

    def __init__(self, instead: str):
        self.instead = instead

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> NoReturn:
        raise MissingNameError(owner.__name__, self.name, (), self.instead)
