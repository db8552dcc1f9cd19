"""Rewrite rules of ops that move elements, and of reductions over nothing."""

from __future__ import annotations

from math import prod

from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, Node, emit, placeholder
from tracegrad.ir.ops.source import splat as splat_node
from tracegrad.ir.ops.traits import ELEMENTWISE
from tracegrad.ir.types import DType, TensorType, f32, f64
from tracegrad.passes.fold import splat_of
from tracegrad.passes.rules.patterns import Match, op, splat_const, var
from tracegrad.passes.rules.rewrite import Rule, rule

x = var("x")
Ints = tuple[int, ...]


def _input(*shape: int, dtype: DType = f32) -> Node:
    return placeholder(TensorType(shape, dtype))


def _graph(*inputs: Node, out: Node) -> Graph:
    return Graph(inputs, (out,))


# ---------------------------------------------------------------- reshape, transpose


def _transpose_transpose(found: Match) -> Node:
    inner, outer = found["inner"].attrs["perm"], found.root.attrs["perm"]
    return ops.transpose(found.x, perm=tuple(inner[axis] for axis in outer))


def _moves_only_ones(found: Match) -> bool:
    """A transpose that keeps the order of all axes longer than 1 keeps the order of elements."""
    long = [axis for axis in found.root.attrs["perm"] if found.x.shape[axis] != 1]
    return long == sorted(long)


def _as_reshape(found: Match) -> Node:
    return ops.reshape(found.x, shape=found.root.shape)


def _example_reshapes() -> Graph:
    n = _input(2, 6)
    return _graph(n, out=ops.reshape(ops.reshape(n, shape=(3, 4)), shape=(12,)))


def _example_transposes() -> Graph:
    n = _input(2, 3, 4)
    return _graph(n, out=ops.transpose(ops.transpose(n, perm=(1, 2, 0)), perm=(0, 2, 1)))


def _example_transpose_of_ones() -> Graph:
    n = _input(3, 1, 4)
    return _graph(n, out=ops.transpose(n, perm=(1, 0, 2)))


RESHAPES: tuple[Rule, ...] = (
    rule(
        "reshape-same",
        op("reshape", x),
        to=x,
        when=lambda m: m.x.shape == m.root.shape,
        examples=(lambda: _graph(n := _input(2, 3), out=ops.reshape(n, shape=(2, 3))),),
    ),
    rule(
        "reshape-reshape",
        op("reshape", op("reshape", x)),
        to=lambda m: ops.reshape(m.x, shape=m.root.shape),
        examples=(_example_reshapes,),
    ),
    rule(
        "transpose-same",
        op("transpose", x),
        to=x,
        when=lambda m: m.root.attrs["perm"] == tuple(range(m.x.ndim)),
        examples=(lambda: _graph(n := _input(2, 3), out=ops.transpose(n, perm=(0, 1))),),
    ),
    rule(
        "transpose-transpose",
        op("transpose", op("transpose", x, label="inner")),
        to=_transpose_transpose,
        examples=(_example_transposes,),
    ),
    rule(
        "transpose-ones",
        op("transpose", x),
        to=_as_reshape,
        when=_moves_only_ones,
        examples=(_example_transpose_of_ones,),
    ),
)

# ---------------------------------------------------------------- broadcast_to


def _broadcast_broadcast(found: Match) -> Node:
    inner, outer = found["inner"].attrs["dims"], found.root.attrs["dims"]
    dims = tuple(outer[dim] for dim in inner)
    return ops.broadcast_to(found.x, shape=found.root.shape, dims=dims)


def _adds_only_ones(found: Match) -> bool:
    return bool(found.root.type.size == found.x.type.size != 0)


def _broadcast_reshape(found: Match) -> Node | None:
    """broadcast_to(reshape(x)), where the reshape only adds or drops axes of length 1."""
    source = found.x.shape
    middle, dims = found["inner"].shape, found.root.attrs["dims"]
    if [n for n in source if n != 1] != [n for n in middle if n != 1]:
        return None
    if any(n == 1 for n in source):  # several places to put it: dropping comes first
        squeezed = tuple(n for n in source if n != 1)
        if middle == squeezed:
            return None
        return ops.broadcast_to(
            ops.reshape(found.x, shape=squeezed),
            shape=found.root.shape,
            dims=_long_dims(middle, dims),
        )
    if len(middle) == len(source):
        return None
    return ops.broadcast_to(found.x, shape=found.root.shape, dims=_long_dims(middle, dims))


def _long_dims(middle: Ints, dims: Ints) -> Ints:
    return tuple(dim for n, dim in zip(middle, dims) if n != 1)


def _example_broadcasts() -> Graph:
    n = _input(3, 1)
    inner = ops.broadcast_to(n, shape=(2, 3, 4), dims=(1, 2))
    return _graph(n, out=ops.broadcast_to(inner, shape=(2, 5, 3, 4), dims=(0, 2, 3)))


