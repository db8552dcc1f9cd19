"""Rewrite rules of blocks put side by side: concatenate, and sums of blocks padded with zeros.

The gradient of a split (`q, k, v = x.split(...)`, or `unbind` over time steps) arrives as a sum of
pads, one per part: as many full-size arrays and additions as there are parts, where one
concatenation does.
"""

from __future__ import annotations

from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, Node, placeholder
from tracegrad.ir.ops.source import splat as splat_node
from tracegrad.ir.types import TensorType, f32
from tracegrad.passes.rules.patterns import Match, op, splat_const, splat_value, var
from tracegrad.passes.rules.rewrite import Rule, rule

x, y = var("x"), var("y")


def zero_padded_axis(pad: Node) -> int | None:
    """The one axis that `pad` grows with zeros and without gaps; None where it does otherwise."""
    if splat_const(pad.inputs[1]) is None or splat_value(pad.inputs[1]) != 0:
        return None
    if any(pad.attrs["interior"]):
        return None
    ends = zip(pad.attrs["low"], pad.attrs["high"])
    grown = [axis for axis, (low, high) in enumerate(ends) if low or high]
    return grown[0] if len(grown) == 1 else None


def _side_by_side(found: Match) -> Node | None:
    """pad(x) + pad(y) -> pad(concatenate(x, y)), where x ends as y begins or the converse."""
    first, second = found["a"], found["b"]
    axis = zero_padded_axis(first)
    if axis is None or axis != zero_padded_axis(second):
        return None
    if first.attrs["low"][axis] > second.attrs["low"][axis]:
        first, second = second, first
    left, right = first.inputs[0], second.inputs[0]
    if first.attrs["low"][axis] + left.shape[axis] != second.attrs["low"][axis]:
        return None
    both = ops.concatenate(left, right, axis=axis)
    low, high = first.attrs["low"], second.attrs["high"]
    return ops.pad(both, first.inputs[1], low=low, high=high, interior=first.attrs["interior"])


def _is_zero_pad(found: Match) -> bool:
    return zero_padded_axis(found["a"]) is not None and zero_padded_axis(found["b"]) is not None


def _flat_concatenate(found: Match) -> Node | None:
    """concatenate(concatenate(a, b), c) -> concatenate(a, b, c)."""
    axis = found.root.attrs["axis"]
    parts: list[Node] = []
    for operand in found.root.inputs:
        nested = operand.op is ops.concatenate and operand.attrs["axis"] == axis
        parts += operand.inputs if nested else (operand,)
    return ops.concatenate(*parts, axis=axis)


def _has_nested(node: Node) -> bool:
    axis = node.attrs.get("axis")
    return node.op is ops.concatenate and any(
        operand.op is ops.concatenate and operand.attrs["axis"] == axis for operand in node.inputs
    )


def _slice_of_concatenate(found: Match) -> Node | None:
    """The slice that is exactly one of the parts is that part."""
    attrs, whole = found.root.attrs, found.x
    axis = whole.attrs["axis"]
    if any(step != 1 for step in attrs["step"]):
        return None
    for other in range(whole.ndim):
        full = attrs["start"][other] == 0 and attrs["stop"][other] == whole.shape[other]
        if other != axis and not full:
            return None
    position = 0
    for part in whole.inputs:
        end = position + part.shape[axis]
        if (position, end) == (attrs["start"][axis], attrs["stop"][axis]):
            return part
        position = end
    return None


def _blocks(sizes: tuple[int, ...], order: tuple[int, ...], left_out: int = 0) -> Graph:
    """Gradient of a split of [2, sum(sizes) + left_out] along axis 1, parts added in `order`."""
    inputs = tuple(placeholder(TensorType((2, size), f32)) for size in sizes)
    zero = splat_node(0, TensorType((), f32))
    total = sum(sizes) + left_out
    pads = []
    for index, node in enumerate(inputs):
        low = sum(sizes[:index])
        high = total - low - sizes[index]
        pads.append(ops.pad(node, zero, low=(0, low), high=(0, high), interior=(0, 0)))
    out = pads[order[0]]
    for index in order[1:]:
        out = ops.add(out, pads[index])
    return Graph(inputs, (out,))


def _nested() -> Graph:
    inputs = tuple(placeholder(TensorType((2, n), f32)) for n in (1, 2, 3))
    a, b, c = inputs
    return Graph(inputs, (ops.concatenate(c, ops.concatenate(a, b, axis=1), axis=1),))


def _cut_again() -> Graph:
    inputs = tuple(placeholder(TensorType((2, n), f32)) for n in (1, 2, 3))
    joined = ops.concatenate(*inputs, axis=1)
    return Graph(inputs, (ops.slice_(joined, start=(0, 1), stop=(2, 3), step=(1, 1)),))


BLOCKS: tuple[Rule, ...] = (
    rule(
        "pads-side-by-side",
        op("add", op("pad", x, var("v"), label="a"), op("pad", y, var("w"), label="b")),
        to=_side_by_side,
        when=_is_zero_pad,
        keeps_zero_sign=False,  # -0.0 + 0.0 is 0.0; the block alone keeps -0.0
        examples=(
            lambda: _blocks((3, 4), (0, 1)),
            lambda: _blocks((2, 3, 4), (2, 1, 0)),
            lambda: _blocks((2, 3), (1, 0), left_out=2),
        ),
    ),
    rule(
        "concatenate-nested",
        var("any", _has_nested, roots=("concatenate",)),
        to=_flat_concatenate,
        examples=(_nested,),
    ),
    rule(
        "slice-concatenate",
        op("slice", var("x", lambda node: node.op is ops.concatenate)),
        to=_slice_of_concatenate,
        examples=(_cut_again,),
    ),
)
