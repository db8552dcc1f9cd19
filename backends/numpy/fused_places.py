"""Where the values of a fused loop live while a tile is computed.

Each gets a place: the result's own tile, the place of an operand that dies there, or a workspace of
one tile. Values with one element a row have shape (.., 1).
"""

from __future__ import annotations

from tracegrad.backends.numpy.codegen_elementwise import alias_positions, needs_scratch
from tracegrad.backends.numpy.fused_geometry import Geometry
from tracegrad.backends.numpy.loops import Axes
from tracegrad.ir.graph import Node
from tracegrad.ir.types import DType
from tracegrad.passes.memory.storage import Shape, Storage


class Place:
    """A name, and until which instruction it is in use.

    result  the output whose own tile it is, or -1
    """

    def __init__(self, name: str, dtype: DType, busy: int, result: int = -1):
        self.name, self.dtype, self.busy, self.result = name, dtype, busy, result


class Places:
    """The places of one loop, handed out in the order of its body.

    names   of the values computed so far, and of the operands
    slices  what is cut out of arrays at the top of the loop: expression -> name
    own     workspace -> its copies for the other threads
    """

    def __init__(self, geometry: Geometry):
        self.geometry, self.loop, self.w = geometry, geometry.loop, geometry.w
        self.when = {member: index for index, member in enumerate(self.loop.body)}
        self.last_use = self._last_uses()
        self.names: dict[Node, str] = {}
        self.slices: dict[str, str] = {}
        self.own: dict[str, list[str]] = {}
        self.places: list[Place] = []
        self.result_places: list[Place] = []
        self._enter_operands()

    def _last_uses(self) -> dict[Node, int]:
        loop, last = self.loop, {}
        for member in loop.body:
            last[member] = self.when[member]
            for x in member.inputs:
                last[loop.source(x)] = self.when[member]
        for member in loop.body:
            # Factors are read by the sum, not by the product before it.
            for x in self.geometry.product(member) or ():
                last[loop.source(x)] = max(last[loop.source(x)], self.when[member])
        return last

    def _enter_operands(self) -> None:
        last_read: dict[int, int] = {}
        for x, (index, axes) in self.loop.access.items():
            view = self.geometry.operands[x]
            name, shape = self.geometry.array(self.geometry.node.inputs[index], view, axes)
            self.names[x] = self._tile_of(name, shape)
            root = id(view.storage.root())
            last_read[root] = max(last_read.get(root, -1), self.last_use.get(x, -1))
        self._dying_operands(last_read)
        domain = self.loop.domain
        for index, (output, view) in enumerate(zip(self.loop.graph.outputs, self.geometry.results)):
            row = self.loop.source(output) in self.loop.rows
            lead = tuple(range(len(domain) - 1))
            own: Axes = (*lead, None) if row else (*lead, len(domain) - 1)
            name, shape = self.geometry.array(None, view, own)
            busy = last_read.get(id(view.storage.root()), -1)
            place = Place(self._tile_of(name, shape), view.dtype, busy, index)
            self.result_places.append(place)
            if not row:
                self.places.append(place)

    def _dying_operands(self, last_read: dict[int, int]) -> None:
        """Operands that nobody reads after this node are workspaces once they are read here."""
        results = {id(view.storage.root()) for view in self.geometry.results}
        for x, (index, axes) in self.loop.access.items():
            view = self.geometry.operands[x]
            storage = view.storage.root()
            full = all(a is not None or n == 1 for a, n in zip(axes, self.loop.domain))
            if (
                storage.kind == "arena"
                and storage.end == self.w.step
                and id(storage) not in results
                and full
                and view.whole
                and sum(self._reads(i, storage) for i in self.geometry.node.inputs) == 1
                and sum(i == index for i, _ in self.loop.access.values()) == 1
            ):
                self.places.append(Place(self.names[x], view.dtype, last_read[id(storage)]))

    def _reads(self, operand: Node, storage: Storage) -> bool:
        return any(view.storage.root() is storage for view in self.w.placed.parts(operand))

    # -- names -----------------------------------------------------------------------------------

    def _tile_of(self, name: str, shape: Shape) -> str:
        """A name for the tile of a canonical array, sliced at the top of the loop."""
        subscript = self.geometry.tiling.subscript(shape)
        return self._slice(f"{name}[{subscript}]") if subscript else name

    def _slice(self, expression: str) -> str:
        return self.slices.setdefault(expression, f"t{len(self.slices)}")

    def workspace(self, dtype: DType, row: bool = False) -> str:
        """A new tile for each thread; named is the first."""
        tiling = self.geometry.tiling
        shape = (*tiling.shape[:-1], 1) if row else tiling.shape
        copies = [self.w.view(self.w.workspace(shape, dtype)) for _ in range(self.geometry.shares)]
        self.own[copies[0]] = copies[1:]
        return self.tile(copies[0])

    def tile(self, name: str) -> str:
        """An array of a tile's shape, as long as the last tile needs it."""
        return name if self.geometry.tiling.even else self._slice(f"{name}[:n]")

    # -- choosing --------------------------------------------------------------------------------

    def choose(self, member: Node) -> str:
        """The place of the full-sized value `member`."""
        now, until = self.when[member], self.last_use[member]
        results = self.geometry.result_of(member)
        if results:
            place = self.result_places[results[0]]
            if place.busy < now or (place.busy == now and self._dying(member, place)):
                place.busy = len(self.loop.body)
                return place.name
        best = None
        for place in self.places:
            if place.dtype is not member.dtype:
                continue
            if place.busy > now or (place.busy == now and not self._dying(member, place)):
                continue
            if place.result >= 0:
                owner = self.loop.source(self.loop.graph.outputs[place.result])
                end = self.when[owner]
                if now >= end or until > end or (until == end and not self._safe(owner, member)):
                    continue
            elif results and place.result < 0 and best is not None:
                continue
            # In place first, then a result's own tile, then a free workspace.
            rank = (place.busy != now, place.result < 0)
            if best is None or rank < best[0]:
                best = (rank, place)
        if best is None:
            chosen = Place(self.workspace(member.dtype), member.dtype, until)
            self.places.append(chosen)
        else:
            chosen = best[1]
        chosen.busy = until if not results else len(self.loop.body)
        return chosen.name

    def row_free(self, member: Node, result: int) -> bool:
        """Whether the result's rows may be written now: nobody reads an operand there later."""
        place, now = self.result_places[result], self.when[member]
        return place.busy < now or (place.busy == now and self._dying(member, place))

    def scratch(self, member: Node) -> str:
        """The temporary of `member`'s own code."""
        dtype = needs_scratch(member)
        assert dtype is not None
        now = self.when[member]
        for place in self.places:
            if place.dtype is dtype and place.busy < now and place.result < 0:
                place.busy = now
                return place.name
        place = Place(self.workspace(dtype), dtype, now)
        self.places.append(place)
        return place.name

    def _dying(self, member: Node, place: Place) -> bool:
        """Whether `member` may be written over `place`: it reads it last, at safe positions."""
        allowed = alias_positions(member)
        for position, x in enumerate(member.inputs):
            if self.names.get(self.loop.source(x)) == place.name and position not in allowed:
                return False
        return True

    def _safe(self, reader: Node, value: Node) -> bool:
        """Whether `reader` may be written over its operand `value`."""
        allowed = alias_positions(reader)
        return all(
            position in allowed
            for position, x in enumerate(reader.inputs)
            if self.loop.source(x) is value
        )
