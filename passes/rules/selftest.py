"""Every rule tried on values: the graph before and after, on negatives, zeros, inf and nan.

A rule whose left side has no attributes is instantiated from its pattern in several dtypes; others
bring `examples`. The evaluator is given, since passes know no backend.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tracegrad.ir.errors import IRError, IRTypeError, VerifyError
from tracegrad.ir.graph import Graph, Node, emit, placeholder
from tracegrad.ir.ops.source import splat as splat_node
from tracegrad.ir.types import (
    DType,
    TensorType,
    bf16,
    bool_,
    c64,
    dtype_of,
    f16,
    f32,
    f64,
    i32,
    i64,
)
from tracegrad.ir.verify import verify
from tracegrad.passes.observers import Evaluate, difference
from tracegrad.passes.rules.patterns import Apply, Literal, Pattern, Var
from tracegrad.passes.rules.rewrite import Rewriter, Rule
from tracegrad.passes.sampling import Array

SHAPE = (3, 4)
SPECIAL = (0.0, -0.0, 1.0, -1.0, float("inf"), float("-inf"), float("nan"), 1e-30, -3.5)
_BY_CATEGORY: dict[str, tuple[DType, ...]] = {
    "b": (bool_,), "i": (i32, i64), "f": (f32, f64, f16, bf16), "c": (c64,),
}  # fmt: skip


def self_test(rule: Rule, evaluate: Evaluate, seed: int = 0) -> int:
    """Apply `rule` to its examples and compare values; how many graphs it was tried on.

    Raises VerifyError where the rule does not apply to an example, makes an ill-formed graph or
    changes a value.
    """
    tried = 0
    for graph in instances(rule):
        rewriter = Rewriter((rule,))
        after = rewriter.run(graph)
        if not rewriter.hits[rule.name]:
            raise VerifyError(f"{_called(rule)} does not apply to its example\n{graph}")
        verify(after, f"rule {rule.name!r}")
        for arrays in value_sets(graph, special=not rule.assumes, seed=seed):
            with np.errstate(all="ignore"):
                olds, news = evaluate(graph, arrays), evaluate(after, arrays)
            for old, new in zip(olds, news):
                problem = difference(old, new) or _sign_of_zero(rule, old, new)
                if problem:
                    raise VerifyError(
                        f"{_called(rule)} changes values: {problem}\n"
                        f"before:\n{graph}after:\n{after}"
                    )
        tried += 1
    if not tried:
        raise VerifyError(f"{_called(rule)} has no example and no dtype its pattern can have")
    return tried


def _called(rule: Rule) -> str:
    return f"rule {rule.name!r} ({rule.defined_at})"


def _sign_of_zero(rule: Rule, old: Array, new: Array) -> str:
    if rule.assumes or not rule.keeps_zero_sign or not dtype_of(old.dtype).is_float:
        return ""
    zero = (old == 0) & (new == 0)
    moved = zero & (np.signbit(old) != np.signbit(new))
    return f"{int(moved.sum())} zeros changed sign" if moved.any() else ""


def instances(rule: Rule) -> Iterator[Graph]:
    """The graphs to try a rule on: its examples, or its pattern in every dtype it can have."""
    if rule.examples:
        for example in rule.examples:
            yield example()
        return
    for category in rule.dtypes:
        for dtype in _BY_CATEGORY[category]:
            try:
                yield _from_pattern(rule.lhs, dtype)
            except (IRTypeError, IRError):
                continue  # the ops of the pattern do not take this dtype


def _from_pattern(pattern: Pattern, dtype: DType) -> Graph:
    inputs: dict[str, Node] = {}
    fills: dict[str, Node] = {}

    def build(part: Pattern, kind: DType) -> Node:
        if isinstance(part, Literal):
            return splat_node(part.value, TensorType(SHAPE, kind))
        if isinstance(part, Var):
            if part.kind == "splat":
                filled = splat_node(len(fills) + 2, TensorType(SHAPE, kind))
                return fills.setdefault(part.name, filled)
            if part.name not in inputs:
                own = bool_ if part.kind == "bool" else kind
                inputs[part.name] = placeholder(TensorType(SHAPE, own))
            return inputs[part.name]
        assert isinstance(part, Apply)
        operands = []
        for index, arg in enumerate(part.args):
            choice = part.op.name == "where" and index == 0
            operands.append(build(arg, bool_ if choice else kind))
        return emit(part.op, *operands)

    out = build(pattern, dtype)
    return Graph(tuple(inputs.values()), (out,), tuple(inputs))


def value_sets(graph: Graph, special: bool, seed: int = 0) -> Iterator[Sequence[Array]]:
    """Arrays for the inputs of `graph`: random ones, then (if `special`) every kind of number."""
    random = np.random.default_rng(seed)
    yield [_random(node.type, random) for node in graph.inputs]
    if special:
        yield [_specials(node.type, offset) for offset, node in enumerate(graph.inputs)]
        yield [_specials(node.type, 0) for node in graph.inputs]


def _random(type_: TensorType, random: np.random.Generator) -> Array:
    dtype = type_.dtype
    if dtype.is_bool:
        return np.asarray(random.random(type_.shape) < 0.5)
    if dtype.is_int:
        low = 0 if dtype.np.kind == "u" else -9
        return random.integers(low, 10, type_.shape).astype(dtype.np)
    values = random.normal(0, 2, type_.shape)
    if dtype.is_complex:
        return np.asarray(values + 1j * random.normal(0, 2, type_.shape)).astype(dtype.np)
    return np.asarray(values).astype(dtype.np)


def _specials(type_: TensorType, offset: int) -> Array:
    """Every kind of number, shifted by `offset` so that two inputs meet in different pairs."""
    dtype, size = type_.dtype, type_.size
    if dtype.is_bool:
        return np.asarray(np.arange(offset, offset + size) % 2 == 0).reshape(type_.shape)
    if dtype.is_int:
        info = np.iinfo(dtype.np)
        numbers: tuple[float, ...] = (0, 1, info.max, info.min, 3)
    else:
        numbers = tuple(n for n in SPECIAL if np.isfinite(n)) if dtype.is_complex else SPECIAL
    chosen = [numbers[(index + offset * 2) % len(numbers)] for index in range(size)]
    with np.errstate(all="ignore"):
        return np.array(chosen).astype(dtype.np).reshape(type_.shape)
