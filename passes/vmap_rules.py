"""What each kind of op becomes when axis 0 of its operands runs over examples.

A rule is (batch, node, lanes of its inputs) -> what the node becomes, and is called only when some
lane is batched. Most ops are served by their traits or by an attribute named `axis`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tracegrad.ir import ops
from tracegrad.ir.graph import Node, Op
from tracegrad.ir.ops import traits
from tracegrad.ir.types import TensorType, bool_, i64
from tracegrad.passes.vmap import Batch, Lane, Lanes, Value, whole

Rule = Callable[[Batch, Node, Lanes], Value]


def rule_for(node: Node) -> Rule | None:
    """By name, or by what the op's traits and attributes say."""
    op = node.op
    if op in RULES:
        return RULES[op]
    if op.has(traits.ELEMENTWISE) or op.has(traits.IDENTITY_MARKER):
        return _same
    if op.has(traits.REDUCTION):
        return _reduction
    if "axis" in op.attrs:
        return _along_axis
    return None


def _all(batch: Batch, lanes: Sequence[Lane]) -> list[Node]:
    return [batch.spread(lane) for lane in lanes]


def _same(batch: Batch, node: Node, lanes: Lanes) -> Value:
    """An op that keeps to the last axes, or to no axis: one more in front changes nothing."""
    return whole(node.op(*_all(batch, lanes), **node.attrs), batched=True)


def _reduction(batch: Batch, node: Node, lanes: Lanes) -> Value:
    axes = tuple(axis + 1 for axis in node.attrs["axes"])
    return Lane(node.op(lanes[0].node, axes=axes), True)


def _along_axis(batch: Batch, node: Node, lanes: Lanes) -> Value:
    attrs = {**node.attrs, "axis": node.attrs["axis"] + 1}
    return whole(node.op(*_all(batch, lanes), **attrs), batched=True)


# ---------------------------------------------------------------- shape


def _reshape(batch: Batch, node: Node, lanes: Lanes) -> Value:
    return Lane(ops.reshape(lanes[0].node, shape=(batch.size, *node.shape)), True)


def _transpose(batch: Batch, node: Node, lanes: Lanes) -> Value:
    perm = (0, *(axis + 1 for axis in node.attrs["perm"]))
    return Lane(ops.transpose(lanes[0].node, perm=perm), True)


def _broadcast_to(batch: Batch, node: Node, lanes: Lanes) -> Value:
    dims = (0, *(dim + 1 for dim in node.attrs["dims"]))
    shape = (batch.size, *node.shape)
    return Lane(ops.broadcast_to(lanes[0].node, shape=shape, dims=dims), True)


def _slice(batch: Batch, node: Node, lanes: Lanes) -> Value:
    """slice and update_slice: all of the batch axis."""
    first = {"start": 0, "stop": batch.size, "step": 1}
    attrs = {name: (first[name], *values) for name, values in node.attrs.items()}
    return Lane(node.op(*_all(batch, lanes), **attrs), True)


def _pad(batch: Batch, node: Node, lanes: Lanes) -> Value:
    x, value = lanes
    if not value.batched:
        attrs = {name: (0, *values) for name, values in node.attrs.items()}
        return Lane(ops.pad(batch.spread(x), value.node, **attrs), True)
    # each example has its own pad value: it stands where a padded mask does not
    original, number = node.inputs
    padded = ops.pad(original, ops.zeros_like(number), **node.attrs)
    scalar = TensorType((), bool_)
    mask = ops.splat(True, original.type.with_dtype(bool_))
    inside = ops.pad(mask, ops.splat(False, scalar), **node.attrs)
    outside = ops.broadcast_to(number, shape=node.shape, dims=())
    return batch.through(node, (ops.where(inside, padded, outside),))


# ---------------------------------------------------------------- indexing


