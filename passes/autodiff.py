"""Reverse-mode differentiation: emits, for each node from the outputs back, what its op's VJP says.

Before: y = tanh(x)            After: ct * (1 - y * y), located "net.py:41 <- vjp(tanh)"

Gradients are ordinary nodes, so differentiating them again gives the higher orders. Composites are
differentiated whole where they have a VJP and through their decomposition where not. Note [Complex
gradients] in ir/ops/elementwise.py tells what a gradient with respect to a complex value is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from weakref import WeakKeyDictionary

from tracegrad.ir import ops
from tracegrad.ir.errors import IRError, IRTypeError, MissingVJPError
from tracegrad.ir.graph import Graph, Node, placeholder, postorder
from tracegrad.ir.loc import at, reset_ambient, set_ambient
from tracegrad.ir.types import TensorType, TupleType

Cotangents = list[Node | None]  # one per part of a value; a tensor is a value of one part
# A rule for ops that hold graphs: (node, cotangents of its parts, nodes that lead to wrt) -> one
# gradient or None per input. passes/autodiff_control.py has them.
ControlRule = Callable[[Node, Cotangents, Collection[Node]], Sequence[Node | None]]


def reverse(
    outputs: Sequence[Node],
    cotangents: Sequence[Node | None],
    wrt: Sequence[Node],
    active: Collection[Node] | None = None,
) -> list[Node | None]:
    """Gradients of sum(<cotangent, output>) with respect to `wrt`; None where none flows.

    outputs     tensors; cotangents have their types, None counts as zero
    wrt         any nodes, inner ones too; those of integers and bools get None
    active      nodes through which gradients may flow; None: all that lead from wrt to an output

    Every emitted node gets the location of the node whose VJP emitted it, one step `vjp(op)` later.
    Raises MissingVJPError where a gradient reaches an op that has none.
    """
    return walk(outputs, cotangents, wrt, active, stop=frozenset())


def walk(
    outputs: Sequence[Node],
    cotangents: Sequence[Node | None],
    wrt: Sequence[Node],
    active: Collection[Node] | None,
    stop: Collection[Node],
) -> list[Node | None]:
    """`reverse`, except that the nodes in `stop` end it, as graph inputs do."""
    order = postorder(outputs, stop=stop.__contains__)
    leads = leading_nodes(order, wrt, active)
    found: dict[Node, Cotangents] = {}
    for output, cotangent in zip(outputs, cotangents, strict=True):
        if cotangent is not None and output in leads:
            _check_type(cotangent, output, "the cotangent given for an output")
            with at(output.loc.through("vjp(output)")):
                _accumulate(found, output, cotangent)
    for node in reversed(order):
        parts = found.get(node)
        if parts is None or not node.inputs or node in stop:
            continue
        token = set_ambient(node.loc.through(f"vjp({node.op.name})"))
        try:
            if node.op is ops.proj:
                _accumulate(found, node.inputs[0], parts[0], node.attrs.index)
                continue
            gradients = _vjp(node, parts, leads)
            if len(gradients) != len(node.inputs):
                raise IRError(
                    f"vjp({node.op.name}) gave {len(gradients)} gradients for "
                    f"{len(node.inputs)} inputs; give one node or None for each"
                )
            for operand, gradient in zip(node.inputs, gradients):
                if gradient is not None and operand in leads:
                    _check_type(gradient, operand, f"the result of vjp({node.op.name})")
                    _accumulate(found, operand, gradient)
        finally:
            reset_ambient(token)
    return [found[node][0] if node in found else None for node in wrt]


def leading_nodes(
    order: Iterable[Node], wrt: Iterable[Node], active: Collection[Node] | None = None
) -> set[Node]:
    """The nodes of `order` (inputs first) through which a gradient can reach `wrt`."""
    sources = set(wrt)
    leads: set[Node] = set()
    for node in order:
        if not carries_gradient(node):
            continue
        if node in sources:
            leads.add(node)
        elif active is None or node in active:
            if any(operand in leads for operand in _differentiable_inputs(node)):
                leads.add(node)
    return leads


def carries_gradient(node: Node) -> bool:
    """Whether the dtype of the value, or of one of its parts, has gradients."""
    if isinstance(node.type, TupleType):
        return any(part.dtype.is_inexact for part in node.type.parts)
    return bool(node.dtype.is_inexact)


def _differentiable_inputs(node: Node) -> tuple[Node, ...]:
    if node.op is ops.detach:
        return ()
    if node.op is ops.rebind:  # value of the second, gradient to the first
        return node.inputs[:1]
    return node.inputs


def _accumulate(
    found: dict[Node, Cotangents], node: Node, cotangent: Node | None, part: int = 0
) -> None:
    """Add to what was found so far; the sum is located at whoever brings the second term."""
    count = len(node.type.parts) if isinstance(node.type, TupleType) else 1
    parts = found.setdefault(node, [None] * count)
    if cotangent is not None:
        parts[part] = plus_found(parts[part], cotangent)


def plus_found(before: Node | None, cotangent: Node) -> Node:
    """The sum of what was found for a value so far and of one term more."""
    if before is None or _is_zero(before):
        return cotangent
    return before if _is_zero(cotangent) else ops.add(before, cotangent)


def _is_zero(cotangent: Node) -> bool:
    """Whether it is the constant zero: what a piecewise constant op hands on adds nothing."""
    return cotangent.op is ops.constant and cotangent.attrs.value.splat == 0


def _check_type(gradient: Node, node: Node, what: str) -> None:
    if gradient.type is not node.type and gradient.type != node.type:
        raise IRTypeError(
            f"{what} must have the type {node.type} of {node!r}, but is {gradient.type}"
        )


def _vjp(node: Node, cotangents: Cotangents, leads: Collection[Node]) -> Sequence[Node | None]:
    from tracegrad.passes.autodiff_control import CONTROL_RULES  # they differentiate sub-graphs

    op = node.op
    control = CONTROL_RULES.get(op)
    if control is not None:
        return control(node, cotangents, leads)
    if op.vjp is not None:
        several = isinstance(node.type, TupleType)
        ct = tuple(cotangents) if several else cotangents[0]
        return op.vjp(ct, node, *node.inputs, **node.attrs)
    if op.decompose is not None:
        parts = op.decompose(*node.inputs, **node.attrs)
        return through(parts if isinstance(parts, tuple) else (parts,), node, cotangents, leads)
    raise missing(node, op.not_differentiable)


def through(
    parts: Sequence[Node], node: Node, cotangents: Cotangents, leads: Collection[Node]
) -> list[Node | None]:
    """Gradients of the inputs of `node` by way of `parts`, which compute the same from them."""
    wanted = [operand for operand in dict.fromkeys(node.inputs) if operand in leads]
    found = walk(parts, cotangents, wanted, None, stop=frozenset(node.inputs))
    gradient = dict(zip(wanted, found))
    # An input that is given twice has one gradient; hand it out once.
    return [gradient.pop(operand, None) for operand in node.inputs]


def missing(node: Node, reason: str) -> MissingVJPError:
    return MissingVJPError(
        f"{node.op.name} at {node.loc} has no gradient: {reason or 'no vjp is written for it'}\n"
        "  fix:   to stop the gradient here call .detach() on its input; else compute this value by "
        f"differentiable operations  [{MissingVJPError.code}]"
    )


# ---------------------------------------------------------------- whole graphs

_vjp_graphs: WeakKeyDictionary[Graph, dict[object, Graph]] = WeakKeyDictionary()


def gradient_graph(
    graph: Graph,
    wrt_indices: Sequence[int] | None = None,
    output_indices: Sequence[int] | None = None,
) -> Graph:
    """(inputs of `graph`, a cotangent per output) -> gradients of the inputs, or zeros.

    wrt_indices     which inputs; None: all of float or complex dtype
    output_indices  which outputs have a cotangent; None: all of float or complex dtype

    One graph is made per graph and choice of indices, so equal calls share it.
    """
    if wrt_indices is None:
        wrt_indices = [k for k, node in enumerate(graph.inputs) if carries_gradient(node)]
    if output_indices is None:
        output_indices = [k for k, node in enumerate(graph.outputs) if carries_gradient(node)]
    made = _vjp_graphs.setdefault(graph, {})
    key = (tuple(wrt_indices), tuple(output_indices))
    if key not in made:
        made[key] = _gradient_graph(graph, *key)
    return made[key]


def _gradient_graph(
    graph: Graph, wrt_indices: tuple[int, ...], output_indices: tuple[int, ...]
) -> Graph:
    outputs = [graph.outputs[k] for k in output_indices]
    cotangents = [placeholder(_tensor(node), node.loc) for node in outputs]
    wrt = [graph.inputs[k] for k in wrt_indices]
    gradients = []
    for node, gradient in zip(wrt, reverse(outputs, cotangents, wrt)):
        if gradient is None:
            with at(node.loc.through("vjp(input)")):
                gradient = ops.zeros_like(node)
        gradients.append(gradient)
    return Graph(
        (*graph.inputs, *cotangents),
        tuple(gradients),
        (*graph.input_names, *_cotangent_names(graph, output_indices)),
        tuple(f"grad.{graph.input_names[k]}" for k in wrt_indices),
        (*graph.input_roles, *("cotangent" for _ in cotangents)),
        tuple("gradient" for _ in gradients),
        name=f"{graph.name}.vjp",
    )


def _cotangent_names(graph: Graph, output_indices: Iterable[int]) -> list[str]:
    """ "ct.y" for output y; a later order, where that name is taken, adds primes."""
    taken = set(graph.input_names)
    names = []
    for k in output_indices:
        name = f"ct.{graph.output_names[k]}"
        while name in taken:
            name += "'"
        taken.add(name)
        names.append(name)
    return names


def _tensor(node: Node) -> TensorType:
    if not isinstance(node.type, TensorType):
        raise IRTypeError(f"an output must be a tensor, not {node!r}; take its parts with proj")
    return node.type
