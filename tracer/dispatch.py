"""User-level ops: one emit function each, serving eager execution, the tape's backward, and
recording.

An emit function takes IR nodes and emits IR. Eager calls turn it into a small cached program per
signature (`eager/program.py`); recording calls it on the trace's own nodes; the tape derives its gradient
from the same IR. So an op has one definition, and the modes cannot disagree about it.
"""

from __future__ import annotations

import inspect
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tracegrad.backends.base import BackendError
from tracegrad.ir.errors import TracegradError
from tracegrad.ir.graph import Node
from tracegrad.ir.ops.build import to, wide, wide_dtype
from tracegrad.ir.types import DType
from tracegrad.tracer.dtypes import OF_PYTHON
from tracegrad.tracer.errors import ArgumentError, InvalidValueError
from tracegrad.tracer.locate import here
from tracegrad.tracer.state import get_mode

# PyTorch takes NumPy's names for these arguments beside its own.
NUMPY_NAMES = {"axis": "dim", "keepdims": "keepdim"}

REQUIRED = inspect.Parameter.empty  # the default of a static attribute that has none
MOVED = "an operand"  # stands for a factor among the attributes, see UserOp
_ONE_MOVED = (MOVED,)


@dataclass(frozen=True)
class Weak:
    """A Python number (or a number read from a tensor) as an operand: promotes as PyTorch's scalars
    do.

    `node` is 0-d: f64, i64, bool or c128; `category` is "float", "int", "bool" or "complex".
    """

    node: Node
    category: str


Factor = int | float | complex | Weak  # of a term: as an attribute, or as an operand


