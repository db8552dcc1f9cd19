"""Nodes and graphs: the sentences of the language.

A node is immutable and compared by identity: two equal-looking parameters are two parameters. A
graph is its inputs, its outputs and the deterministic topological order of what lies between.
Nothing mutates; a pass that changes something builds new nodes with `emit` (or `rebuild`) and
returns a new graph.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, ItemsView, Iterable, Iterator, Mapping, ValuesView
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tracegrad.ir import loc as _loc
from tracegrad.ir.errors import IRError, IRTypeError
from tracegrad.ir.exact import exact
from tracegrad.ir.hazards import Hazard
from tracegrad.ir.loc import Loc
from tracegrad.ir.types import TensorType, Type

EMPTY: dict[str, Any] = {}


class Attrs(Mapping[str, Any]):
    """Immutable attributes of a node, read as items or as names (`node.attrs.axes`).

    Equal when every value is the same value: 0.0 is not -0.0, True is not 1, nan is nan (`exact`).
    """

    __slots__ = ("_items", "_key")
    _items: dict[str, Any]
    _key: Hashable  # made when it is first asked for

    def __init__(self, items: Mapping[str, Any] = EMPTY):
        object.__setattr__(self, "_items", dict(items))

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    # Mapping's own go through __getitem__ for every entry; every pass asks for these at every node.
    def items(self) -> ItemsView[str, Any]:
        return self._items.items()

    def values(self) -> ValuesView[Any]:
        return self._items.values()

    def __getattr__(self, name: str) -> Any:
        try:
            return self._items[name]
        except KeyError:
            raise AttributeError(f"no attribute {name!r}; has {list(self._items)}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        raise IRError("attributes of a node never change; emit a new node")

    def _exact(self) -> Hashable:
        try:
            return object.__getattribute__(self, "_key")  # type: ignore[no-any-return]
        except AttributeError:
            key = tuple([(name, exact(value)) for name, value in self._items.items()])
            object.__setattr__(self, "_key", key)
            return key

    def __hash__(self) -> int:
        return hash(self._exact())

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Attrs) and self._exact() == other._exact()

    def __repr__(self) -> str:
        return ", ".join(f"{key}={value!r}" for key, value in self._items.items())

    def __reduce__(self) -> tuple[Any, ...]:
        return Attrs, (self._items,)


NO_ATTRS = Attrs()


@dataclass(frozen=True, eq=False)
class Op:
    """One word of the language; one paragraph in `ir/ops/<family>.py` each.

    attrs      names of the attributes, in the order the text form prints them; all are always given
    infer      type rule: (*input types, **attrs) -> Type; raises IRTypeError
    vjp        (ct, out, *inputs, **attrs) -> one node or None per input; only emits IR.
               For a several-result op `ct` is a tuple of nodes or None, one per part.
    not_differentiable  the reason, where there is no vjp
    decompose  (*inputs, **attrs) -> node (or tuple of nodes for several results) of simpler ops
    traits     what passes may ask (never the name): see `ir/ops/traits.py`
    flops      (node) -> float, floating-point operations; None: one per output element
    hazards    (node) -> what it may raise for the values it gets, see ir/hazards.py; None: nothing,
               or what its sub-graphs may raise for. Ask passes.hazards, which knows more.
    """

    name: str
    attrs: tuple[str, ...] = ()
    infer: Callable[..., Type] = field(default=None, repr=False)  # type: ignore[assignment]
    vjp: Callable[..., tuple[Any, ...]] | None = field(default=None, repr=False)
    not_differentiable: str = ""
    decompose: Callable[..., Any] | None = field(default=None, repr=False)
    traits: frozenset[str] = frozenset()
    flops: Callable[[Node], float] | None = field(default=None, repr=False)
    hazards: Callable[[Node], Iterable[Hazard]] | None = field(default=None, repr=False)

    def has(self, trait: str) -> bool:
        return trait in self.traits

    def __call__(self, *inputs: Node, **attrs: Any) -> Node:
        return emit(self, *inputs, **attrs)

    def __reduce__(self) -> tuple[Any, ...]:
        from tracegrad.ir.ops import op_named

        return op_named, (self.name,)

    def __repr__(self) -> str:
        return f"<op {self.name}>"


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One value: an op applied to nodes. Only `emit` and `rebuild` construct one."""

    op: Op
    inputs: tuple[Node, ...]
    attrs: Attrs
    type: Any  # TensorType, or TupleType for a several-result op before its `proj`
    loc: Loc

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.shape  # type: ignore[no-any-return]

    @property
    def dtype(self) -> Any:
        return self.type.dtype

    @property
    def ndim(self) -> int:
        return len(self.type.shape)

    def __repr__(self) -> str:
        inputs = ", ".join(f"{node.op.name}:{node.type}" for node in self.inputs)
        attrs = f"; {self.attrs!r}" if self.attrs else ""
        return f"<{self.type} = {self.op.name}({inputs}{attrs})  # {self.loc}>"

    # A graph of depth 2,000 cannot be copied by recursion, and an immutable node needs no copy.
    def __copy__(self) -> Node:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Node:
        return self

    # Sugar for VJPs, decompositions and rules, from ir/ops/sugar.py. Strict: a Python scalar
    # becomes a splat constant of this node's type, two nodes must have equal types.
    if TYPE_CHECKING:

        def __add__(self, other: Any) -> Node: ...
        def __radd__(self, other: Any) -> Node: ...
        def __sub__(self, other: Any) -> Node: ...
        def __rsub__(self, other: Any) -> Node: ...
        def __mul__(self, other: Any) -> Node: ...
        def __rmul__(self, other: Any) -> Node: ...
        def __truediv__(self, other: Any) -> Node: ...
        def __rtruediv__(self, other: Any) -> Node: ...
        def __neg__(self) -> Node: ...


