"""A `fused` node as one loop over tiles that stay in the cache.

Every operand and result becomes a view of the domain's shape with its axes merged as far as all
strides allow. Inside a tile each value gets a place: the result's own tile, the place of an operand
that dies there, or a workspace of one tile. Values with one element a row have shape (.., 1).
"""

from __future__ import annotations

from math import prod

from tracegrad.backends.numpy.codegen_elementwise import alias_positions, lines, needs_scratch
from tracegrad.backends.numpy.codegen_reduce import GEMV_ROW, REDUCE, ones
from tracegrad.backends.numpy.codegen_writer import Writer, emits
from tracegrad.backends.numpy.fast.pool import cpu_count
from tracegrad.backends.numpy.loops import Axes, Loop, is_splat, loop_of
from tracegrad.backends.numpy.tiles import Tiling, fork_blas, fork_plain
from tracegrad.ir.graph import Node
from tracegrad.ir.ops.traits import REDUCTION
from tracegrad.ir.types import DType
from tracegrad.passes.storage import Shape, Storage, View, collapsed

CACHE_BYTES = 3 << 18  # all tiles of one loop together: most of a second-level cache
SHARED_WORK = 1 << 20  # elements times operations from which a second thread pays (200 us)
SHARED_TILE = 1 << 15  # elements a thread should have at least: below, threads wait for each other


@emits("fused")
def emit_fused(w: Writer, node: Node) -> None:
    _Body(w, node, loop_of(node.attrs["graph"])).write()


class _Place:
    """Where a value of the tile lives: a name, and until which instruction it is in use."""

    def __init__(self, name: str, dtype: DType, busy: int, result: int = -1):
        self.name, self.dtype, self.busy, self.result = name, dtype, busy, result