class UserOp:
    """A function on tensors with PyTorch's calling convention, defined by an emit function.

    Positional-only parameters are operands (tensors, numbers or None); the others are static
    attributes. One annotated as a `Factor` (alpha, value) is a static 1 or another operand, after
    those given: a step size that changes at every call needs no new program.

    `known` numbers as the second operand are a static attribute of another op: what is computed
    depends on them, when run eagerly as when recorded.

    One of varargs (`cat_`) is handed to `apply` by a function: as many operands as there are, are no
    form of a call.
    """

    def __init__(
        self,
        emit: Callable[..., Any],
        results: tuple[str, ...] = (),
        eager_only: str = "",
        stores: str = "",
        shown: str = "",
        rounds_once: bool = False,
    ):
        self.emit = emit
        self.stores = stores
        self.rounds_once = rounds_once
        self.known: tuple[frozenset[float], UserOp] | None = None
        self.name = (
            emit.__name__.rstrip("_") if not emit.__name__.startswith("_") else emit.__name__
        )
        self.shown = shown or self.name  # in messages
        self.__name__ = emit.__name__
        self.__qualname__ = emit.__qualname__
        self.__doc__ = emit.__doc__
        self.__module__ = emit.__module__
        self.__wrapped__ = emit
        self.eager_only = eager_only
        self._fields = results
        # Read from the code object: inspect.signature takes 30 us, for 350 ops at every import.
        code, defaults = emit.__code__, emit.__defaults__ or ()
        names = code.co_varnames[: code.co_argcount]
        given = dict(zip(names[len(names) - len(defaults) :], defaults))
        self.operands = list(names[: code.co_posonlyargcount])
        self.optional = {name: given[name] for name in self.operands if name in given}
        self.static = {name: given.get(name, REQUIRED) for name in names[len(self.operands) :]}
        keyword_only = code.co_varnames[code.co_argcount :][: code.co_kwonlyargcount]
        only = emit.__kwdefaults__ or {}
        self.static.update({name: only.get(name, REQUIRED) for name in keyword_only})
        self._static_names = tuple(self.static)
        annotations = emit.__annotations__
        self._factors = tuple(
            [k for k, name in enumerate(self.static) if annotations.get(name) == "Factor"]
        )
        self._whole = [
            (k, name)
            for k, name in enumerate(self.static)
            if annotations.get(name) in ("int", "int | None")
        ]
        # The very object that `bind` returns when nothing is overridden: cache keys need not look
        # inside.
        self.default_attrs = tuple(map(hashable, self.static.values()))
        # How it is called (positional arguments, names given) -> `bind` for that form. As many as
        # there are right forms in programs.
        self._forms: dict[tuple, Callable[[tuple, dict[str, Any]], tuple[tuple, tuple]]] = {}
        self._plain_arity = -1 if REQUIRED in self.static.values() else len(self.operands)

    def __repr__(self) -> str:
        return f"<function {self.name}>"

    @cached_property
    def results(self) -> Any:
        """The named tuple of several results, None for one: made when first asked, as each takes
        0.1 ms.
        """
        shown = self.shown.rpartition(".")[2]
        return namedtuple(shown, self._fields) if self._fields else None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        count = len(args)
        if kwargs:
            bind = self._forms.get((count, *kwargs)) or binder(self, count, *kwargs)
        elif count == self._plain_arity:
            return apply(self, args, self.default_attrs)
        else:
            bind = self._forms.get((count,)) or binder(self, count)
        operands, attrs = bind(args, kwargs)
        return apply(self, operands, attrs)

    def _own_name(self, name: str) -> str:
        """The argument's name here, where it is given by NumPy's."""
        known = name in self.operands or name in self.static
        return name if known else NUMPY_NAMES.get(name, name)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple, tuple]:
        """Split a call into operands and static attributes (a tuple of values in declared order)."""
        count = len(self.operands)
        operands, rest = args[:count], args[count:]
        if len(operands) < count:
            operands = (*operands, *map(self._missing(kwargs), self.operands[len(operands) :]))
        values = dict(self.static)
        if not kwargs.keys().isdisjoint(NUMPY_NAMES):
            kwargs = {self._own_name(name): value for name, value in kwargs.items()}
        if len(rest) > len(values):
            # PyTorch's varargs: x.sum(0, 1) means x.sum((0, 1)), where the first attribute takes
            # ints.
            if all(type(value) is int for value in rest) and self._static_names:
                rest = (rest,)
            else:
                raise ArgumentError(
                    f"{self.shown}() takes {len(self.operands)} tensors and {list(values)}, "
                    f"got {len(args)} positional arguments",
                    where=here(),
                )
        values.update(zip(self._static_names, rest))
        given = {*self.operands[: len(args)], *self._static_names[: len(rest)]}
        for name, value in kwargs.items():
            if name in given:
                raise ArgumentError(
                    f"{self.shown}() got {name!r} twice, by position and by name", where=here()
                )
            if name in self.operands:
                continue
            if name not in values:
                raise ArgumentError(
                    f"{self.shown}() has no argument {name!r}",
                    where=here(),
                    fix=f"it takes {', '.join([*self.operands, *values])}",
                )
            values[name] = value
        for name, value in values.items():
            if value is REQUIRED:
                raise ArgumentError(f"{self.shown}() needs the argument {name!r}", where=here())
        if self._factors:
            return self._apart(operands, tuple(values.values()))
        return operands, tuple(map(hashable, values.values()))

    def _apart(self, operands: tuple, attrs: tuple) -> tuple[tuple, tuple]:
        """The factors among the attributes, but for the usual ones, as operands."""
        if len(attrs) == 1 and attrs[0].__class__ is float and attrs[0] != 1:  # most calls
            return (*operands, attrs[0]), _ONE_MOVED
        moved, kept = [], list(attrs)
        for k in self._factors:
            factor = attrs[k]
            if factor.__class__ is not int and not (factor.__class__ is float and factor == 1):
                kept[k] = MOVED
                moved.append(python_number(factor) if hasattr(factor, "item") else factor)
        return (*operands, *moved), tuple(map(hashable, kept))

    def _missing(self, kwargs: dict[str, Any]) -> Callable[[str], Any]:
        def value(name: str) -> Any:
            if name in kwargs:
                return kwargs[name]
            if name in self.optional:
                return self.optional[name]
            raise ArgumentError(f"{self.shown}() needs the tensor {name!r}", where=here())

        return value

    def emit_on(self, operands: tuple[Any, ...], attrs: tuple[Any, ...]) -> tuple[Node, ...]:
        """Emit IR for nodes, Weaks and Nones; always a tuple of nodes."""
        if None in operands:
            self._refuse_none(operands)
        if MOVED in attrs:
            moved = iter(operands[-attrs.count(MOVED) :])
            operands = operands[: -attrs.count(MOVED)]
            attrs = tuple(next(moved) if a is MOVED else a for a in attrs)
        for k, name in self._whole:
            if isinstance(attrs[k], (float, bool)):
                raise ArgumentError(f"{self.shown}(): {name} is {attrs[k]!r}, not an integer")
        try:
            named = dict(zip(self._static_names, attrs))
            out = self.emit(*operands, **named)
            if self.rounds_once:
                out = rounded_once(out, lambda *wide: self.emit(*wide, **named), operands)
        except TracegradError:
            raise
        except (TypeError, ValueError, LookupError, ArithmeticError) as error:
            given = ", ".join(f"{k}={v!r}" for k, v in zip(self._static_names, attrs))
            kind = ArgumentError if isinstance(error, TypeError) else InvalidValueError
            raise kind(
                f"{self.shown}({given}): {error}", fix="check these arguments and the shapes"
            ) from error
        return (out,) if isinstance(out, Node) else tuple(out)

    def _refuse_none(self, operands: tuple[Any, ...]) -> None:
        """Raises ArgumentError for a None that stands for no default."""
        names = [*self.operands, *["an operand"] * (len(operands) - len(self.operands))]
        for name, given in zip(names, operands):
            if given is None and name not in self.optional:
                raise ArgumentError(
                    f"{self.shown}(): {name} is None, a tensor or a number is needed",
                    fix="look where it comes from: a function without `return` gives None",
                )

    def pack(self, results: list[Any]) -> Any:
        if self.results is not None:
            return self.results(*results)
        return results[0] if len(results) == 1 else tuple(results)


