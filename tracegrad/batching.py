"""`vmap`: a function of one example, run on a batch of them as one graph."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tracegrad.ir.types import TensorType
from tracegrad.passes.vmap import vmap as _batched
from tracegrad.tracer.control_flow import trace_function
from tracegrad.tracer.dispatch import apply
from tracegrad.tracer.eager.program import GraphOp
from tracegrad.tracer.errors import ArgumentError
from tracegrad.tracer.locate import here
from tracegrad.tracer.memory.view_methods import axis_of
from tracegrad.tracer.tensor import Tensor
from tracegrad.tracer.trees import flatten


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, Tensor)


def vmap(func: Callable[..., Any], in_dims: Any = 0, out_dims: Any = 0) -> Callable[..., Any]:
    """`func` on every slice of its arguments along `in_dims` at once: one traced graph, batched by
    a pass.

    in_dims  an axis or None (not batched) for all arguments, or one per argument (trees allowed)
    out_dims  where the batch axis goes in the results: one axis, or one for each result
    Keyword arguments are shared by all examples. Raises ArgumentError for dims that do not fit the
    arguments or results and when batch sizes differ, UnsupportedError for branches on values.
    """

    def transformed(*args: Any, **kwargs: Any) -> Any:
        given = Batch(args, in_dims)
        one = partial(func, **kwargs) if kwargs else func
        traced = trace_function(one, given.example_types(), "vmap")
        shared = (None,) * len(traced.captured)
        batched = _batched(traced.graph, (*given.in_axes(), *shared), given.size)
        results = apply(GraphOp(batched), (*given.tensors(), *traced.captured))
        out = out_dims if isinstance(out_dims, (tuple, list)) else (out_dims,) * len(results)
        if len(out) != len(results) or not all(isinstance(axis, int) for axis in out):
            raise ArgumentError(
                f"vmap: out_dims={out_dims!r} for {len(results)} results", where=here(),
                fix="give one axis for all, or one for each tensor that the function returns",
            )  # fmt: skip
        placed = [r if axis == 0 else r.movedim(0, axis) for r, axis in zip(results, out)]
        return traced.treedef.unflatten(placed)

    return transformed


class Batch:
    """The arguments of one call: their leaves, those that are batched along axis 0.

    batched  whether each leaf is; `size` examples are in it then
    """

    def __init__(self, args: tuple[Any, ...], in_dims: Any):
        dims = in_dims if isinstance(in_dims, (tuple, list)) else (in_dims,) * len(args)
        if len(dims) != len(args):
            raise ArgumentError(
                f"vmap got in_dims for {len(dims)} arguments, and {len(args)} arguments",
                where=here(),
                fix="give one axis for all, or one axis (or None) for each",
            )
        leaves: list[Any] = []
        axes: list[int | None] = []
        self.trees = []
        for argument, dim in zip(args, dims):
            flat, treedef = flatten(argument)
            self.trees.append((treedef, len(flat)))
            leaves += flat
            if dim is None or isinstance(dim, int):
                axes += [dim if _is_tensor(leaf) else None for leaf in flat]
            else:
                axes += flatten(dim)[0]
        for leaf, axis in zip(leaves, axes):
            if axis is not None:
                axis_of(axis, leaf.ndim, "in_dims")
        sizes = {leaf.shape[axis] for leaf, axis in zip(leaves, axes) if axis is not None}
        if len(sizes) != 1:
            raise ArgumentError(
                f"vmap needs one batch size, the arguments have {sorted(sizes)}" if sizes
                else "vmap over no argument: in_dims gives no tensor an axis",
                where=here(),
                fix="check shapes and in_dims; None stands for an argument that all examples share",
            )  # fmt: skip
        self.size = sizes.pop()
        self.batched = [axis is not None for axis in axes]
        self.leaves = [
            leaf if axis is None else leaf.movedim(axis, 0) for leaf, axis in zip(leaves, axes)
        ]

    def example_types(self) -> tuple[Any, ...]:
        """The arguments of one example, with types in the place of tensors."""
        examples = iter([
            TensorType(tuple(leaf.shape)[batched:], leaf.dtype) if _is_tensor(leaf) else leaf
            for leaf, batched in zip(self.leaves, self.batched)
        ])  # fmt: skip
        return tuple(
            treedef.unflatten([next(examples) for _ in range(count)])
            for treedef, count in self.trees
        )

    def tensors(self) -> list[Tensor]:
        return list(filter(_is_tensor, self.leaves))

    def in_axes(self) -> list[int | None]:
        """For each tensor, the axis that the examples lie along."""
        return [
            0 if batched else None
            for leaf, batched in zip(self.leaves, self.batched)
            if _is_tensor(leaf)
        ]