def _example_broadcast_reshape() -> Graph:
    n = _input(3)
    inner = ops.reshape(n, shape=(1, 3, 1))
    return _graph(n, out=ops.broadcast_to(inner, shape=(2, 3, 4), dims=(0, 1, 2)))


def _reads_a_broadcast(node: Node) -> bool:
    return any(operand.op is ops.broadcast_to for operand in node.inputs)


def _late_broadcast(found: Match) -> Node | None:
    """f(broadcast(x), broadcast(y), splat) -> broadcast(f(x, y, splat)): f sees fewer elements."""
    node = found.root
    first: Node | None = None
    for operand in node.inputs:
        if operand.op is ops.broadcast_to:
            if first is None:
                first = operand
            elif _spread(operand) != _spread(first):
                return None
        elif splat_const(operand) is None:
            return None
    if first is None or first.inputs[0].type.size >= node.type.size:
        return None
    shape, dims = _spread(first)
    operands = []
    for operand in node.inputs:
        if operand.op is ops.broadcast_to:
            operands.append(operand.inputs[0])
        else:
            const = splat_const(operand)
            assert const is not None
            small = splat_of_shape(operand, shape)
            if small is None:
                return None
            operands.append(small)
    return ops.broadcast_to(emit(node.op, *operands, **node.attrs), shape=node.shape, dims=dims)


def _spread(node: Node) -> tuple[Ints, Ints]:
    return node.inputs[0].shape, node.attrs["dims"]


def splat_of_shape(constant: Node, shape: Ints) -> Node | None:
    """The splat constant `constant` in another shape."""
    const = splat_const(constant)
    if const is None or not const.array.size or not prod(shape):
        return None
    return splat_node(const.array.reshape(-1)[0], TensorType(shape, const.dtype))


def _example_late_unary() -> Graph:
    n = _input(3)
    return _graph(n, out=ops.exp(ops.broadcast_to(n, shape=(2, 3), dims=(1,))))


def _example_late_binary() -> Graph:
    n, m = _input(2, 1), _input(2, 1)
    wide = [ops.broadcast_to(each, shape=(2, 3), dims=(0, 1)) for each in (n, m)]
    return _graph(n, m, out=ops.where(ops.lt(*wide), *wide))


def _example_late_splat() -> Graph:
    n = _input()
    return _graph(n, out=ops.cast(ops.broadcast_to(n, shape=(2, 3), dims=()) * 0.5, dtype=f64))


BROADCASTS: tuple[Rule, ...] = (
    rule(
        "broadcast-same",
        op("broadcast_to", x),
        to=x,
        when=lambda m: m.x.shape == m.root.shape,
        examples=(
            lambda: _graph(n := _input(2, 3), out=ops.broadcast_to(n, shape=(2, 3), dims=(0, 1))),
        ),
    ),
    rule(
        "broadcast-ones",
        op("broadcast_to", x),
        to=_as_reshape,
        when=_adds_only_ones,
        examples=(
            lambda: _graph(n := _input(3), out=ops.broadcast_to(n, shape=(1, 3), dims=(1,))),
        ),
    ),
    rule(
        "broadcast-broadcast",
        op("broadcast_to", op("broadcast_to", x, label="inner")),
        to=_broadcast_broadcast,
        examples=(_example_broadcasts,),
    ),
    rule(
        "broadcast-reshape",
        op("broadcast_to", op("reshape", x, label="inner")),
        to=_broadcast_reshape,
        examples=(_example_broadcast_reshape,),
    ),
    rule(
        "broadcast-late",
        var(
            "any",
            _reads_a_broadcast,
            roots=tuple(name for name, each in ops.OPS.items() if each.has(ELEMENTWISE)),
        ),
        to=_late_broadcast,
        examples=(_example_late_unary, _example_late_binary, _example_late_splat),
    ),
)

# ---------------------------------------------------------------- slice, pad, concatenate


def _is_whole(found: Match) -> bool:
    attrs = found.root.attrs
    from_start = not any(attrs["start"]) and all(step == 1 for step in attrs["step"])
    return from_start and found.x.shape == found.root.shape


def _slice_slice(found: Match) -> Node | None:
    """Element k of the outer slice is element start + k step of the inner one."""
    inner, outer = found["inner"].attrs, found.root.attrs
    if any(step < 0 for step in (*inner["step"], *outer["step"])) or found.root.type.size == 0:
        return None
    start = tuple(a + b * s for a, b, s in zip(inner["start"], outer["start"], inner["step"]))
    step = tuple(s * t for s, t in zip(inner["step"], outer["step"]))
    stop = tuple(a + (n - 1) * s + 1 for a, n, s in zip(start, found.root.shape, step))
    return ops.slice_(found.x, start=start, stop=stop, step=step)


def _no_padding(found: Match) -> Node | None:
    attrs = found.root.attrs
    return found.x if not any((*attrs["low"], *attrs["high"], *attrs["interior"])) else None


