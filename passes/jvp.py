"""Forward-mode derivatives, made of two reverse ones.

The gradient of <ct, f(x)> with respect to x is J^T ct, linear in ct; the gradient of that with
respect to ct, weighted by a tangent t, is J t: the directional derivative. What only the inner walk
needed is reached by nothing and falls away.
"""

from __future__ import annotations

from collections.abc import Sequence

from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, Node, placeholder
from tracegrad.ir.loc import at
from tracegrad.passes.autodiff import carries_gradient, reverse


def tangents(
    outputs: Sequence[Node], wrt: Sequence[Node], directions: Sequence[Node | None]
) -> list[Node | None]:
    """The derivative of each output when `wrt` moves along `directions`; None where nothing moves.

    None as a direction counts as zero. Outputs of ints and bools do not move.
    """
    found: list[Node | None] = []
    for output in outputs:
        if not carries_gradient(output):
            found.append(None)
            continue
        with at(output.loc.through("jvp")):
            ct = ops.zeros_like(output)  # its value does not matter, J^T ct being linear in it
        gradients = reverse([output], [ct], wrt)
        moving = [
            (gradient, direction)
            for gradient, direction in zip(gradients, directions, strict=True)
            if gradient is not None and direction is not None
        ]
        if not moving:
            found.append(None)
            continue
        (tangent,) = reverse([g for g, _ in moving], [d for _, d in moving], [ct])
        found.append(tangent)
    return found


def tangent_graph(
    graph: Graph,
    wrt_indices: Sequence[int] | None = None,
    output_indices: Sequence[int] | None = None,
) -> Graph:
    """(inputs of `graph`, a tangent per moving input) -> outputs of `graph`, then their tangents.

    wrt_indices     which inputs move; None: all of float or complex dtype
    output_indices  which outputs' tangents are wanted; None: all of float or complex dtype

    A tangent is zeros where nothing moves. Raises MissingVJPError as `reverse` does.
    """
    if wrt_indices is None:
        wrt_indices = [k for k, node in enumerate(graph.inputs) if carries_gradient(node)]
    if output_indices is None:
        output_indices = [k for k, node in enumerate(graph.outputs) if carries_gradient(node)]
    wrt = [graph.inputs[k] for k in wrt_indices]
    directions = [placeholder(node.type, node.loc) for node in wrt]
    outputs = [graph.outputs[k] for k in output_indices]
    moved = []
    for output, tangent in zip(outputs, tangents(outputs, wrt, directions)):
        if tangent is None:
            with at(output.loc.through("jvp")):
                tangent = ops.zeros_like(output)
        moved.append(tangent)
    return Graph(
        (*graph.inputs, *directions),
        (*graph.outputs, *moved),
        (*graph.input_names, *(f"tangent.{graph.input_names[k]}" for k in wrt_indices)),
        (*graph.output_names, *(f"tangent.{graph.output_names[k]}" for k in output_indices)),
        (*graph.input_roles, *("argument" for _ in directions)),
        (*graph.output_roles, *("result" for _ in moved)),
        name=f"{graph.name}.jvp",
    )
