"""Python numbers that stay in the graph: `loss.item()`, and hyper-parameters read while recording.

Not a float subclass: `math.sqrt` and `range` would bypass a subclass's operators. Arithmetic emits
IR in float64 or int64 (Python's own precision); a comparison makes a guard on its answer; converting
to a real Python number, and whatever only Python's numbers can do, guards the exact bits.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable
from numbers import Number
from typing import Any, NoReturn

import numpy as np

from tracegrad.ir import loc as _loc
from tracegrad.ir import ops
from tracegrad.ir.graph import Node
from tracegrad.ir.hazards import DIVISION
from tracegrad.ir.types import bool_, f64, i64
from tracegrad.tracer.errors import LeakedTensorError
from tracegrad.tracer.locate import here, is_own_code
from tracegrad.tracer.state import get_default_dtype, get_mode


class TracedNumber:
    """A number of the running trace: `node` is 0-d f64, i64 or bool.

    `host` reads it outside the graph, if it can.
    """

    __slots__ = ("trace", "node", "category", "host")
    _traced_number = True

    def __init__(
        self, trace: Any, node: Node, category: str, host: Callable[[], Any] | None = None
    ):
        self.trace, self.node, self.category, self.host = trace, node, category, host

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """To `isinstance` outside this library a number is what it is in eager mode."""
        asker = sys._getframe(1)
        own = asker.f_globals.get("__name__", "").startswith("tracegrad.")
        own = own or asker.f_code.co_filename.startswith("<tracegrad")  # text that we compile
        return TracedNumber if own else PYTHON_TYPES[self.category]

    def live(self) -> TracedNumber:
        """The number in the running trace. Raises LeakedTensorError outside its own."""
        trace = get_mode().trace
        if trace is self.trace:
            return self
        if trace is None:
            self.leaked()
        return trace.own_number(self)

    def leaked(self) -> NoReturn:
        raise LeakedTensorError(
            "a number read from a tensor inside a compiled function is used outside its trace", where=here(),
            why="it stands for a value of the graph", fix=self.trace.way_out,
        )  # fmt: skip

    @property
    def dtype(self) -> Any:
        return get_default_dtype() if self.category == "float" else self.node.dtype

    def as_tensor(self, dtype: Any = None) -> Any:
        """The number as a 0-d tensor (float32 unless dtype says otherwise)."""
        number = self.live()
        with _loc.at(here()):
            node = ops.cast(number.node, dtype=dtype or self.dtype)
        return number.trace.fresh(node)

    def _binary(self, other: Any, kind: str, reflected: bool) -> Any:
        if not isinstance(other, _NUMBERS):
            return NotImplemented
        if not isinstance(other, _IN_GRAPHS):
            value = self._exact(f"arithmetic with {type(other).__name__}")
            operation = getattr(operator, kind)
            return operation(other, value) if reflected else operation(value, other)
        number = self.live()
        trace = number.trace
        with _loc.at(here()):
            a, b = number, trace.as_number(other)
            if reflected:
                a, b = b, a
            if kind in _RAISE and not is_own_code(sys._getframe(2).f_code):
                if kind in _DIVISIONS:
                    b = b._as_divisor()
                elif trace.is_tried():  # Python is to know whether it raises
                    return trace.as_number(a._exact("a power") ** b._exact("a power"))
            return trace.number(*arithmetic(kind, a, b))

    def _compare(self, other: Any, kind: Callable[[Any, Any], bool]) -> Any:
        number = self.live()
        trace = number.trace
        if not isinstance(other, _NUMBERS):
            return NotImplemented
        if not isinstance(other, _IN_GRAPHS):
            return kind(self._exact(f"comparison with {type(other).__name__}"), other)
        if not isinstance(other, TracedNumber) and (host := trace.host_of(number)) is not None:
            return trace.guard_host(host, kind, other)
        with _loc.at(here()):
            a, b = match(number, trace.as_number(other))
            node = COMPARE[kind](a, b)
        return trace.guard_bool(node)

    def __neg__(self) -> Any:
        number = self.live()
        with _loc.at(here()):
            return number.trace.number(ops.neg(number._numeric()), self._up())

    def __abs__(self) -> Any:
        number = self.live()
        with _loc.at(here()):
            return number.trace.number(ops.abs_(number._numeric()), self._up())

    def __pos__(self) -> Any:
        return self._binary(0, "add", False) if self.category == "bool" else self

    def _as_divisor(self) -> TracedNumber:
        """Raises ZeroDivisionError, as Python does, where Python can know or has to: in a `try`.
        Elsewhere the run raises DivisionByZero.
        """
        trace = self.trace
        if (host := trace.host_of(self)) is not None:
            known = trace.guard_host(host, operator.ne, 0)
        elif self.node.op is ops.constant:
            known = bool(self.node.attrs.value.splat)
        else:
            known = bool(self) if trace.is_tried() else None
        if known is False:
            raise ZeroDivisionError("division by zero")
        if known:
            return self
        ok = ops.bitwise_not(ops.eq(self.node, ops.splat(0, self.node.type)))
        passed = ops.check(ok, message="a number was divided by zero", kind=DIVISION)
        divisor = ops.where(passed, self.node, ops.splat(1, self.node.type))
        return TracedNumber(trace, divisor, self.category)

    def _numeric(self) -> Node:
        return ops.cast(self.node, dtype=i64) if self.category == "bool" else self.node

    def _up(self) -> str:
        return "int" if self.category == "bool" else self.category

    def __bool__(self) -> bool:
        number = self.live()
        trace = number.trace
        if (host := trace.host_of(number)) is not None:
            return trace.guard_host(host, truth, None)
        node = number.node
        with _loc.at(here()):
            node = node if self.category == "bool" else ops.cast(node, dtype=bool_)
        return trace.guard_bool(node)

    def _exact(self, why: str) -> Any:
        number = self.live()
        trace = number.trace
        if (host := trace.host_of(number)) is not None:
            value = host()
            trace.guard_host(host, same_bits, value)
            return value
        return trace.guard_bits(number.node, why).item()

    def __float__(self) -> float:
        return float(self._exact("float()"))

    def __int__(self) -> int:
        return int(self._exact("int()"))

    def __index__(self) -> int:
        if self.category == "float":
            raise TypeError("a float cannot be used as an index")
        return int(self._exact("use as an index"))

    def __hash__(self) -> int:
        return hash(self._exact("hash()"))

    def __format__(self, spec: str) -> str:
        return format(self._exact("formatting"), spec)

    def __repr__(self) -> str:
        if get_mode().trace is None:  # a debugger, or the message of an error
            return f"<traced {self.category}>"
        return repr(self._exact("repr()"))

    def __deepcopy__(self, memo: dict[int, Any]) -> TracedNumber:
        return self  # as Python's numbers

    def __str__(self) -> str:
        return str(self._exact("str()"))

    def __round__(self, digits: int | None = None) -> Any:
        return round(self._exact("round()"), digits)

    def __trunc__(self) -> int:
        return math.trunc(self._exact("trunc()"))

    def __floor__(self) -> int:
        return math.floor(self._exact("floor()"))

    def __ceil__(self) -> int:
        return math.ceil(self._exact("ceil()"))

    __array_priority__ = 1000  # NumPy's numbers on the left leave arithmetic to us

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self._exact("np.asarray()"), dtype)

    def __getattr__(self, name: str) -> Any:
        """What Python's numbers have beside operators: `real`, `bit_length()`, .."""
        if name.startswith("_") or not hasattr(PYTHON_TYPES[self.category], name):
            raise AttributeError(f"a traced {self.category} has no attribute {name!r}", name=name)
        return getattr(self._exact(f".{name}"), name)

    def item(self) -> TracedNumber:
        return self

    def is_integer(self) -> bool:
        return float(self).is_integer()