def _numbered(batch: Batch, shape: tuple[int, ...]) -> Node:
    """The number of the example, [size, *shape]."""
    return ops.iota(shape=(batch.size, *shape), axis=0, dtype=i64)


def _gather(batch: Batch, node: Node, lanes: Lanes) -> Value:
    x, *indices = lanes
    axes = node.attrs["axes"]
    if not x.batched:  # the batch axis is one more axis of the indices
        return Lane(ops.gather(x.node, *_all(batch, indices), axes=axes), True)
    inner = tuple(axis + 1 for axis in axes)
    index_shape = node.inputs[1].shape
    if any(index.batched for index in indices):
        spread = [_numbered(batch, index_shape), *_all(batch, indices)]
        return Lane(ops.gather(x.node, *spread, axes=(0, *inner)), True)
    found = ops.gather(x.node, *(index.node for index in indices), axes=inner)
    return Lane(_axis_to_front(found, len(index_shape)), True)


def _scatter(batch: Batch, node: Node, lanes: Lanes) -> Value:
    x, *indices, update = lanes
    inner = tuple(axis + 1 for axis in node.attrs["axes"])
    index_shape, mode = node.inputs[1].shape, node.attrs["mode"]
    base, u = batch.spread(x), batch.spread(update)
    if any(index.batched for index in indices):
        spread = [_numbered(batch, index_shape), *_all(batch, indices)]
        return Lane(ops.scatter(base, *spread, u, axes=(0, *inner), mode=mode), True)
    shared = [index.node for index in indices]
    u = _front_to_axis(u, len(index_shape))
    return Lane(ops.scatter(base, *shared, u, axes=inner, mode=mode), True)


def _axis_to_front(x: Node, axis: int) -> Node:
    if axis == 0:
        return x
    return ops.transpose(x, perm=(axis, *(k for k in range(x.ndim) if k != axis)))


def _front_to_axis(x: Node, axis: int) -> Node:
    if axis == 0:
        return x
    return ops.transpose(x, perm=(*range(1, axis + 1), 0, *range(axis + 1, x.ndim)))


def _block_indices(
    starts: Sequence[Node], shape: tuple[int, ...], sizes: tuple[int, ...]
) -> list[Node]:
    """One index tensor [*sizes] per axis of the block that begins at the (clamped) starts."""
    found = []
    for axis, (start, n, size) in enumerate(zip(starts, shape, sizes)):
        low, high = ops.splat(0, start.type), ops.splat(n - size, start.type)
        clamped = ops.minimum(ops.maximum(start, low), high)
        first = ops.broadcast_to(clamped, shape=sizes, dims=())
        found.append(first + ops.iota(shape=sizes, axis=axis, dtype=i64))
    return found


def _dynamic_slice(batch: Batch, node: Node, lanes: Lanes) -> Value:
    x, *starts = lanes
    sizes = node.attrs["sizes"]
    if x.batched and not any(start.batched for start in starts):
        zero = ops.splat(0, TensorType((), i64))
        block = ops.dynamic_slice(
            x.node, zero, *(start.node for start in starts), sizes=(batch.size, *sizes)
        )
        return Lane(block, True)
    if not sizes:
        return x if x.batched else Lane(batch.spread(x), True)
    original, *first = node.inputs
    indices = _block_indices(first, original.shape, sizes)
    block = ops.gather(original, *indices, axes=tuple(range(original.ndim)))
    return batch.through(node, (block,))


def _dynamic_update_slice(batch: Batch, node: Node, lanes: Lanes) -> Value:
    x, update, *starts = lanes
    if not any(start.batched for start in starts):
        zero = ops.splat(0, TensorType((), i64))
        shared = [start.node for start in starts]
        base, block = batch.spread(x), batch.spread(update)
        return Lane(ops.dynamic_update_slice(base, block, zero, *shared), True)
    original, block, *first = node.inputs
    indices = _block_indices(first, original.shape, block.shape)
    axes = tuple(range(original.ndim))
    return batch.through(node, (ops.scatter(original, *indices, block, axes=axes, mode="set"),))


