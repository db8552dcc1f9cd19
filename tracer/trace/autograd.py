"""Gradients inside a trace: the reverse walk, and what `.grad` holds."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tracegrad.ir import loc as _loc
from tracegrad.ir import ops
from tracegrad.ir.graph import Node, postorder
from tracegrad.ir.ops.build import plus
from tracegrad.passes.autodiff import leading_nodes, reverse, walk
from tracegrad.passes.autodiff_stages import Stage, reverse_in_stages
from tracegrad.tracer.errors import DroppedGradientError, GradientError
from tracegrad.tracer.locate import here
from tracegrad.tracer.state import set_grad_enabled
from tracegrad.tracer.tape.hooks import HookHandle, replaced
from tracegrad.tracer.tape.refused import (
    checked_cotangent,
    no_gradient_wanted,
    no_leaf,
    not_used,
    through_a_cut_view,
    walked_before,
)
from tracegrad.tracer.tensor import Tensor
from tracegrad.tracer.trace.guards import turns
from tracegrad.tracer.trace.host import TraceHost
from tracegrad.tracer.trace.tracking import LeafRecord


@dataclass(eq=False)
class GradSlot:
    """What the trace knows of one tensor's `.grad`.

    value    the traced gradient, or None
    found    how `.grad` was found when first looked at: "none", "tensor", "dropped" by a compiled
             step, or "" if the trace set it unread
    """

    tensor: Tensor
    value: Tensor | None
    found: str
    cleared: _loc.Loc | None = None
    written: bool = False

    @property
    def stays_dropped(self) -> bool:
        """Whether it is unknown: a sum with what was dropped is unknown too."""
        return self.found == "dropped" and not self.written


class TraceAutograd(TraceHost):
    """The part of a Trace that answers gradient questions.

    crossing  the values that cross from one piece of a loop's gradient to the next, cut by cut, and
              how many questions were answered when it was computed
    given     the constants that pieces of it read as if they were values
    unread    what pieces of it hand on to be like others
    """

    def __init__(self) -> None:
        super().__init__()
        self.crossing: list[tuple[int, tuple[Node, ...]]] = []
        self.given: list[Node] = []
        self.unread: list[Node] = []
        self.grads: dict[int, GradSlot] = {}
        self._older: set[Node] = set()  # there before the last walk under create_graph
        self.hooks: dict[Node, list[Any]] = {}  # of the trace's own tensors
        self._retaining: dict[int, Tensor] = {}  # tensors with history that keep their gradient

    def depends_on_others(self, tensor: Tensor, leaves: list[Tensor]) -> bool:
        """Whether gradients flow from a tensor to leaves other than these."""
        own = {self.node_of(leaf) for leaf in leaves}
        reached = postorder([self.node_of(tensor)], stop=lambda node: node not in self.active)
        return any(node in self.leaf_of and node not in own for node in reached)

    def adopt(self, tensor: Tensor) -> Tensor:
        """A tensor just made from Python values: a constant of the graph."""
        with _loc.at(here()):
            node = ops.literal(tensor._data)
        result = self.fresh(node)
        if tensor._entry is not None:
            self.require_grad(result._traced, True)
        return result

    def require_grad(self, traced: Any, value: bool) -> None:
        node = traced.node
        if value and not self.is_tracked(node):
            if not node.dtype.is_inexact:
                raise GradientError(
                    f"only floating and complex tensors can require gradients, this one is {node.dtype}",
                    where=here(),
                )
            if not traced.chain:
                # A node of its own: a clone may share its node with the tensor it was made from.
                with _loc.at(here()):
                    node = traced.cell.nodes[traced.family] = ops.reshape(node, shape=node.shape)
                traced.cell.version += 1
            tensor = Tensor.__new__(Tensor)
            tensor._traced = traced
            self.add_leaf(node, tensor)
            self.grads[id(traced)] = GradSlot(tensor, None, "")  # `.grad` of what is born here
        elif not value and node in self.active:
            raise no_leaf()
        elif not value and node in self.leaf_of:
            del self.leaf_of[node]

    def leaf_changed(self, tensor: Tensor, before: Any) -> None:
        """A tensor from outside began or ceased to want gradients; `before` is the entry it had."""
        self.undo.append(lambda: tensor._set_leaf(before))
        self.switched.setdefault(id(tensor), (tensor, before))
        inner = self.reached(tensor)
        if inner._chain:
            self.refuse("requires_grad_() of a view while recording", "call it on view.clone()")
        if inner is not tensor:
            inner._entry = tensor._entry
        cell = self.cells.get(id(inner._storage)) or self.cells.get(id(inner))
        if cell is None or inner._family not in cell.nodes:
            return
        node = cell.nodes[inner._family]
        with _loc.at(here()):
            if tensor._entry is None:
                node = ops.detach(node)
            else:
                node = ops.reshape(node, shape=node.shape)
                self.add_leaf(node, tensor)
        cell.nodes[inner._family] = node
        cell.version += 1

    def undo_host_actions(self) -> None:
        super().undo_host_actions()
        for tensor, before in self.switched.values():  # set again by the run
            tensor._set_leaf(before)

    # -- the reverse walk ------------------------------------------------------------------------

    def _reverse(
        self, tensors: list[Tensor], gradients: list[Any], wrt: list[Node], retain: bool | None, create: bool
    ) -> list[Node | None]:  # fmt: skip
        with _loc.at(here()):
            roots, cotangents = [], []
            for tensor, given in zip(tensors, gradients):
                node = self.node_of(tensor)
                gradient = checked_cotangent(tensor, self.is_tracked(node), given)
                roots.append(node)
                cotangents.append(
                    ops.splat(1, node.type) if gradient is None else self.node_of(gradient)
                )
            active = self.active
            order = postorder(roots, stop=lambda n: n not in active)
            leads = leading_nodes(order, wrt, active)
            walked = {n for n in order if n in active and not leads.isdisjoint(n.inputs)}
            if not self.walked.cut.isdisjoint(walked):
                raise through_a_cut_view()
            if self.walked.bars(walked, self.is_tracked):
                raise walked_before()
            if create:
                self._older = set(postorder([*roots, *cotangents]))
            with set_grad_enabled(create):  # the mode in which backwards of the user's run
                if self.hooks:
                    found = self._walk(roots, cotangents, wrt, create)
                elif stages := list(turns(self.guards).values()):
                    found = self._walk_in_stages(roots, cotangents, wrt, stages)
                else:
                    found = reverse(roots, cotangents, wrt, active=active)
            if not (create if retain is None else retain):
                self.walked.nodes |= walked
            if create:
                self.track_gradients([n for n in found if n is not None])
        return found

    def _walk_in_stages(
        self, roots: list[Node], cotangents: list[Node], wrt: list[Node], stages: list[Stage]
    ) -> list[Node | None]:
        found, cuts = reverse_in_stages(roots, cotangents, wrt, self.active, stages)
        # The rest goes with its gradient; what follows, with the gradient of what is before loops.
        rest, *turning, before = cuts.crossing
        if before or any(turning):
            for values in ((*roots, *self.made, *rest), *turning):
                self.crossing.append((len(self.guards), values))
        self.given += cuts.given
        self.unread += cuts.unread
        return found

    def replace_nodes(self, new: Mapping[Node, Node]) -> None:
        """Let others stand for the nodes that pieces of a loop's gradient begin and end with."""
        self.crossing = [(k, tuple(new[n] for n in cut if n in new)) for k, cut in self.crossing]
        self.given = [new[n] for n in self.given if n in new]
        self.unread = [new[n] for n in self.unread]

    def track_gradients(self, gradients: list[Node]) -> None:
        """Under create_graph: gradients carry gradients; what was there before the walk carries what
        it carried (a value made under no_grad: none).
        """
        older = self._older
        for node in postorder(gradients, stop=lambda n: n in older or self.is_tracked(n)):
            if node not in older and any(map(self.is_tracked, node.inputs)):
                self.active.add(node)

    def backward(
        self, tensors: list[Tensor], gradients: list[Any], retain_graph: bool | None, create_graph: bool, inputs: Any
    ) -> None:  # fmt: skip
        if inputs is not None:
            wanted = [inputs] if isinstance(inputs, Tensor) else list(inputs)
            gradients = self.grad_of(tensors, wanted, gradients, retain_graph, create_graph, True)
            for tensor, gradient in zip(wanted, gradients):
                if gradient is not None and self._grad_key(tensor) not in self._retaining:
                    self._accumulate(tensor, gradient)
            return
        for tensor in tensors:
            self.node_of(tensor)  # one may be a leaf that is met only here
        records = list({id(r): r for r in self.leaf_of.values()}.values())
        wrt = [node for record in records for node in record.nodes]
        found = self._gradients(tensors, gradients, wrt, retain_graph, create_graph)
        with _loc.at(here()):
            for record in records:
                total = self._sum([found[node] for node in record.nodes])
                if total is None:
                    continue
                if record.outer:
                    raise GradientError(
                        "backward() inside a compiled function reaches a tensor computed outside it",
                        why="the graph of that tensor is not part of this trace",
                        fix="compute it inside the function, or call backward() outside",
                    )
                total = self._hooked(total, self._hooks_of(record), create_graph)
                self._accumulate(record.tensor, self.fresh(total))

    def grad_of(
        self, outputs: list[Tensor], inputs: list[Tensor], cotangents: list[Any], retain_graph: bool | None,
        create_graph: bool, allow_unused: bool | None,
    ) -> list[Tensor | None]:  # fmt: skip
        groups, hooks = [], []
        for k, tensor in enumerate(inputs):
            node = self.node_of(tensor)
            if not self.is_tracked(node):
                raise no_gradient_wanted(k)
            record = self.leaf_of.get(node)
            groups.append(record.nodes if record is not None else [node])
            hooks.append(self._hooks_of(record) if record is not None else [])
        wrt = [node for group in groups for node in group]
        found = self._gradients(outputs, cotangents, wrt, retain_graph, create_graph)
        results: list[Tensor | None] = []
        with _loc.at(here()):
            for k, group in enumerate(groups):
                total = self._sum([found[node] for node in group])
                if total is None and not allow_unused:
                    raise not_used(k)
                results.append(
                    None
                    if total is None
                    else self.fresh(self._hooked(total, hooks[k], create_graph))
                )
        return results

    def _sum(self, parts: Iterable[Node | None]) -> Node | None:
        """Of the gradients that reach a tensor's values; None if there are none."""
        found = [part for part in parts if part is not None]
        return functools.reduce(self._plus, found) if found else None

    def _plus(self, one: Node, other: Node) -> Node:
        """Of two gradients; it carries one if they do."""
        total = ops.add(one, other)
        if self.is_tracked(one) or self.is_tracked(other):
            self.active.add(total)
        return total

    def _gradients(
        self, tensors: list[Tensor], gradients: list[Any], wrt: list[Node], retain: bool | None, create: bool
    ) -> dict[Node, Node | None]:  # fmt: skip
        """The gradients of the nodes `wrt`; tensors that retain theirs get them, as in PyTorch."""
        retaining = [(tensor, self._retained_node(tensor)) for tensor in self._retaining.values()]
        wrt = [*wrt, *(node for _, node in retaining)]
        found = dict(zip(wrt, self._reverse(tensors, gradients, wrt, retain, create)))
        for tensor, node in retaining:
            gradient = found[node]
            if gradient is not None:
                self._accumulate(tensor, self.fresh(gradient))
        return found

    def retain_grad(self, tensor: Tensor) -> None:
        if self.node_of(tensor) in self.active:
            self._retaining[self._grad_key(tensor)] = tensor
            self.grads.setdefault(self._grad_key(tensor), GradSlot(tensor, None, ""))

    def retains_grad(self, tensor: Tensor) -> bool:
        return self._grad_key(tensor) in self._retaining

    def _retained_node(self, tensor: Tensor) -> Node:
        """What a tensor retains the gradient of: its value, as last written with gradients."""
        node = self.node_of(tensor)
        while node.op is ops.rebind:  # a write under no_grad
            node = node.inputs[0]
        return node

    # -- hooks -----------------------------------------------------------------------------------

    def register_hook(self, tensor: Tensor, hook: Any) -> HookHandle:
        """Call `hook` on the gradient of the tensor's value of now, in every backward of this trace."""
        node = self.node_of(tensor)
        if not self.is_tracked(node):
            raise GradientError(
                "a hook needs a tensor that requires grad", fix="call x.requires_grad_() first"
            )
        if tensor._traced is None and node in self.leaf_of:
            self.refuse(
                "register_hook() on a tensor from outside, inside a compiled function",
                "register it once, before calling the function",
                "it would be registered again at every call",
            )
        hooks = self.hooks.setdefault(node, [])
        hooks.append(hook)
        return HookHandle(hooks, hook)

    def _hooked(self, node: Node, hooks: list[Any], create: bool) -> Node:
        """The gradient `node` after the hooks, which run now, on the traced gradient."""
        if not hooks:
            return node
        if create:
            self.track_gradients([node])
        with set_grad_enabled(create):
            return self.node_of(replaced(self.fresh(node), list(hooks)))

    def _hooks_of(self, record: LeafRecord) -> list[Any]:
        """Those that stand on the leaf: facts of this recording, except where it is an argument."""
        hooks = record.tensor._hooks or []
        if hooks and id(record.tensor) in self._arguments:
            self.refuse(
                "backward() inside a compiled function on an argument that has hooks",
                "register the hook on x * 1 inside the function",
                "arguments of other calls may have other hooks",
            )
        return hooks

    def _walk(
        self, roots: list[Node], cotangents: list[Node], wrt: list[Node], create: bool
    ) -> list[Node | None]:
        """`reverse`, through the hooks of the nodes on its way, the nearest to the roots first."""
        hooked = [n for n in postorder(roots) if self.hooks.get(n) and self.is_tracked(n)]
        found: dict[Node, Node | None] = {}

        def collect(roots: list[Node], cotangents: list[Node]) -> None:
            wanted = list(dict.fromkeys([*wrt, *hooked]))
            parts = walk(roots, cotangents, wanted, self.active, stop=frozenset(hooked))
            for node, part in zip(wanted, parts):
                before = found.get(node)
                found[node] = part if before is None else plus(before, part)

        collect(roots, cotangents)
        while hooked:
            node = hooked.pop()
            gradient = found.get(node)
            if gradient is not None:
                found[node] = None  # what the walk from here finds again at its root
                collect([node], [self._hooked(gradient, self.hooks[node], create)])
        return [found.get(node) for node in wrt]

    # -- .grad -----------------------------------------------------------------------------------

    def _grad_key(self, tensor: Tensor) -> int:
        return id(tensor._traced if tensor._traced is not None else tensor)

    def _slot(self, tensor: Tensor) -> GradSlot:
        """The slot, looking at the real `.grad` at first sight."""
        key = self._grad_key(tensor)
        slot = self.grads.get(key)
        if slot is None:
            real = tensor._grad
            found = "none" if real is None else "tensor"
            if tensor._dropped_grad is not None:
                found = "dropped"
            slot = self.grads[key] = GradSlot(tensor, real, found)
            self._owners.append(tensor)
        return slot

    def read_grad(self, tensor: Tensor) -> Tensor | None:
        slot = self._slot(tensor)
        if slot.stays_dropped:
            raise DroppedGradientError(
                ".grad of this tensor was computed inside a compiled step, which did not keep it", where=here(),
                fix="compile that step with keep_grads=True",
            )  # fmt: skip
        return slot.value

    def write_grad(self, tensor: Tensor, value: Tensor | None) -> None:
        key = self._grad_key(tensor)
        slot = self.grads.get(key)
        if slot is None:
            slot = self.grads[key] = GradSlot(tensor, None, "")
            self._owners.append(tensor)
            if value is None:
                slot.cleared = here()
        slot.value = value
        slot.written = True

    def _accumulate(self, tensor: Tensor, gradient: Tensor) -> None:
        slot = self._slot(tensor)
        if not slot.stays_dropped:
            self._add_to(slot, gradient)
        for hook in tensor._post_hooks or ():
            hook(tensor)

    def _add_to(self, slot: GradSlot, gradient: Tensor) -> None:
        if slot.value is None:
            slot.value = gradient
        else:
            old = self.node_of(slot.value)
            with _loc.at(here()):
                total = self._plus(old, self.node_of(gradient))
            if (
                slot.found == "tensor"
                and slot.value is slot.tensor._grad
                and not self.is_tracked(total)
            ):
                # An existing .grad is added to in place, so that its other holders see it.
                self.write(slot.value, self.fresh(total))
            else:
                slot.value = self.fresh(total)
        slot.written = True