_DIVISIONS = ("truediv", "floordiv", "mod")
_RAISE = (*_DIVISIONS, "pow")
# Operands that a number of a graph takes; and those that it takes as what it is in Python.
_IN_GRAPHS = (int, float, np.bool_, np.integer, np.floating, TracedNumber)
_NUMBERS = (Number, np.generic, np.ndarray, TracedNumber)
PYTHON_TYPES = {"bool": bool, "int": int, "float": float}


def truth(value: Any, _: Any) -> bool:
    """`if number:` as a comparison."""
    return bool(value)


def is_a(value: Any, category: str) -> bool:
    """Whether a value is a number of "float" or "int" category."""
    if category == "float":
        return isinstance(value, float | np.floating)
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def same_bits(value: Any, expected: Any) -> bool:
    """Equal type and bits: nan is itself, -0.0 is not 0.0."""
    if type(value) is not type(expected):
        return False
    if isinstance(value, float):
        return math.copysign(1, value) == math.copysign(1, expected) and (
            value == expected or (value != value and expected != expected)
        )
    return bool(value == expected)


def match(a: TracedNumber, b: TracedNumber) -> tuple[Node, Node]:
    """Both as f64, or both as i64."""
    dtype = f64 if "float" in (a.category, b.category) else i64
    return ops.cast(a.node, dtype=dtype), ops.cast(b.node, dtype=dtype)