class _Body:
    def __init__(self, w: Writer, node: Node, loop: Loop):
        self.w, self.node, self.loop = w, node, loop
        self.when = {member: index for index, member in enumerate(loop.body)}
        self.operands = {x: w.placed.view(node.inputs[i]) for x, (i, _) in loop.access.items()}
        self.last_use = self._last_uses()
        self.results = w.placed.parts(node)
        self.merge_axes()
        self.own: dict[str, list[str]] = {}  # workspace -> its copies for the other threads
        self.text: list[str] = []
        self.names: dict[Node, str] = {}
        self.flat: dict[Node, str] = {}  # row values without their last axis
        self.places: list[_Place] = []
        self.slices: dict[str, str] = {}

    def _last_uses(self) -> dict[Node, int]:
        loop, last = self.loop, {}
        for member in loop.body:
            last[member] = self.when[member]
            for x in member.inputs:
                last[loop.source(x)] = self.when[member]
        for member in loop.body:
            for x in self.product(member) or ():  # read by the sum, not by the product before it
                last[loop.source(x)] = max(last[loop.source(x)], self.when[member])
        return last

    def _worth_sharing(self) -> int:
        """Threads to share the tiles over."""
        size = prod(self.loop.domain)
        if size * len(self.loop.body) < SHARED_WORK:
            return 1
        return max(1, min(self.w.threads or cpu_count(), size // SHARED_TILE))

    # ---------------------------------------------------------------- axes

    def merge_axes(self) -> None:
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
        shares = self._worth_sharing()
        if shares > 1:
            elements = min(elements, prod(domain) // shares)
        tiling = self.tiling = Tiling(sizes, loop.has_rows, max(elements, 16), shares)
        self.shares = min(shares, tiling.outermost) if tiling.looped else 1

    def canonical(self, view: View, axes: Axes) -> tuple[Shape, Shape]:
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
        shape, strides = self.canonical(view, axes)
        kind = view.storage.root().kind
        if kind in ("arena", "result"):
            return w.view(View(view.storage, shape, strides, view.offset, view.dtype)), shape
        name = w.ref(node) if node is not None else w.arguments[view.storage.index]
        if view.shape == shape:
            return name, shape
        if kind == "constant":
            return w.prebuilt(f"{name}.reshape({shape})"), shape
        return w.prologue(f"{name}.reshape({shape})", name.rstrip("_")), shape

    # ---------------------------------------------------------------- places

    def tile_of(self, name: str, shape: Shape) -> str:
        """A name for the tile of a canonical array, sliced at the top of the loop."""
        subscript = self.tiling.subscript(shape)
        if not subscript:
            return name
        key = f"{name}[{subscript}]"
        if key not in self.slices:
            self.slices[key] = f"t{len(self.slices)}"
        return self.slices[key]

    def workspace(self, dtype: DType, row: bool = False) -> str:
        shape = self.tiling.shape
        shape = (*shape[:-1], 1) if row else shape
        copies = [self.w.view(self.w.workspace(shape, dtype)) for _ in range(self.shares)]
        self.own[copies[0]] = copies[1:]
        return self._cut(copies[0])

    def _cut(self, name: str) -> str:
        """A workspace, as long as the last tile needs it."""
        if self.tiling.even:
            return name
        key = f"{name}[:n]"
        if key not in self.slices:
            self.slices[key] = f"t{len(self.slices)}"
        return self.slices[key]

    def enter_operands(self) -> None:
        last_read: dict[int, int] = {}
        for x, (index, axes) in self.loop.access.items():
            view = self.operands[x]
            name, shape = self.array(self.node.inputs[index], view, axes)
            self.names[x] = self.tile_of(name, shape)
            root = id(view.storage.root())
            last_read[root] = max(last_read.get(root, -1), self.last_use.get(x, -1))
        self.result_places: list[_Place] = []
        self._dying_operands(last_read)
        domain = self.loop.domain
        for index, (output, view) in enumerate(zip(self.loop.graph.outputs, self.results)):
            row = self.loop.source(output) in self.loop.rows
            lead = tuple(range(len(domain) - 1))
            own: Axes = (*lead, None) if row else (*lead, len(domain) - 1)
            name, shape = self.array(None, view, own)
            busy = last_read.get(id(view.storage.root()), -1)
            place = _Place(self.tile_of(name, shape), view.dtype, busy, index)
            self.result_places.append(place)
            if not row:
                self.places.append(place)

    def _dying_operands(self, last_read: dict[int, int]) -> None:
        """Operands that nobody reads after this node are workspaces once they are read here."""
        results = {id(view.storage.root()) for view in self.results}
        for x, (index, axes) in self.loop.access.items():
            view, storage = self.operands[x], self.operands[x].storage.root()
            full = all(a is not None or n == 1 for a, n in zip(axes, self.loop.domain))
            if (
                storage.kind == "arena"
                and storage.end == self.w.step
                and id(storage) not in results
                and full
                and view.whole
                and sum(self._reads(i, storage) for i in self.node.inputs) == 1
                and sum(i == index for i, _ in self.loop.access.values()) == 1
            ):
                self.places.append(_Place(self.names[x], view.dtype, last_read[id(storage)]))

    def _reads(self, operand: Node, storage: Storage) -> bool:
        return any(view.storage.root() is storage for view in self.w.placed.parts(operand))

    def result_of(self, member: Node) -> list[int]:
        return [
            index
            for index, output in enumerate(self.loop.graph.outputs)
            if self.loop.source(output) is member
        ]

    def dying(self, member: Node, place: _Place) -> bool:
        """Whether `member` may be written over `place`: it reads it last, at safe positions."""
        allowed = alias_positions(member)
        for position, x in enumerate(member.inputs):
            if self.names.get(self.loop.source(x)) == place.name and position not in allowed:
                return False
        return True

    def choose(self, member: Node) -> str:
        """The place of the full-sized value `member`."""
        now, until = self.when[member], self.last_use[member]
        results = self.result_of(member)
        if results:
            place = self.result_places[results[0]]
            if place.busy < now or (place.busy == now and self.dying(member, place)):
                place.busy = len(self.loop.body)
                return place.name
        best = None
        for place in self.places:
            if place.dtype is not member.dtype:
                continue
            if place.busy > now or (place.busy == now and not self.dying(member, place)):
                continue
            if place.result >= 0:
                owner = self.loop.source(self.loop.graph.outputs[place.result])
                end = self.when[owner]
                if now >= end or until > end or (until == end and not self._safe(owner, member)):
                    continue
            elif results and place.result < 0 and best is not None:
                continue
            # in place first, then a result's own tile, then a free workspace
            rank = (place.busy != now, place.result < 0)
            if best is None or rank < best[0]:
                best = (rank, place)
        if best is None:
            chosen = _Place(self.workspace(member.dtype), member.dtype, until)
            self.places.append(chosen)
        else:
            chosen = best[1]
        chosen.busy = until if not results else len(self.loop.body)
        return chosen.name

    def _safe(self, reader: Node, value: Node) -> bool:
        """Whether `reader` may be written over its operand `value`."""
        allowed = alias_positions(reader)
        return all(
            position in allowed
            for position, x in enumerate(reader.inputs)
            if self.loop.source(x) is value
        )

    def scratch(self, member: Node) -> str:
        """The temporary of `member`'s own code."""
        dtype = needs_scratch(member)
        assert dtype is not None
        now = self.when[member]
        for place in self.places:
            if place.dtype is dtype and place.busy < now and place.result < 0:
                place.busy = now
                return place.name
        place = _Place(self.workspace(dtype), dtype, now)
        self.places.append(place)
        return place.name

    # ---------------------------------------------------------------- code

    def write(self) -> None:
        self.enter_operands()
        for member in self.loop.body:
            if member in self.loop.rows:
                self.row_member(member)
            else:
                self.full_member(member)
        self.copy_results()
        self.wrap()

    def operand(self, x: Node) -> str:
        source = self.loop.source(x)
        base = source
        while base.op.name == "broadcast_to":
            base = base.inputs[0]
        if is_splat(base):
            return self.w.scalar(base.attrs["value"].splat, base.dtype)
        return self.names[source]

    def full_member(self, member: Node) -> None:
        xs = [self.operand(x) for x in member.inputs]
        if self.skipped(member):
            self.names[member] = ""
            return
        out = self.choose(member)
        self.names[member] = out
        self.text += lines(self.w, member, xs, out, lambda dtype: self.scratch(member))

    def row_member(self, member: Node) -> None:
        results = self.result_of(member)
        if results and self._row_free(member, results[0]):
            name = self.result_places[results[0]].name
        else:
            name = self.workspace(member.dtype, row=True)
        self.names[member] = name
        if member.op.has(REDUCTION):
            self.reduction(member, name)
            return
        xs = [self.operand(x) for x in member.inputs]
        dtype = needs_scratch(member)
        scratch = self.workspace(dtype, row=True) if dtype else ""
        self.text += lines(self.w, member, xs, name, lambda _: scratch)

    def _row_free(self, member: Node, result: int) -> bool:
        """Whether the result's rows may be written now: nobody reads an operand there later."""
        place, now = self.result_places[result], self.when[member]
        return place.busy < now or (place.busy == now and self.dying(member, place))

    def product(self, member: Node) -> tuple[Node, Node] | None:
        """The factors where `member` sums a product that nothing else reads: no temporary."""
        x = self.loop.source(member.inputs[0])
        if member.op.name != "sum" or x.op.name != "mul" or self.result_of(x):
            return None
        readers = [m for m in self.loop.body for y in m.inputs if self.loop.source(y) is x]
        wide = all(self._has_columns(y) for y in x.inputs)
        return (x.inputs[0], x.inputs[1]) if readers == [member] and wide else None

    def skipped(self, member: Node) -> bool:
        """A product that its only reader, a sum, computes."""
        for reader in self.loop.body:
            if reader.op.name == "sum" and self.loop.source(reader.inputs[0]) is member:
                return self.product(reader) is not None
        return False

    def _has_columns(self, x: Node) -> bool:
        """Whether `x` is contiguous along the last axis of the tile."""
        source = self.loop.source(x)
        if source in self.loop.access:
            _, axes = self.loop.access[source]
            return axes[-1] is not None and self.operands[source].strides[axes[-1]] == 1
        return source in self.when and source not in self.loop.rows

    def reduction(self, member: Node, name: str) -> None:
        w, dtype = self.w, member.dtype
        x = member.inputs[0]
        columns = self.tiling.sizes[-1]
        flat = f"{name}[..., 0]"
        if name in self.own:
            copies = [w.prebuilt(f"{copy}[..., 0]") for copy in (name, *self.own[name])]
            self.own[copies[0]] = copies[1:]
            flat = copies[0]
        factors = self.product(member)
        if factors is not None and columns <= GEMV_ROW:
            w.np("vecdot")
            a, b = (self.operand(y) for y in factors)
            self.text.append(f"vecdot({a}, {b}, {flat})")
            return
        if member.op.name == "sum" and self._has_columns(x) and columns <= GEMV_ROW:
            w.np("matmul")
            self.text.append(f"matmul({self.operand(x)}, {ones(w, columns, dtype)}, {flat})")
            return
        ufunc = w.np(REDUCE[member.op.name])
        kind = w.dtype(dtype) if member.op.name in ("sum", "prod") else "None"
        self.text.append(f"{ufunc}.reduce({self.operand(x)}, -1, {kind}, {flat})")

    def copy_results(self) -> None:
        """Results that could not be computed where they belong, or that share one value."""
        for place, output in zip(self.result_places, self.loop.graph.outputs):
            name = self.operand(output)
            if name != place.name:
                self.w.np("copyto")
                self.text.append(f"copyto({place.name}, {name})")

    def wrap(self) -> None:
        w, tiling = self.w, self.tiling
        if not tiling.looped:
            w.lines += self.text
            return
        indent, bounds = "", f"0, {tiling.sizes[0]}"
        if self.shares > 1:
            body = f"loop{w.step}"
            w.line(f"def {body}({', '.join(['first', 'last', *self.own])}):")
            indent, bounds = "    ", "first, last"
        for axis in range(tiling.axis):
            w.line(f"{indent}for i{axis} in range({bounds}):")
            indent, bounds = indent + "    ", f"0, {tiling.sizes[axis + 1]}"
        length = tiling.sizes[tiling.axis]
        w.line(f"{indent}for a in range({bounds}, {tiling.tile}):")
        indent += "    "
        w.line(f"{indent}b = a + {tiling.tile}")
        if not tiling.even:
            w.line(f"{indent}n = min(b, {length}) - a")
        for expression, name in self.slices.items():
            w.line(f"{indent}{name} = {expression}")
        w.lines += [indent + line for line in self.text]
        if self.shares > 1:
            self.fork(body)

    def fork(self, body: str) -> None:
        """Call the loop once a thread, each with tiles and workspaces of its own."""
        w, tiling = self.w, self.tiling
        length, count = tiling.sizes[0], tiling.outermost
        step = tiling.tile if tiling.axis == 0 else 1
        ends = [min(count * k // self.shares * step, length) for k in range(self.shares + 1)]
        calls = []
        for k, (first, last) in enumerate(zip(ends, ends[1:])):
            own = [name if k == 0 else copies[k - 1] for name, copies in self.own.items()]
            calls.append(f"({', '.join([str(first), str(last), *own])})")
        fork = w.use("fork_blas", fork_blas) if self.calls_blas() else w.use("fork", fork_plain)
        w.line(f"{fork}({body}, ({', '.join(calls)}))")

    def calls_blas(self) -> bool:
        return any(line.startswith(("matmul", "vecdot")) for line in self.text)
