"""Rewrite rules of arithmetic, selection and conversion.

Rules without `assumes` give the same values for every input, the sign of zero included: that is
why `x + 0` is here for integers and `x + (-0.0)` for floats, but not `x + 0.0`, which turns -0.0
into 0.0. (The sign and payload of a nan are not values.)
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, Node, placeholder
from tracegrad.ir.ops.source import splat as splat_node
from tracegrad.ir.types import DType, TensorType, bf16, bool_, c64, c128, f16, f32, f64, i32, i64
from tracegrad.passes.rules.patterns import Match, boolean, op, splat, splat_value, var
from tracegrad.passes.rules.rewrite import Rule, rule

x, y, a, b = var("x"), var("y"), var("a"), var("b")
cond = boolean("cond")
c, d = splat("c"), splat("d")


def _is_power_of_two(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value) and abs(math.frexp(value)[0]) == 0.5


def _reciprocal_is_exact(found: Match) -> bool:
    """1/c is a normal number of the dtype, so x / c and x * (1/c) round the same real number."""
    value = splat_value(found["c"])
    if not _is_power_of_two(value):
        return False
    reciprocal = np.array(1.0 / value, found.root.dtype.np)
    smallest = {f16: 2.0**-14, bf16: 2.0**-126, f32: 2.0**-126, f64: 2.0**-1022}
    exact = float(reciprocal) == 1.0 / value
    return exact and bool(abs(1.0 / value) >= smallest[found.root.dtype])


def _is_not_float16(found: Match) -> bool:
    return found.root.dtype is not f16


def _with_splat(name: str, value: float, dtype: DType = f32) -> Graph:
    """op(x, splat of value)."""
    node = placeholder(TensorType((3, 4), dtype))
    return Graph((node,), (ops.op_named(name)(node, splat_node(value, node.type)),))


def _fold_splats(found: Match) -> Node:
    """mul(mul(x, c), d) -> mul(x, c * d), the product rounded to the dtype."""
    product = splat_value(found["c"]) * splat_value(found["d"])
    return ops.mul(found.x, splat_node(product, found.root.type))


def _add_splats(found: Match) -> Node:
    total = splat_value(found["c"]) + splat_value(found["d"])
    return ops.add(found.x, splat_node(total, found.root.type))


def _zero(found: Match) -> Node:
    return splat_node(0, found.root.type)


def _second_is_constant(found: Match) -> bool:
    # Constants last; with two constants nothing is gained, and the rule would turn for ever.
    return splat_value(found["x"]) is None


IDENTITIES: tuple[Rule, ...] = (
    rule("mul-one", x * 1, to=x),
    rule("div-one", x / 1, to=x, dtypes="fc"),
    rule("add-zero", x + 0, to=x, dtypes="i"),
    rule("add-minus-zero", x + -0.0, to=x, dtypes="f"),
    rule("sub-zero", x - 0, to=x, dtypes="if"),
    rule("neg-neg", op("neg", -x), to=x),
    rule("add-neg", x + (-y), to=x - y, dtypes="if"),
    rule("sub-neg", x - (-y), to=x + y, dtypes="if"),
    rule("mul-neg-neg", (-x) * (-y), to=x * y, dtypes="if"),
    rule("mul-minus-one", x * -1, to=-x, dtypes="f"),
    rule("abs-neg", op("abs", -x), to=op("abs", x), dtypes="f"),
    rule("abs-abs", op("abs", op("abs", x)), to=op("abs", x), dtypes="f"),
    rule("maximum-same", op("maximum", x, x), to=x),
    rule("minimum-same", op("minimum", x, x), to=x),
    rule("mul-zero-int", x * 0, to=_zero, dtypes="i"),
    rule("sub-self-int", x - x, to=_zero, dtypes="i"),
    # x / 2^k and x * 2^-k round the same real number; a multiplication is several times faster.
    rule(
        "div-power-of-two",
        x / c,
        to=lambda m: ops.mul(m.x, splat_node(1.0 / splat_value(m["c"]), m.root.type)),
        dtypes="f",
        when=_reciprocal_is_exact,
        examples=(lambda: _with_splat("div", 4.0), lambda: _with_splat("div", -0.5)),
    ),
    rule("pow-one", op("pow", x, 1), to=x, dtypes="if"),
    rule("pow-two", op("pow", x, 2), to=x * x, dtypes="if"),
    # float16 rounds once, as in PyTorch; bfloat16 rounds the square, too.
    rule(
        "pow-three",
        op("pow", x, 3),
        to=x * x * x,
        dtypes="if",
        when=_is_not_float16,
        examples=tuple(partial(_with_splat, "pow", 3, dtype) for dtype in (f32, f64, bf16, i64)),
    ),
    rule("pow-minus-one", op("pow", x, -1), to=1 / x, dtypes="f"),
)

LOGIC: tuple[Rule, ...] = (
    rule("not-not", op("bitwise_not", op("bitwise_not", x)), to=x),
    rule("and-true", op("and", cond, True), to=cond, dtypes="b"),
    rule("or-false", op("or", cond, False), to=cond, dtypes="b"),
    rule("and-false", op("and", cond, False), to=_zero, dtypes="b"),
    rule("and-same", op("and", x, x), to=x, dtypes="bi"),
    rule("or-same", op("or", x, x), to=x, dtypes="bi"),
    rule("where-true", op("where", True, x, y), to=x),
    rule("where-false", op("where", False, x, y), to=y),
    rule("where-same", op("where", cond, x, x), to=x),
    rule(
        "where-not",
        op("where", op("bitwise_not", cond), x, y),
        to=op("where", cond, y, x),
    ),
)


def _commuted(name: str) -> Rule:
    return rule(
        f"constant-last-{name}",
        op(name, c, x),
        to=op(name, x, c),
        when=lambda m: splat_value(m.root.inputs[0]) is not None and _second_is_constant(m),
        examples=(lambda: _constant_first(name),),
    )


def _constant_first(name: str) -> Graph:
    node = placeholder(TensorType((3, 4), f32))
    return Graph((node,), (ops.op_named(name)(splat_node(2.5, node.type), node),))


CANONICAL: tuple[Rule, ...] = tuple(
    _commuted(name) for name in ("add", "mul", "maximum", "minimum", "eq")
)


# ---------------------------------------------------------------- conversions


def holds_all(narrow: DType, wide: DType) -> bool:
    """Whether every value of `narrow` is a value of `wide`, so that the cast loses nothing."""
    if narrow.is_bool or narrow is wide:
        return True
    if narrow is bf16 or wide is bf16:
        return narrow is bf16 and wide in (f32, f64, c64, c128)
    if narrow.is_int and wide.is_inexact and narrow.itemsize == 8:
        return False  # NumPy calls i64 -> f64 safe, although it rounds
    return bool(np.can_cast(narrow.np, wide.np, casting="safe"))


def _cast_through(found: Match) -> Node | None:
    source, middle, target = found.x.dtype, found["inner"].dtype, found.root.dtype
    # Out of range a float-to-int cast depends on the width it starts from: that stays as written.
    if not holds_all(source, middle) or (middle.is_inexact and not target.is_inexact):
        return None
    return ops.cast(found.x, dtype=target)


def _casts(source: DType, middle: DType, target: DType) -> Graph:
    node = placeholder(TensorType((3, 4), source))
    return Graph((node,), (ops.cast(ops.cast(node, dtype=middle), dtype=target),))


def _cast_to_own() -> Graph:
    node = placeholder(TensorType((3, 4), f32))
    return Graph((node,), (ops.cast(node, dtype=f32),))


def _complex_pair(part: str) -> Graph:
    re, im = (placeholder(TensorType((3, 4), f32)) for _ in range(2))
    return Graph((re, im), (ops.op_named(part)(ops.complex_(re, im)),))


CASTS: tuple[Rule, ...] = (
    rule(
        "cast-same",
        op("cast", x),
        to=x,
        when=lambda m: m.x.dtype is m.root.dtype,
        examples=(_cast_to_own,),
    ),
    rule(
        "cast-cast",
        op("cast", op("cast", x, label="inner")),
        to=_cast_through,
        examples=(
            lambda: _casts(f32, f64, f32),
            lambda: _casts(f16, f32, bf16),
            lambda: _casts(bf16, f32, f16),
            lambda: _casts(i32, i64, f32),
            lambda: _casts(i32, f64, f32),
            lambda: _casts(bool_, i64, f32),
            lambda: _casts(f32, c64, c64),
        ),
    ),
    rule(
        "real-complex",
        op("real", op("complex", a, b)),
        to=a,
        examples=(lambda: _complex_pair("real"),),
    ),
    rule(
        "imag-complex",
        op("imag", op("complex", a, b)),
        to=b,
        examples=(lambda: _complex_pair("imag"),),
    ),
)

# ---------------------------------------------------------------- only where a pass may assume

FINITE = "values are finite"
REASSOCIATE = "the last bit does not matter"
ZERO_SIGN = "the sign of zero does not matter"

ASSUMING: tuple[Rule, ...] = (
    rule("mul-zero", x * 0, to=_zero, dtypes="f", assumes=FINITE),
    rule("sub-self", x - x, to=_zero, dtypes="f", assumes=FINITE),
    rule("add-plus-zero", x + 0, to=x, dtypes="f", assumes=ZERO_SIGN),
    rule("neg-sub", -(x - y), to=y - x, dtypes="f", assumes=ZERO_SIGN),
    rule("log-exp", op("log", op("exp", x)), to=x, dtypes="f", assumes=FINITE),
    rule("mul-mul", x * c * d, to=_fold_splats, dtypes="f", assumes=REASSOCIATE),
    rule("add-add", x + c + d, to=_add_splats, dtypes="f", assumes=REASSOCIATE),
)