def rounded_once(out: Node, emit: Callable[..., Node], operands: tuple[Any, ...]) -> Node:
    """`out` of `emit`; where it is a 16-bit float, emitted anew in float32 and rounded at the end."""
    if wide_dtype(out.dtype) is out.dtype:
        return out
    return to(emit(*[wide(n) if isinstance(n, Node) else n for n in operands]), out.dtype)


NUMBER_OF = {"bool": bool, "int": int, "float": float, "complex": complex}
_PLAIN = frozenset((int, float, str, bool, type(None), DType))


def binder(op: UserOp, count: int, *names: str) -> Callable[[tuple, dict[str, Any]], tuple]:
    """`op.bind` for calls with `count` positional arguments and these names, as one expression."""
    known = [*op.operands, *op.static]
    given = {name: f"args[{k}]" for k, name in enumerate(known[:count])}
    if count > len(known) or any(name in given or name not in known for name in names):
        return op.bind  # varargs of sizes, or a mistake
    given.update({name: f"kwargs[{name!r}]" for name in names})
    constants = {**op.optional, **dict(zip(op.static, op.default_attrs))}
    if any(constants.get(name, REQUIRED) is REQUIRED for name in known if name not in given):
        return op.bind
    operands = "".join(f"{given.get(name, f'c[{name!r}]')}, " for name in op.operands)
    factors = any(list(op.static)[k] in given for k in op._factors)
    attrs = "".join(
        f"c[{name!r}], "
        if name not in given
        else f"{given[name]}, "
        if factors
        else f"{given[name]} if {given[name]}.__class__ in plain else hashable({given[name]}), "
        for name in op.static
    )
    last = f"({attrs})" if any(name in given for name in op.static) else "default"
    text = f"(({operands}), {last})"
    text = f"lambda args, kwargs: {f'apart{text}' if factors else text}"
    # our own text: parameter names of emit functions
    scope = {
        "c": constants, "plain": _PLAIN, "hashable": hashable, "default": op.default_attrs,
        "apart": op._apart,
    }  # fmt: skip
    found = op._forms[(count, *names)] = eval(compile(text, "<tracegrad call>", "eval"), scope)
    return found


