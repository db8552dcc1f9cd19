"""The path trees of one compiled function: by signature, those whose facts may hold, the newest last."""

from __future__ import annotations

from typing import Any

from tracegrad.runtime.calls.aliasing import Aliasing
from tracegrad.runtime.calls.signature import Call
from tracegrad.runtime.execution.plan import make_plan
from tracegrad.runtime.execution.run import Runner
from tracegrad.runtime.paths.lowering import Compiler
from tracegrad.runtime.paths.segments import NotDeterministic, Step, build
from tracegrad.runtime.paths.tree import Final, Question, Specialisation
from tracegrad.runtime.recordings.recorded import Recorded

MAX_SPECIALISATIONS = 16  # recordings kept for one signature
MAX_SIGNATURES = 256  # signatures kept
# Ends of a path tree, those included that differ in how often a loop turned; a larger max_paths counts.
MAX_WAYS = 256


class Forest:
    """Where recordings are found and added. `max_paths`: see `compile`."""

    def __init__(self, max_paths: int, compiler: Compiler, runner: Runner):
        self.max_paths = max_paths
        self.trees: dict[Any, list[Specialisation]] = {}
        self._compiler = compiler
        self._runner = runner

    def of(self, key: Any) -> list[Specialisation]:
        """The trees of a signature."""
        return self.trees.get(key, [])

    def forget(self, tree: Specialisation | None) -> None:
        """What it was recorded for will be recorded otherwise."""
        for kept in self.trees.values():
            kept[:] = [other for other in kept if other is not tree]

    def add(
        self, call: Call, recorded: Recorded, programs: list[Any], facts: list[Any], tree: Specialisation | None
    ) -> tuple[Specialisation, list[Step]]:  # fmt: skip
        """Add a recording to its tree, or to a new one; the tree, and its path there."""
        if tree is not None:
            try:
                return tree, self._extend(tree, call, recorded, programs, facts)
            except NotDeterministic:
                pass  # what it had met, before, is not what the function does now
        tree = Specialisation(facts, recorded.trace.varying)
        path = self._extend(tree, call, recorded, programs, [])
        kept = self.trees.setdefault(call.key, [])
        while len(self.trees) > MAX_SIGNATURES:
            del self.trees[next(iter(self.trees))]
        kept.append(tree)
        del kept[:-MAX_SPECIALISATIONS]
        return tree, path

    def _extend(
        self, tree: Specialisation, call: Call, recorded: Recorded, programs: list[Any], facts: list[Any]
    ) -> list[Step]:  # fmt: skip
        """Add a path to a tree; `facts` are those that the tree has not checked for it."""

        def prepare(final: Final) -> None:
            plan = final.plan = make_plan(final, recorded, programs, facts)
            self._runner.prepare(final)
            tree.aliasing = Aliasing(call, recorded, tree.aliasing)
            tree.fingerprints.add(final.fingerprint())
            tree.ways += 1
            tree.exclusive |= final.depth > 0 and bool(plan.writes or plan.draws)
            tree.tried |= plan.tried
            tree.programs.update(recorded.programs)

        if recorded.trace.guards:  # there may be other paths
            tree.numbers = recorded.trace.numbers | tree.numbers
        saved = tuple(node for program in programs for node in program.saved)
        path = build(tree.root, recorded, self._compiler, saved, prepare)
        tree.root = path[0]
        return path

    def excess(self, tree: Specialisation, path: list[Step]) -> tuple[str, str] | None:
        """Why a tree, to which `path` was added, is too large to go on, and what to do about it."""
        if len(tree.fingerprints) > self.max_paths:
            return (
                f"more than {self.max_paths} different paths through the function were taken (max_paths)",
                "branch less on values: tg.where, tg.cond or tg.while_loop keep one graph; or raise max_paths",
            )
        if tree.ways > (most := max(MAX_WAYS, self.max_paths)):
            return (
                f"more than {most} different ways through its loops and branches were taken",
                "tg.while_loop, tg.cond and tg.where keep one graph",
            )
        for segment in path:
            if isinstance(segment, Question) and segment.values_asked() > self.max_paths:
                return (
                    f"more than {self.max_paths} different values were asked for at {segment.line} (max_paths)",
                    "return loss.item(), which is read after the call, and print outside; branch on the "
                    "tensor (loss > 10), not on its value; or raise max_paths",
                )
        return None