def emit(op: Op, *inputs: Node, **attrs: Any) -> Node:
    """The node `op(*inputs, **attrs)`: type by the op's rule, location from the ambient one.

    Raises IRTypeError (naming the op and the input types) when the rule refuses.
    """
    if not attrs and not op.attrs:  # most nodes
        return Node(op, inputs, NO_ATTRS, infer(op, inputs, NO_ATTRS), _loc.current())
    if attrs.keys() != set(op.attrs):
        raise IRTypeError(f"{op.name}: attributes {sorted(attrs)} given, {list(op.attrs)} expected")
    ordered = Attrs({name: attrs[name] for name in op.attrs})
    return Node(op, inputs, ordered, infer(op, inputs, ordered), _loc.current())


def infer(op: Op, inputs: tuple[Node, ...], attrs: Attrs) -> Type:
    """Run the type rule, with the op and its inputs in the error message."""
    try:
        # The dict itself: `**` of a Mapping goes through Python code for each key.
        return op.infer(*[node.type for node in inputs], **attrs._items)
    except IRTypeError as error:
        if str(error).startswith(op.name + ":"):
            raise
        types = ", ".join(str(node.type) for node in inputs)
        raise IRTypeError(f"{op.name}: {error} (inputs: {types or 'none'})") from None
    except TypeError as error:
        types = ", ".join(str(node.type) for node in inputs)
        raise IRTypeError(f"{op.name}: wrong number or kind of inputs ({types}): {error}") from None
    except AttributeError:  # a rule that asked several results for their shape or dtype
        several = next(
            (node.type for node in inputs if not isinstance(node.type, TensorType)), None
        )
        if several is None:
            raise
        raise IRTypeError(
            f"{op.name}: an operand must be a tensor, not {several}; take its parts with proj"
        ) from None


def rebuild(node: Node, inputs: tuple[Node, ...], loc: Loc | None = None) -> Node:
    """The same op on other inputs, at its own location. `node` itself if nothing changed."""
    if loc is None and all(a is b for a, b in zip(inputs, node.inputs, strict=True)):
        return node
    same_types = all(a.type == b.type for a, b in zip(inputs, node.inputs, strict=True))
    type_ = node.type if same_types else infer(node.op, inputs, node.attrs)
    return Node(node.op, inputs, node.attrs, type_, loc or node.loc)


def placeholder(type: TensorType, loc: Loc | None = None) -> Node:
    """A new graph input of `type`. Its name and role stand in the Graph, not in the node."""
    return Node(INPUT, (), NO_ATTRS, type, loc or _loc.current())


def _input_has_no_rule() -> Type:
    raise IRTypeError("a graph input is made by `placeholder`, not emitted")


INPUT = Op("input", infer=_input_has_no_rule, not_differentiable="differentiation ends at inputs")


def postorder(roots: Iterable[Node], stop: Callable[[Node], bool] | None = None) -> list[Node]:
    """Every node reachable from `roots`, inputs first, in a deterministic order; no recursion.

    Where `stop(node)` holds the node is listed but its inputs are not entered.
    """
    order: list[Node] = []
    done: set[Node] = set()
    for root in roots:
        stack: list[tuple[Node, int]] = [(root, 0)]
        while stack:
            node, index = stack.pop()
            if node in done:
                continue
            if index < len(node.inputs) and not (stop is not None and stop(node)):
                stack.append((node, index + 1))
                if node.inputs[index] not in done:
                    stack.append((node.inputs[index], 0))
            else:
                done.add(node)
                order.append(node)
    return order