def python_number(value: Any) -> Any:
    """That of a tensor or array of one element."""
    if isinstance(value, np.ndarray) and value.size != 1:
        raise ArgumentError(
            f"an array of shape {list(value.shape)} is given where a number is needed",
            fix="give numbers of Python's: array.tolist()",
        )
    return value.item()


def hashable(value: Any) -> Any:
    """Attributes are part of cache keys: lists become tuples, NumPy numbers Python numbers."""
    if value.__class__ in _PLAIN:
        return value
    if value.__class__ is type:
        return OF_PYTHON.get(value, value)
    if value.__class__ is tuple:
        for part in value:
            if part.__class__ not in _PLAIN:
                return tuple(map(hashable, value))
        return value
    if isinstance(value, (list, tuple)):
        return tuple(map(hashable, value))
    if isinstance(value, np.generic | np.ndarray):
        return python_number(value)
    if hasattr(value, "__index__") and not isinstance(value, int):
        # A tensor of one element, or a number of the trace, which becomes a guard.
        dtype = getattr(value, "dtype", None)
        return (int if dtype is None else NUMBER_OF[dtype.category])(value)
    return value


def user_op(
    emit: Callable[..., Any] | None = None,
    *,
    results: tuple[str, ...] = (),
    eager_only: str = "",
    stores: str = "",
    shown: str = "",
    rounds_once: bool = False,
) -> Any:
    """Decorator that makes a user-level op of an emit function.

    results      names of a several-result op's fields (a named tuple, as in torch.return_types)
    eager_only   why the op cannot be recorded (a data-dependent shape); then the function gets
                 NumPy arrays
    stores       "exact" if numbers among the operands must fit the result's dtype, "wide" if
                 16-bit floats may overflow to inf
    shown        the name that users call it by, where it is only a part of that function
    rounds_once  of one result, several steps: 16-bit floats go through them in float32, as in
                 PyTorch's kernels
    """
    if emit is None:
        return lambda function: UserOp(function, results, eager_only, stores, shown, rounds_once)
    return UserOp(emit)


def apply(op: Any, operands: tuple[Any, ...], attrs: tuple[Any, ...] = ()) -> Any:
    """Run (eager) or record one user-level op."""
    mode = get_mode()
    try:
        if mode.trace is not None:
            return mode.trace.apply(op, operands, attrs)
        return _run_eager(op, operands, attrs, mode.grad)
    except BackendError as error:
        if mode.trace is not None:
            raise
        # The program's own line is that of its first call.
        raise error.located(error.op, here()) from error.__cause__
    except OverflowError as error:
        raise InvalidValueError(
            f"{name_of(op)}(): a number is too large: {error}", fix="use floats, or smaller numbers"
        ) from error
    except TypeError:
        refuse_unhashable(op, attrs)
        raise


def name_of(op: Any) -> str:
    return str(getattr(op, "shown", None) or op.name).rpartition(".")[2]


def refuse_unhashable(op: Any, attrs: tuple[Any, ...]) -> None:
    """Raise ArgumentError for a set or a dict among the attributes, which are parts of keys."""
    for value in attrs:
        try:
            hash(value)
        except TypeError:
            raise ArgumentError(
                f"{name_of(op)}(): {value!r} is {type(value).__name__}, not a number, a name or a tuple"
            ) from None


def _run_eager(op: Any, operands: tuple[Any, ...], attrs: tuple[Any, ...], grad: bool) -> Any:
    """`eager.run_eager`, which needs this module first; found at the first call."""
    global _run_eager
    from tracegrad.tracer.eager.run import run_eager

    _run_eager = run_eager
    return run_eager(op, operands, attrs, grad)
