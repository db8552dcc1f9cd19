"""A `fused` node as one loop over tiles that stay in the cache.

Every operand and result becomes a view of the domain's shape with its axes merged as far as all
strides allow (fused_geometry.py), every value of a tile gets a place (fused_places.py); here each
member of the loop becomes lines of code.
"""

from __future__ import annotations

from tracegrad.backends.numpy.codegen_elementwise import lines, needs_scratch, whole_number
from tracegrad.backends.numpy.codegen_reduce import GEMV_ROW, REDUCE, ones
from tracegrad.backends.numpy.codegen_writer import Writer, emits
from tracegrad.backends.numpy.fused_geometry import Geometry
from tracegrad.backends.numpy.fused_places import Places
from tracegrad.backends.numpy.loops import loop_of
from tracegrad.backends.numpy.tiles import fork_blas, fork_plain
from tracegrad.ir.graph import Node
from tracegrad.ir.ops.traits import REDUCTION
from tracegrad.passes.rules.patterns import is_splat


@emits("fused")
def emit_fused(w: Writer, node: Node) -> None:
    _Body(w, node).write()


class _Body:
    """The code of one loop."""

    def __init__(self, w: Writer, node: Node):
        self.w, self.loop = w, loop_of(node.attrs["graph"])
        self.geometry = Geometry(w, node, self.loop)
        self.places = Places(self.geometry)
        self.text: list[str] = []

    def write(self) -> None:
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
        return self.places.names[source]

    def number(self, member: Node, x: Node) -> str:
        """The operand `x` as a tile filled with one number, where `member` is faster so."""
        array = whole_number(member, self.loop.source(x), self.geometry.tiling.shape)
        return "" if array is None else self.places.tile(self.w.constant(array, key=id(array)))

    def full_member(self, member: Node) -> None:
        xs = [self.number(member, x) or self.operand(x) for x in member.inputs]
        if self.geometry.skipped(member):
            self.places.names[member] = ""
            return
        out = self.places.choose(member)
        self.places.names[member] = out
        self.text += lines(self.w, member, xs, out, lambda dtype: self.places.scratch(member))

    def row_member(self, member: Node) -> None:
        results = self.geometry.result_of(member)
        if results and self.places.row_free(member, results[0]):
            name = self.places.result_places[results[0]].name
        else:
            name = self.places.workspace(member.dtype, row=True)
        self.places.names[member] = name
        if member.op.has(REDUCTION):
            self.reduction(member, name)
            return
        xs = [self.operand(x) for x in member.inputs]
        dtype = needs_scratch(member)
        scratch = self.places.workspace(dtype, row=True) if dtype else ""
        self.text += lines(self.w, member, xs, name, lambda _: scratch)

    def reduction(self, member: Node, name: str) -> None:
        w, dtype = self.w, member.dtype
        x = member.inputs[0]
        columns = self.geometry.tiling.sizes[-1]
        flat = f"{name}[..., 0]"
        if name in self.places.own:
            copies = [w.prebuilt(f"{copy}[..., 0]") for copy in (name, *self.places.own[name])]
            self.places.own[copies[0]] = copies[1:]
            flat = copies[0]
        factors = self.geometry.product(member)
        if factors is not None and columns <= GEMV_ROW:
            w.np("vecdot")
            a, b = (self.operand(y) for y in factors)
            self.text.append(f"vecdot({a}, {b}, {flat})")
            return
        if member.op.name == "sum" and self.geometry.has_columns(x) and columns <= GEMV_ROW:
            w.np("matmul")
            self.text.append(f"matmul({self.operand(x)}, {ones(w, columns, dtype)}, {flat})")
            return
        ufunc = w.np(REDUCE[member.op.name])
        kind = w.dtype(dtype) if member.op.name in ("sum", "prod") else "None"
        self.text.append(f"{ufunc}.reduce({self.operand(x)}, -1, {kind}, {flat})")

    def copy_results(self) -> None:
        """Results that could not be computed where they belong, or that share one value."""
        for place, output in zip(self.places.result_places, self.loop.graph.outputs):
            name = self.operand(output)
            if name != place.name:
                self.w.np("copyto")
                self.text.append(f"copyto({place.name}, {name})")

    def wrap(self) -> None:
        w, tiling = self.w, self.geometry.tiling
        if not tiling.looped:
            w.lines += self.text
            return
        indent, bounds = "", f"0, {tiling.sizes[0]}"
        if self.geometry.shares > 1:
            body = f"loop{w.step}"
            w.line(f"def {body}({', '.join(['first', 'last', *self.places.own])}):")
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
        for expression, name in self.places.slices.items():
            w.line(f"{indent}{name} = {expression}")
        w.lines += [indent + line for line in self.text]
        if self.geometry.shares > 1:
            self.fork(body)

    def fork(self, body: str) -> None:
        """Call the loop once a thread, each with tiles and workspaces of its own."""
        w, tiling, shares = self.w, self.geometry.tiling, self.geometry.shares
        length, count = tiling.sizes[0], tiling.outermost
        step = tiling.tile if tiling.axis == 0 else 1
        ends = [min(count * k // shares * step, length) for k in range(shares + 1)]
        calls = []
        for k, (first, last) in enumerate(zip(ends, ends[1:])):
            own = [name if k == 0 else copies[k - 1] for name, copies in self.places.own.items()]
            calls.append(f"({', '.join([str(first), str(last), *own])})")
        fork = w.use("fork_blas", fork_blas) if self.calls_blas() else w.use("fork", fork_plain)
        w.line(f"{fork}({body}, ({', '.join(calls)}))")

    def calls_blas(self) -> bool:
        return any(line.startswith(("matmul", "vecdot")) for line in self.text)
