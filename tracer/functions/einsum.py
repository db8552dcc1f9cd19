"""einsum: parsed to transposes, reshapes and matrix products, contracted from left to right."""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import Any

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node
from tracegrad.ir.types import i64
from tracegrad.tracer.dispatch import apply, user_op
from tracegrad.tracer.functions.axes import reshape, transpose
from tracegrad.tracer.functions.promotion import as_node, cast, promote_types, require_same_dtype
from tracegrad.tracer.functions.reductions import summed

Labels = tuple[Any, ...]  # letters, and ints for the axes of an ellipsis


def parse(equation: str, ndims: list[int]) -> tuple[list[Labels], Labels]:
    """Labels of every operand and of the result. Raises IRTypeError for a malformed equation.

    The axes of an ellipsis get negative ints, counted from the right, so that shorter ones align.
    """
    equation = equation.replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(ndims):
        raise IRTypeError(f"einsum({equation!r}) names {len(terms)} operands, {len(ndims)} given")
    operands = [_labels(term, ndim, equation) for term, ndim in zip(terms, ndims)]
    hidden = sorted({label for labels in operands for label in labels if isinstance(label, int)})
    if arrow:
        before, dots, after = right.partition("...")
        result = (*before, *(hidden if dots else ()), *after)
    else:
        counts = Counter(letter for term in terms for letter in term if letter != ".")
        result = (*hidden, *sorted(letter for letter, n in counts.items() if n == 1))
    known = {label for labels in operands for label in labels}
    if len(set(result)) < len(result) or not known.issuperset(result):
        raise IRTypeError(
            f"einsum({equation!r}): the result repeats a letter or has an unknown one"
        )
    return operands, result


def _labels(term: str, ndim: int, equation: str) -> Labels:
    before, dots, after = term.partition("...")
    letters = before + after
    hidden = ndim - len(letters)
    if not all(map(str.isalpha, letters)) or hidden < 0 or (hidden and not dots):
        raise IRTypeError(
            f"einsum({equation!r}): {term!r} does not describe a tensor of {ndim} dimensions"
        )
    return (*before, *range(-hidden, 0), *after)


def diagonal(x: Node, labels: Labels) -> tuple[Node, Labels]:
    """Repeated letters of one operand: the diagonal."""
    for label in [label for label, n in Counter(labels).items() if n > 1]:
        axes = tuple(k for k, other in enumerate(labels) if other == label)
        size = x.shape[axes[0]]
        if any(x.shape[a] != size for a in axes):
            raise IRTypeError(
                f"einsum: {label!r} has several sizes in an operand of shape {list(x.shape)}"
            )
        index = ops.iota(shape=(size,), axis=0, dtype=i64)
        x = ops.gather(x, *(index,) * len(axes), axes=axes)
        labels = (label, *(other for other in labels if other != label))
    return x, labels


def contract(x: Node, a: Labels, y: Node, b: Labels, needed: set[Any]) -> tuple[Node, Labels]:
    """One product of two operands, summed over labels in both that nothing else needs."""
    x, a = _summed_out(x, a, needed | set(b), wide=False)
    y, b = _summed_out(y, b, needed | set(a), wide=False)
    dtype = promote_types(x.dtype, y.dtype)
    x, y = cast(x, dtype), cast(y, dtype)
    shared = [label for label in a if label in b]
    batch = [label for label in shared if label in needed]
    inner = [label for label in shared if label not in needed]
    left = [label for label in a if label not in shared]
    right = [label for label in b if label not in shared]
    sizes = {**dict(zip(b, y.shape)), **dict(zip(a, x.shape))}
    groups = {"batch": batch, "inner": inner, "left": left, "right": right}
    shape = {group: prod(sizes[label] for label in labels) for group, labels in groups.items()}
    x = transpose(x, tuple(a.index(label) for label in (*batch, *left, *inner)))
    y = transpose(y, tuple(b.index(label) for label in (*batch, *inner, *right)))
    if inner:
        outer_shape = (shape["batch"],) if batch else ()
        product = ops.matmul(
            reshape(x, (*outer_shape, shape["left"], shape["inner"])),
            reshape(y, (*outer_shape, shape["inner"], shape["right"])),
        )
    else:
        whole = (shape["batch"], shape["left"], shape["right"])
        product = ops.mul(
            ops.broadcast_to(reshape(x, whole[:2]), shape=whole, dims=(0, 1)),
            ops.broadcast_to(reshape(y, (whole[0], whole[2])), shape=whole, dims=(0, 2)),
        )
    labels = (*batch, *left, *right)
    return reshape(product, tuple(sizes[label] for label in labels)), labels


def _summed_out(x: Node, labels: Labels, needed: set[Any], wide: bool) -> tuple[Node, Labels]:
    """A sum over labels that nothing else needs: of integers in int64, as every sum of PyTorch's.

    Where it drops axes of one element alone, only a `wide` one is.
    """
    axes = tuple(k for k, label in enumerate(labels) if label not in needed)
    if not x.dtype.is_inexact and any(wide or x.shape[k] != 1 for k in axes):
        x = cast(x, i64)
    return summed(x, axes), tuple(label for label in labels if label in needed)


@user_op
def einsum_(*operands: Any, equation: str) -> Node:
    """The sum of products that an equation such as "bij,bjk->bik" describes."""
    nodes = [as_node(x) for x in operands]
    require_same_dtype("einsum", *nodes)
    labels, result = parse(equation, [node.ndim for node in nodes])
    pairs = [diagonal(node, own) for node, own in zip(nodes, labels)]
    full: dict[Any, int] = {}
    for node, own in pairs:
        for label, size in zip(own, node.shape):
            known = full.setdefault(label, size)
            if 1 not in (known, size) and known != size:
                raise IRTypeError(f"einsum({equation!r}): {label!r} has sizes {known} and {size}")
            full[label] = max(known, size) if known and size else 0
    pairs = [_expanded(node, own, full) for node, own in pairs]
    x, own = pairs[0]
    for k, (y, other) in enumerate(pairs[1:], start=2):
        needed = set(result).union(*(labels for _, labels in pairs[k:]))
        x, own = contract(x, own, y, other, needed)
    x, own = _summed_out(x, own, set(result), wide=True)
    return transpose(x, tuple(own.index(label) for label in result))


def _expanded(x: Node, labels: Labels, full: dict[Any, int]) -> tuple[Node, Labels]:
    """Size-1 axes broadcast to the label's size."""
    shape = tuple(full[label] for label in labels)
    if shape != x.shape:
        x = ops.broadcast_to(x, shape=shape, dims=tuple(range(x.ndim)))
    return x, labels


def einsum(equation: str, *operands: Any) -> Any:
    """The sum of products that `equation` describes: einsum("bij,bjk->bik", x, y)."""
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    return apply(einsum_, operands, (equation,))


PLAIN = (einsum,)
