"""A fused loop's operands and results as arrays over the same axes, and those axes cut into tiles."""

from __future__ import annotations

from math import prod

from tracegrad.backends.numpy.codegen_writer import Writer
from tracegrad.backends.numpy.loops import Axes, Loop
from tracegrad.backends.numpy.tiles import Tiling, loop_shares
from tracegrad.ir.graph import Node
from tracegrad.passes.memory.storage import Shape, View, collapsed

CACHE_BYTES = 3 << 18  # all tiles of one loop together: most of a second-level cache


class Geometry:
    """Where a fused node's values lie in memory.

    groups  axes of the domain merged into one, as far as all strides allow
    tiling  how the merged axes are cut
    shares  threads that the tiles are shared over
    """

    def __init__(self, w: Writer, node: Node, loop: Loop):
        self.w, self.node, self.loop = w, node, loop
        self.members = frozenset(loop.body)
        self.operands = {x: w.placed.view(node.inputs[i]) for x, (i, _) in loop.access.items()}
        self.results = w.placed.parts(node)
        self._merge_axes()

    def _merge_axes(self) -> None:
        loop = self.loop
        domain = loop.domain
        strides = [
            tuple(0 if a is None else self.operands[x].strides[a] for a in axes)
            for x, (_, axes) in loop.access.items()
        ]
        for output, view in zip(loop.graph.outputs, self.results):
            row = loop.source(output) in loop.rows
            own = view.strides[: len(domain) - 1] if row else view.strides
            strides.append((*own, 0) if row else own)
        self.groups = collapsed(domain, strides, loop.has_rows)
        sizes = tuple(prod(domain[axis] for axis in group) for group in self.groups)
        views = [*self.operands.values(), *self.results]
        arrays = 1 + len({id(v.storage.root()) for v in views if prod(v.shape) == prod(domain)})
        itemsize = max(view.dtype.itemsize for view in self.results)
        elements = min(self.w.tile_bytes // 4, CACHE_BYTES // (arrays * itemsize))
        shares = loop_shares(prod(domain), len(loop.body), self.w.cores.threads)
        if shares > 1:
            elements = min(elements, prod(domain) // shares)
        tiling = self.tiling = Tiling(sizes, loop.has_rows, max(elements, 16), shares)
        self.shares = min(shares, tiling.outermost) if tiling.looped else 1

    def _canonical(self, view: View, axes: Axes) -> tuple[Shape, Shape]:
        """(sizes, strides) of an operand over the merged axes; size 1 where it is broadcast."""
        sizes, strides = [], []
        for group, full in zip(self.groups, self.tiling.sizes):
            size, stride = 1, 0
            for axis in group:
                a = axes[axis]
                if a is not None and self.loop.domain[axis] != 1:
                    size, stride = full, view.strides[a]
            sizes.append(size)
            strides.append(stride)
        return tuple(sizes), tuple(strides)

    def array(self, node: Node | None, view: View, axes: Axes) -> tuple[str, Shape]:
        """Name and canonical shape of an operand (`node`) or of a result (None)."""
        w = self.w
        shape, strides = self._canonical(view, axes)
        kind = view.storage.root().kind
        if kind in ("arena", "result"):
            return w.view(View(view.storage, shape, strides, view.offset, view.dtype)), shape
        name = w.ref(node) if node is not None else w.arguments[view.storage.index]
        if view.shape == shape:
            return name, shape
        if kind == "constant":
            return w.prebuilt(f"{name}.reshape({shape})"), shape
        return w.prologue(f"{name}.reshape({shape})", name.rstrip("_")), shape

    def result_of(self, member: Node) -> list[int]:
        return [
            index
            for index, output in enumerate(self.loop.graph.outputs)
            if self.loop.source(output) is member
        ]

    def product(self, member: Node) -> tuple[Node, Node] | None:
        """The factors where `member` sums a product that nothing else reads: no temporary."""
        x = self.loop.source(member.inputs[0])
        if member.op.name != "sum" or x.op.name != "mul" or self.result_of(x):
            return None
        readers = [m for m in self.loop.body for y in m.inputs if self.loop.source(y) is x]
        wide = all(self.has_columns(y) for y in x.inputs)
        return (x.inputs[0], x.inputs[1]) if readers == [member] and wide else None

    def skipped(self, member: Node) -> bool:
        """A product that its only reader, a sum, computes."""
        for reader in self.loop.body:
            if reader.op.name == "sum" and self.loop.source(reader.inputs[0]) is member:
                return self.product(reader) is not None
        return False

    def has_columns(self, x: Node) -> bool:
        """Whether `x` is contiguous along the last axis of the tile."""
        source = self.loop.source(x)
        if source in self.loop.access:
            _, axes = self.loop.access[source]
            return axes[-1] is not None and self.operands[source].strides[axes[-1]] == 1
        return source in self.members and source not in self.loop.rows
