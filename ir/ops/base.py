"""The registry of ops, and the type rules and cost rules that whole families share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tracegrad.ir.errors import IRError, IRTypeError
from tracegrad.ir.graph import Node, Op
from tracegrad.ir.ops.traits import TRAITS
from tracegrad.ir.types import DType, TensorType, bool_, i64

OPS: dict[str, Op] = {}


def register(op: Op) -> Op:
    """Enter `op` into the registry and return it. Raises IRError for an incomplete paragraph."""
    if op.name in OPS:
        raise IRError(f"op {op.name!r} is registered twice")
    if op.infer is None:
        raise IRError(f"op {op.name!r} has no type rule; give infer=")
    if (op.vjp is None and op.decompose is None) == (not op.not_differentiable):
        raise IRError(f"op {op.name!r} needs a vjp, a decompose or the reason why it has none")
    unknown = op.traits - TRAITS
    if unknown:
        raise IRError(f"op {op.name!r} has unknown traits {sorted(unknown)}; see ir/ops/traits.py")
    OPS[op.name] = op
    return op


def traits(*names: str) -> frozenset[str]:
    return frozenset(names)


# ---------------------------------------------------------------- checks that type rules share


def require(condition: bool, message: str) -> None:
    if not condition:
        raise IRTypeError(message)


def tensor(x: Any, what: str = "input") -> TensorType:
    """`x` if it is the type of a tensor; a tuple must go through `proj` first."""
    if not isinstance(x, TensorType):
        raise IRTypeError(f"{what} must be a tensor, not {x}; take its parts with proj")
    return x


def equal_types(*types: TensorType) -> TensorType:
    first = tensor(types[0])
    for other in types[1:]:
        if other is not first and other != first:
            raise IRTypeError(f"types differ: {', '.join(map(str, types))}")
    return first


def of_category(x: TensorType, categories: str) -> TensorType:
    """`categories` is a string of initials: "fc" accepts floats and complex numbers."""
    if tensor(x).dtype.category[0] not in categories:
        names = [n for n in ("bool", "int", "float", "complex") if n[0] in categories]
        raise IRTypeError(f"takes {' or '.join(names)} elements, not {x.dtype.name}")
    return x


def index_type(x: TensorType, what: str = "index") -> TensorType:
    if tensor(x).dtype is not i64:
        raise IRTypeError(f"{what} must be i64, not {x}")
    return x


def checked_axes(axes: Any, ndim: int) -> tuple[int, ...]:
    """`axes` if it is a sorted tuple of distinct ints in [0, ndim)."""
    if not isinstance(axes, tuple):
        raise IRTypeError(f"axes must be a tuple of ints, not {axes!r}")
    before = -1
    for axis in axes:
        if type(axis) is not int:
            raise IRTypeError(f"axes must be a tuple of ints, not {axes!r}")
        if not before < axis < ndim:
            raise IRTypeError(f"axes {axes} must be sorted, distinct and in [0, {ndim})")
        before = axis
    return axes


def checked_axis(axis: Any, ndim: int) -> int:
    if type(axis) is not int or not 0 <= axis < ndim:
        raise IRTypeError(f"axis must be an int in [0, {ndim}), not {axis!r}")
    return axis


def checked_ints(values: Any, count: int | None, what: str, low: int | None = 0) -> tuple[int, ...]:
    """`values` if it is a tuple of `count` ints (None: any number) not below `low`."""
    if not isinstance(values, tuple) or not all(type(value) is int for value in values):
        raise IRTypeError(f"{what} must be a tuple of ints, not {values!r}")
    if count is not None and len(values) != count:
        raise IRTypeError(f"{what} {values} must have {count} entries, one per axis")
    if low is not None and any(value < low for value in values):
        raise IRTypeError(f"{what} {values} must not be below {low}")
    return values


def checked_dtype(dtype: Any) -> DType:
    if not isinstance(dtype, DType):
        raise IRTypeError(f"dtype must be a DType object, not {dtype!r}")
    return dtype


def without_axes(shape: tuple[int, ...], axes: Iterable[int]) -> tuple[int, ...]:
    dropped = set(axes)
    return tuple(size for axis, size in enumerate(shape) if axis not in dropped)


# ---------------------------------------------------------------- type rules


def same_type(categories: str, count: int = 1) -> Callable[..., TensorType]:
    """`count` tensors of one type, of these categories; the result has that type."""
    if count == 1:
        return lambda x: of_category(x, categories)
    if count == 2:
        return lambda x, y: of_category(equal_types(x, y), categories)
    raise AssertionError(count)


same_float_type = same_type("f")
same_float_types = same_type("f", 2)


def to_bool(categories: str, count: int = 1) -> Callable[..., TensorType]:
    """Like same_type, with a bool result."""
    rule = same_type(categories, count)
    return lambda *types: rule(*types).with_dtype(bool_)


def along_axis(categories: str) -> Callable[..., TensorType]:
    """One tensor and an `axis` it has; the result has the same type."""

    def infer(x: TensorType, axis: int) -> TensorType:
        of_category(x, categories)
        checked_axis(axis, x.ndim)
        return x

    return infer


# ---------------------------------------------------------------- costs


def no_flops(node: Node) -> float:
    """Moves elements only."""
    return 0.0


def input_flops(node: Node) -> float:
    """One operation per element of the first input."""
    return float(node.inputs[0].type.size)


def output_flops(count: float) -> Callable[[Node], float]:
    """`count` operations per output element; an estimate for special functions."""
    return lambda node: count * float(node.type.size)