@dataclass(frozen=True, eq=False)
class Graph:
    """Inputs, outputs, and what each is for.

    input_names / output_names are unique within their tuple. Roles of inputs: "argument", "state"
    (captured, possibly updated), "slot" (state found by its name), "host" (a Python number read at
    every call), "random" (a stream's state), "import" (from an earlier segment), "cotangent". Roles of
    outputs: "result", "state:<input name>" (the new value of that state input), "guard", "export",
    "saved" (for a gradient), "gradient", "unread" (it may raise, and nothing else wants it).
    """

    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]
    input_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()
    input_roles: tuple[str, ...] = ()
    output_roles: tuple[str, ...] = ()
    name: str = "graph"

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "inputs", tuple(self.inputs))
        set_(self, "outputs", tuple(self.outputs))
        n, m = len(self.inputs), len(self.outputs)
        set_(self, "input_names", tuple(self.input_names) or tuple(f"in{i}" for i in range(n)))
        set_(self, "output_names", tuple(self.output_names) or tuple(f"out{i}" for i in range(m)))
        set_(self, "input_roles", tuple(self.input_roles) or ("argument",) * n)
        set_(self, "output_roles", tuple(self.output_roles) or ("result",) * m)
        for what, values in (("input", (self.input_names, self.input_roles)),
                             ("output", (self.output_names, self.output_roles))):  # fmt: skip
            count = n if what == "input" else m
            if any(len(value) != count for value in values):
                raise IRError(f"graph {self.name!r}: {count} {what}s need as many names and roles")

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, inputs of the graph first, every node after its inputs."""
        order = postorder(self.outputs)
        own = set(self.inputs)
        for node in order:
            if node.op is INPUT and node not in own:
                raise IRError(
                    f"graph {self.name!r}: an input of another graph is reachable: {node!r}"
                )
        return (*self.inputs, *(node for node in order if node not in own))

    def with_outputs(self, outputs: Iterable[Node], **changes: Any) -> Graph:
        """The same inputs and signature with other output nodes."""
        return self.replace(outputs=tuple(outputs), **changes)

    def replace(self, **changes: Any) -> Graph:
        return replace(self, **changes)

    def users(self) -> dict[Node, list[Node]]:
        """For every node, the nodes that read it (once per read)."""
        users: dict[Node, list[Node]] = {node: [] for node in self.nodes}
        for node in self.nodes:
            for operand in node.inputs:
                users[operand].append(node)
        return users

    @cached_property
    def updates(self) -> dict[int, int]:
        """Positions of outputs -> of the inputs whose new values they are ("state:<input name>").

        State that is overwritten without being read is no input, and stands not here.
        """
        at = {f"state:{name}": position for position, name in enumerate(self.input_names)}
        return {k: at[role] for k, role in enumerate(self.output_roles) if role in at}

    def fingerprint(self) -> str:
        """Identity of the program: ops, attributes, types, edges, constants, and which output is
        the new value of which input; not lines or names.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        from tracegrad.ir.fingerprint import fingerprint

        return fingerprint(self)

    def __str__(self) -> str:
        from tracegrad.ir.text import print_graph

        return print_graph(self)

    def __repr__(self) -> str:
        counts = f"{len(self.inputs)} inputs, {len(self.nodes)} nodes, {len(self.outputs)} outputs"
        return f"<Graph {self.name!r}: {counts}>"

    def __reduce__(self) -> tuple[Any, ...]:
        from tracegrad.ir.serialise import from_bytes, to_bytes

        return from_bytes, (to_bytes(self),)

    def __deepcopy__(self, memo: dict[int, Any]) -> Graph:
        return self


def substitute(graph_outputs: Iterable[Node], mapping: dict[Node, Node]) -> tuple[Node, ...]:
    """Rebuild what leads to the outputs with `mapping` applied (keys are not entered)."""
    outputs = tuple(graph_outputs)
    new = dict(mapping)
    for node in postorder(outputs, stop=mapping.__contains__):
        if node not in new:
            new[node] = rebuild(node, tuple(new[operand] for operand in node.inputs))
    return tuple(new[node] for node in outputs)


def inline(graph: Graph, arguments: Iterable[Node]) -> tuple[Node, ...]:
    """The outputs of `graph` with its inputs replaced by `arguments`. Locations are kept."""
    return substitute(graph.outputs, dict(zip(graph.inputs, arguments, strict=True)))


__all__ = ["Attrs", "Graph", "INPUT", "Node", "Op", "emit", "infer", "inline", "placeholder",
           "postorder", "rebuild", "substitute"]  # fmt: skip