def arithmetic(kind: str, a: TracedNumber, b: TracedNumber) -> tuple[Node, str]:
    """Python's arithmetic: `/` is float, `**` of ints is one of ints if the exponent is not negative:
    a guard.
    """
    x, y = match(a, b)
    category = "float" if x.dtype is f64 else "int"
    if category == "int" and (kind == "truediv" or (kind == "pow" and negative(b))):
        x, y, category = ops.cast(x, dtype=f64), ops.cast(y, dtype=f64), "float"
    return ARITHMETIC[kind](x, y), category


def negative(number: TracedNumber) -> bool:
    """Whether it is below 0: known of a constant, else a guard."""
    if number.node.op is ops.constant:
        return bool(number.node.attrs.value.splat < 0)
    return bool(number._compare(0, operator.lt))


ARITHMETIC: dict[str, Any] = {  # by the name in `operator`
    "add": ops.add, "sub": ops.sub, "mul": ops.mul, "truediv": ops.div, "pow": ops.pow_,
    "floordiv": ops.floor_div, "mod": ops.rem,
}  # fmt: skip
COMPARE: dict[Any, Any] = {
    operator.lt: ops.lt,
    operator.le: ops.le,
    operator.gt: lambda a, b: ops.lt(b, a),
    operator.ge: lambda a, b: ops.le(b, a),
    operator.eq: ops.eq,
    operator.ne: lambda a, b: ops.bitwise_not(ops.eq(a, b)),
}


def _install() -> None:
    def forward(kind: str) -> Any:
        return lambda self, other: self._binary(other, kind, False)

    def backward(kind: str) -> Any:
        return lambda self, other: self._binary(other, kind, True)

    def compare(kind: Any) -> Any:
        return lambda self, other: self._compare(other, kind)

    def exact(name: str) -> Any:
        """An operator that Python's numbers have, but no graph."""

        def method(self: TracedNumber, *others: Any) -> Any:
            value, *rest = (
                n._exact(f"{name}()") if isinstance(n, TracedNumber) else n for n in (self, *others)
            )
            return getattr(type(value), name, lambda *_: NotImplemented)(value, *rest)

        return method

    for kind in ARITHMETIC:
        setattr(TracedNumber, f"__{kind}__", forward(kind))
        setattr(TracedNumber, f"__r{kind}__", backward(kind))
    for comparison in COMPARE:
        setattr(TracedNumber, f"__{comparison.__name__}__", compare(comparison))
    both = ("and", "or", "xor", "lshift", "rshift", "divmod")
    for python in ("invert", *both, *(f"r{python}" for python in both)):
        setattr(TracedNumber, f"__{python}__", exact(f"__{python}__"))


# Assigning __eq__ after the class body keeps the class hashable: __hash__ guards the exact value.
_install()