# ---------------------------------------------------------------- contractions


def _matmul(batch: Batch, node: Node, lanes: Lanes) -> Value:
    x, y = lanes
    if node.ndim == 2 and not y.batched:  # [size, m, k] @ [k, n]: one product of size m rows
        size, m, k = x.node.shape
        rows = ops.matmul(ops.reshape(x.node, shape=(size * m, k)), y.node)
        return Lane(ops.reshape(rows, shape=(size, *node.shape)), True)
    return _same(batch, node, lanes)


def _conv(batch: Batch, node: Node, lanes: Lanes) -> Value:
    x, w = lanes
    size, spatial = batch.size, range(2, node.ndim)
    if not w.batched:  # the examples join the images
        images = _merge(x.node, 0)
        out = ops.conv(images, w.node, **node.attrs)
        return Lane(_split(out, 0, (size, node.shape[0])), True)
    # each example has its own filters: the examples become groups of channels
    channels = _merge(_front_to_axis(batch.spread(x), 1), 1)
    attrs = {**node.attrs, "groups": node.attrs["groups"] * size}
    out = ops.conv(channels, _merge(w.node, 0), **attrs)
    out = _split(out, 1, (size, node.shape[1]))
    return Lane(ops.transpose(out, perm=(1, 0, *(axis + 1 for axis in (1, *spatial)))), True)


def _merge(x: Node, axis: int) -> Node:
    """Axes `axis` and `axis + 1` as one."""
    shape = x.shape
    joined = shape[axis] * shape[axis + 1]
    return ops.reshape(x, shape=(*shape[:axis], joined, *shape[axis + 2 :]))


def _split(x: Node, axis: int, sizes: tuple[int, int]) -> Node:
    """`axis` as two axes of these sizes; the inverse of `_merge`."""
    return ops.reshape(x, shape=(*x.shape[:axis], *sizes, *x.shape[axis + 1 :]))


def _attention(batch: Batch, node: Node, lanes: Lanes) -> Value:
    """Attention treats its first axis, the batch, as many examples already: join them."""
    joined = node.op(*(_merge(x, 0) for x in _all(batch, lanes)), **node.attrs)
    parts, sizes = range(len(node.type.parts)), (batch.size, node.inputs[0].shape[0])
    return tuple(Lane(_split(ops.proj(joined, index=k), 0, sizes), True) for k in parts)


# ---------------------------------------------------------------- markers


def _check(batch: Batch, node: Node, lanes: Lanes) -> Value:
    """Every example must pass."""
    every = ops.min_(lanes[0].node, axes=(0,))
    return Lane(ops.check(every, **node.attrs), False)


def _shard(batch: Batch, node: Node, lanes: Lanes) -> Value:
    return Lane(ops.shard(lanes[0].node, spec=(None, *node.attrs["spec"])), True)


RULES: dict[Op, Rule] = {
    ops.reshape: _reshape,
    ops.transpose: _transpose,
    ops.broadcast_to: _broadcast_to,
    ops.slice_: _slice,
    ops.update_slice: _slice,
    ops.pad: _pad,
    ops.gather: _gather,
    ops.scatter: _scatter,
    ops.dynamic_slice: _dynamic_slice,
    ops.dynamic_update_slice: _dynamic_update_slice,
    ops.matmul: _matmul,
    ops.conv: _conv,
    ops.sdpa: _attention,
    ops.sdpa_mask: _attention,
    ops.sdpa_backward: _attention,
    ops.check: _check,
    ops.shard: _shard,
    ops.rebind: _same,
    **dict.fromkeys(
        (ops.window_sum, ops.window_max, ops.select_scatter, ops.select_gather, ops.cholesky,
         ops.triangular_solve, ops.qr, ops.eigh, ops.svd, ops.lu),
        _same,
    ),
}  # fmt: skip
