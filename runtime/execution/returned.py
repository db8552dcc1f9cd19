"""What a run returns, and what it binds names to: found where it was, or made; see `Result`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tracegrad.runtime.execution.plan import Plan
from tracegrad.runtime.recordings.made import copied
from tracegrad.runtime.recordings.origins import follow
from tracegrad.runtime.recordings.recorded import Result
from tracegrad.tracer.memory.storage import Storage
from tracegrad.tracer.memory.views import detach, make_view
from tracegrad.tracer.state import EAGER_GRAD, EAGER_NO_GRAD, reset_mode, set_mode
from tracegrad.tracer.tape.entries import FREED, Entry, Leaf
from tracegrad.tracer.tensor import Tensor

if TYPE_CHECKING:
    from tracegrad.runtime.execution.commit import Committer, Run


class Returned:
    """The values of one run.

    entries  tape entries of outputs, by index
    made     what is there already: tensors by output, views and new objects by what makes them
    """

    def __init__(
        self, committer: Committer, plan: Plan, outputs: list[Any], run: Run, entries: dict[int, Entry]
    ):  # fmt: skip
        self.committer, self.plan, self.outputs, self.run = committer, plan, outputs, run
        self.call = run.call
        self.entries = entries
        self.made: dict[int, Any] = {}

    def values(self, results: list[Result]) -> list[Any]:
        return [_BY_KIND[result.kind](self, result) for result in results]

    # -- what was there --------------------------------------------------------------------------

    def same(self, result: Result) -> Any:
        return result.value

    def argument(self, result: Result) -> Tensor:
        return self.call.tensors[result.index]

    def slot(self, result: Result) -> Any:
        return self.run.found[id(result.value)]

    def grad(self, result: Result) -> Any:
        grad = self.plan.grads[result.index]
        return (grad.tensor if grad.argument < 0 else self.call.tensors[grad.argument])._grad

    def leaf(self, result: Result) -> Any:
        return self.call.leaves[result.value]

    def container(self, result: Result) -> Any:
        return follow((self.call.args, self.call.kwargs), result.value)

    def owner(self, result: Result) -> Tensor:
        item = self.plan.inputs[result.index]
        owner = self.committer.owner_of(item, self.run)
        if owner.__class__ is not Storage:
            return self.seen_of(owner, result)
        given = item.kind == "argument"
        through = self.call.tensors[item.position] if given else item.tensor
        return self.seen_of(owner.base(through._family), result)

    # -- what is made ----------------------------------------------------------------------------

    def number(self, result: Result) -> Any:
        return self.committer.wrap(self.outputs[result.index])._data.item()

    def formula(self, result: Result) -> Any:
        return result.value.value(self.run.numbers)

    def output(self, result: Result) -> Tensor:
        base = self.made.get(result.index)
        if base is None:
            base = self.made[result.index] = self.committer.wrap(self.outputs[result.index])
            entry = self.entries.get(result.index)
            if entry is not None:
                base._entry = entry
            elif result.leaf:
                base._entry = Leaf(base)
            elif result.freed:
                base._entry = Entry(FREED, (), tuple(base.shape), base.dtype.np)
            if result.parts:
                (base._grad,) = self.values(result.parts)
        return self.seen_of(base, result)

    def seen_of(self, base: Tensor, result: Result) -> Tensor:
        """What the function returned of `base`, one object each time: itself, or a view, or without
        its history.
        """
        if not result.chain and not result.detached:
            return base
        seen = self.made.get(id(result))
        if seen is None:
            seen = detach(base) if result.detached else base
            token = set_mode(EAGER_GRAD if result.tracked else EAGER_NO_GRAD)
            try:
                for step in result.chain:
                    seen = make_view(seen, step)
            finally:
                reset_mode(token)
            seen._unwritable = result.unwritable
            self.made[id(result)] = seen
        return seen

    def copy(self, result: Result) -> Any:
        if id(result) not in self.made:
            self.made[id(result)] = copied(result.value)
        return self.made[id(result)]

    def object(self, result: Result) -> Any:
        """A new object: there before its parts, which may hold it, wherever it can be."""
        if id(result) not in self.made:
            form, treedef = result.value
            if not form.at_once:
                self.made[id(result)] = form.blank()
            parts = treedef.unflatten(self.values(result.parts))
            if form.at_once:
                self.made[id(result)] = form.whole(parts)
            else:
                form.fill(self.made[id(result)], parts)
        return self.made[id(result)]


_BY_KIND: dict[str, Callable[[Returned, Result], Any]] = {
    kind: getattr(Returned, kind)
    for kind in (
        "same", "argument", "slot", "grad", "leaf", "container", "owner", "number", "formula", "output",
        "copy", "object",
    )
}  # fmt: skip
