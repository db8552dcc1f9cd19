"""The parts of losses that are one op; the rest of a loss is ordinary arithmetic."""

from __future__ import annotations

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node
from tracegrad.ir.ops.build import wide_dtype
from tracegrad.ir.types import i64, u8
from tracegrad.tracer.dispatch import user_op
from tracegrad.tracer.functions.activations import floating
from tracegrad.tracer.functions.checking import required
from tracegrad.tracer.functions.promotion import Operand, as_node, cast, common, require_dtype


def require_classes(name: str, target: Node) -> None:
    """Raise IRTypeError unless `target` has a dtype of class indices: int64, or uint8."""
    if target.dtype not in (i64, u8):
        raise IRTypeError(
            f"{name}() needs class indices of int64, not {target.dtype.public_name}; "
            "use target.long()"
        )


@user_op(shown="binary_cross_entropy")
def binary_cross_entropy_values(input: Operand, target: Operand, /) -> Node:
    """-(t log x + (1 - t) log(1 - x)) of probabilities; each logarithm is cut off at -100."""
    x, t = common(input, target)
    require_dtype("binary_cross_entropy", (x,), "f")
    for value, name in ((x, "input"), (t, "target")):
        legal = ops.and_(ops.le(ops.zeros_like(x), value), ops.le(value, ops.ones_like(x)))
        x = required(x, legal, f"binary_cross_entropy() needs {name} values between 0 and 1")
    return ops.binary_cross_entropy(x, t)


@user_op(shown="gaussian_nll_loss")
def checked_variance(var: Operand, /) -> Node:
    """A variance, none of it below 0."""
    v = as_node(var)
    legal = ops.bitwise_not(ops.lt(v, ops.zeros_like(v)))  # nan passes, as in PyTorch
    return required(v, legal, "gaussian_nll_loss() needs variances of 0 or more")


@user_op(shown="cross_entropy")
def cross_entropy_rows(logits: Operand, target: Operand, /, *, ignore_index: int = -100) -> Node:
    """-log softmax(logits[N, C]) at target[N] (integers), 0 where target is ignore_index."""
    x, classes = floating("cross_entropy", logits), as_node(target)
    require_classes("cross_entropy", classes)
    if x.ndim != 2 or classes.shape != x.shape[:1]:
        raise IRTypeError(
            f"cross_entropy() needs logits[N, C] and target[N], got {list(x.shape)}, "
            f"{list(classes.shape)}"
        )
    return ops.cross_entropy(x, cast(classes, i64), ignore_index=int(ignore_index))


@user_op(shown="cross_entropy")
def cross_entropy_mean(logits: Operand, target: Operand, /, *, ignore_index: int = -100) -> Node:
    """The mean of `cross_entropy_rows` over the rows that are not ignored (nan if all are)."""
    rows = cross_entropy_rows.emit(logits, target, ignore_index=ignore_index)
    wide = wide_dtype(rows.dtype)
    classes = cast(as_node(target), i64)
    ignored = ops.eq(classes, ops.splat(int(ignore_index), classes.type))
    counted = cast(ops.bitwise_not(ignored), wide)
    total = ops.sum_(cast(rows, wide), axes=(0,))
    return cast(ops.div(total, ops.sum_(counted, axes=(0,))), rows.dtype)