def _example_slices() -> Graph:
    n = _input(9, 4)
    inner = ops.slice_(n, start=(1, 0), stop=(9, 4), step=(2, 1))
    return _graph(n, out=ops.slice_(inner, start=(1, 1), stop=(4, 3), step=(2, 1)))


def _example_whole_slice() -> Graph:
    n = _input(3, 4)
    return _graph(n, out=ops.slice_(n, start=(0, 0), stop=(3, 4), step=(1, 1)))


def _example_pad() -> Graph:
    n, value = _input(3), _input()
    return _graph(n, value, out=ops.pad(n, value, low=(0,), high=(0,), interior=(0,)))


SLICES: tuple[Rule, ...] = (
    rule("slice-whole", op("slice", x), to=x, when=_is_whole, examples=(_example_whole_slice,)),
    rule(
        "slice-slice",
        op("slice", op("slice", x, label="inner")),
        to=_slice_slice,
        examples=(_example_slices,),
    ),
    rule("pad-nothing", op("pad", x, var("value")), to=_no_padding, examples=(_example_pad,)),
    rule(
        "concatenate-one",
        op("concatenate", x),
        to=x,
        examples=(lambda: _graph(n := _input(3), out=ops.concatenate(n, axis=0)),),
    ),
)

# ---------------------------------------------------------------- views of a splat, reductions


def _view_of_splat(found: Match) -> Node | None:
    return splat_of(found.root, splat_const(found.x))


def _view_examples(name: str) -> Graph:
    n = _input(2, 3)
    filled = splat_node(2.5, n.type)
    attrs: dict[str, dict[str, Ints]] = {
        "reshape": {"shape": (3, 2)},
        "transpose": {"perm": (1, 0)},
        "broadcast_to": {"shape": (4, 2, 3), "dims": (1, 2)},
        "slice": {"start": (0, 1), "stop": (2, 3), "step": (1, 1)},
    }
    return _graph(n, out=ops.op_named(name)(filled, **attrs[name]))


def _reduced_before_broadcast(found: Match) -> Node | None:
    """sum(broadcast(x)) over axes that x has -> broadcast(sum(x)): the sum sees fewer elements."""
    wide, axes = found["wide"], found.root.attrs["axes"]
    dims = wide.attrs["dims"]
    own = {to: axis for axis, to in enumerate(dims) if found.x.shape[axis] == wide.shape[to]}
    if not own.keys() >= set(axes) or found.x.type.size >= wide.type.size:
        return None
    small = emit(found.root.op, found.x, axes=tuple(sorted(own[axis] for axis in axes)))
    left = [axis for axis in range(wide.ndim) if axis not in axes]
    kept = tuple(left.index(to) for to in dims if to not in axes)
    return ops.broadcast_to(small, shape=found.root.shape, dims=kept)


def _example_reduced_broadcast(name: str) -> Graph:
    n = _input(4, 1, 3)
    wide = ops.broadcast_to(n, shape=(4, 5, 2, 3), dims=(0, 2, 3))
    return _graph(n, out=ops.op_named(name)(wide, axes=(0, 3)))


def _of_broadcast(name: str) -> Rule:
    return rule(
        f"{name}-of-broadcast",
        op(name, op("broadcast_to", x, label="wide")),
        to=_reduced_before_broadcast,
        examples=(lambda: _example_reduced_broadcast(name),),
    )


def _over_nothing(name: str) -> Rule:
    return rule(
        f"{name}-over-nothing",
        op(name, x),
        to=x,
        when=lambda m: m.root.attrs["axes"] == (),
        keeps_zero_sign=name != "sum",
        examples=(lambda: _graph(n := _input(2, 3), out=ops.op_named(name)(n, axes=())),),
    )


def _over_ones(name: str) -> Rule:
    def over_ones(found: Match) -> bool:
        return all(found.x.shape[axis] == 1 for axis in found.root.attrs["axes"])

    return rule(
        f"{name}-over-ones",
        op(name, x),
        to=_as_reshape,
        when=over_ones,
        keeps_zero_sign=name != "sum",  # 0 + (-0.0) is 0.0, but no order of a sum is promised
        examples=(lambda: _graph(n := _input(2, 1, 3), out=ops.op_named(name)(n, axes=(1,))),),
    )


def _view_rule(name: str) -> Rule:
    return rule(
        f"{name}-of-splat",
        op(name, x),
        to=_view_of_splat,
        when=lambda m: splat_const(m.x) is not None,
        examples=(lambda: _view_examples(name),),
    )


_REDUCTIONS = ("sum", "prod", "max", "min")

SPLATS: tuple[Rule, ...] = tuple(
    _view_rule(name) for name in ("reshape", "transpose", "broadcast_to", "slice")
)
REDUCTIONS: tuple[Rule, ...] = tuple(
    make(name) for name in _REDUCTIONS for make in (_over_nothing, _over_ones, _of_broadcast)
)
