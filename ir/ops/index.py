"""Reading and writing at computed positions, and the searches that yield positions.

`gather`/`scatter` index some axes with tensors of indices (NumPy's x[i, j]); `take_along` and
`scatter_along` pick along one axis (torch.gather). Indices lie in [0, n): the tracer has wrapped
negative ones.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log2
from typing import Any

from tracegrad.ir import ops
from tracegrad.ir.graph import Node, Op
from tracegrad.ir.hazards import INDEX, Hazard
from tracegrad.ir.ops.base import (
    checked_axes,
    checked_axis,
    input_flops,
    no_flops,
    of_category,
    register,
    require,
    tensor,
    traits,
    without_axes,
)
from tracegrad.ir.ops.base import index_type as _index
from tracegrad.ir.ops.traits import EXPENSIVE
from tracegrad.ir.types import TensorType, i64

MODES = ("add", "set", "mul", "max", "min")
Gather = Callable[[Node], Node]
Scatter = Callable[[Node, Node, str], Node]  # (base, updates, mode)


def scatter_vjp(
    ct: Node, y: Node, x: Node, u: Node, mode: str, gather: Gather, scatter: Scatter
) -> tuple[Node, Node]:
    """Gradients of base x and updates u; `gather` and `scatter` act at the positions of y."""
    if mode == "add":
        return ct, gather(ct)
    if mode == "set":  # positions written twice are undefined, as in PyTorch
        return scatter(ct, ops.zeros_like(u), "set"), gather(ct)
    if mode == "mul":
        return _scatter_mul_vjp(ct, x, u, gather, scatter)
    # max, min: everything that reached the extreme shares the gradient evenly
    x_hit, u_hit = ops.eq(x, y), ops.eq(u, gather(y))
    count = scatter(ops.cast(x_hit, dtype=x.dtype), ops.cast(u_hit, dtype=u.dtype), "add")
    share = ct / count
    dx = ops.where(x_hit, share, ops.zeros_like(x))
    return dx, ops.where(u_hit, gather(share), ops.zeros_like(u))


def _scatter_mul_vjp(
    ct: Node, x: Node, u: Node, gather: Gather, scatter: Scatter
) -> tuple[Node, Node]:
    # y = x prod(u). The product of the *other* updates at a position is prod / u, except at a zero:
    # there it is the product of the non-zero ones if this zero is the only one, else 0. (Where two
    # updates of one position are zero, second derivatives between them come out as 0.)
    conj = ops.conj if x.dtype.is_complex else (lambda node: node)
    one, zero = ops.ones_like(u), ops.zeros_like(u)
    is_zero = ops.eq(u, zero)
    safe = ops.where(is_zero, one, u)
    product = scatter(ops.ones_like(x), u, "mul")
    nonzero = scatter(ops.ones_like(x), safe, "mul")
    zeros = scatter(ops.zeros_like(x), ops.cast(is_zero, dtype=u.dtype), "add")
    alone = ops.eq(gather(zeros), one)
    at_zero = ops.where(alone, gather(nonzero), zero)
    others = ops.where(is_zero, at_zero, gather(product) / safe)
    return ct * conj(product), gather(ct * conj(x)) * conj(others)


def _checked_mode(mode: Any, x: TensorType) -> None:
    require(mode in MODES, f"mode must be one of {', '.join(MODES)}, not {mode!r}")
    require(not (x.dtype.is_complex and mode in ("max", "min")), "complex numbers are not ordered")


def _out_of_range(node: Node) -> list[Hazard]:
    """The index tensors follow the first input, one for each indexed axis."""
    shape, attrs = node.inputs[0].shape, node.attrs
    axes = attrs["axes"] if "axes" in attrs else (attrs["axis"],)
    return [Hazard(INDEX, index, shape[axis]) for index, axis in zip(node.inputs[1:], axes)]


# ---------------------------------------------------------------- gather, scatter


def _gather_shape(
    x: TensorType, indices: tuple[TensorType, ...], axes: tuple[int, ...]
) -> tuple[int, ...]:
    checked_axes(axes, tensor(x).ndim)
    require(len(indices) == len(axes) > 0, f"{len(axes)} axes need as many index tensors")
    for index in indices:
        require(_index(index).shape == indices[0].shape, "index tensors must have one shape")
    return (*indices[0].shape, *without_axes(x.shape, axes))


def _gather_type(x: TensorType, *indices: TensorType, axes: tuple[int, ...]) -> TensorType:
    return x.with_shape(_gather_shape(x, indices, axes))


def _gather_vjp(
    ct: Node, y: Node, x: Node, *indices: Node, axes: tuple[int, ...]
) -> tuple[Node | None, ...]:
    dx = ops.scatter(ops.zeros_like(x), *indices, ct, axes=axes, mode="add")
    return (dx, *(None for _ in indices))


# x with `axes` indexed by the tensors: shape = shape of the indices + the remaining axes of x.
gather = register(
    Op(
        "gather",
        attrs=("axes",),
        infer=_gather_type,
        vjp=_gather_vjp,
        flops=no_flops,
        hazards=_out_of_range,
    )
)


def _scatter_type(
    x: TensorType, *indices_and_update: TensorType, axes: tuple[int, ...], mode: str
) -> TensorType:
    require(len(indices_and_update) >= 2, "takes a base, index tensors and an update")
    *indices, update = indices_and_update
    region = x.with_shape(_gather_shape(x, tuple(indices), axes))
    require(update == region, f"the update must be {region}, not {update}")
    _checked_mode(mode, x)
    return x


def _scatter_op_vjp(
    ct: Node, y: Node, x: Node, *rest: Node, axes: tuple[int, ...], mode: str
) -> tuple[Node | None, ...]:
    *indices, u = rest
    dx, du = scatter_vjp(
        ct, y, x, u, mode,
        gather=lambda base: ops.gather(base, *indices, axes=axes),
        scatter=lambda base, v, how: ops.scatter(base, *indices, v, axes=axes, mode=how),
    )  # fmt: skip
    return (dx, *(None for _ in indices), du)


# x with u (of the shape that gather yields) combined into the indexed positions.
scatter = register(
    Op(
        "scatter",
        attrs=("axes", "mode"),
        infer=_scatter_type,
        vjp=_scatter_op_vjp,
        flops=lambda node: float(node.inputs[-1].type.size),
        hazards=_out_of_range,
    )
)

# ---------------------------------------------------------------- take_along, scatter_along


def _take_along_type(x: TensorType, index: TensorType, axis: int) -> TensorType:
    checked_axis(axis, tensor(x).ndim)
    _index(index)
    same = index.ndim == x.ndim and all(
        k == axis or n == m for k, (n, m) in enumerate(zip(index.shape, x.shape))
    )
    require(same, f"index {index} may differ from {x} in axis {axis} only")
    return x.with_shape(index.shape)


def _take_along_vjp(ct: Node, y: Node, x: Node, index: Node, axis: int) -> tuple[Node, None]:
    return ops.scatter_along(ops.zeros_like(x), index, ct, axis=axis, mode="add"), None


# y[..., k, ...] = x[..., index[..., k, ...], ...] on `axis`.
take_along = register(
    Op(
        "take_along",
        attrs=("axis",),
        infer=_take_along_type,
        vjp=_take_along_vjp,
        flops=no_flops,
        hazards=_out_of_range,
    )
)


def _scatter_along_type(
    x: TensorType, index: TensorType, u: TensorType, axis: int, mode: str
) -> TensorType:
    region = _take_along_type(x, index, axis)
    require(u == region, f"the update must be {region}, not {u}")
    _checked_mode(mode, x)
    return x


def _scatter_along_vjp(
    ct: Node, y: Node, x: Node, index: Node, u: Node, axis: int, mode: str
) -> tuple[Node, None, Node]:
    dx, du = scatter_vjp(
        ct, y, x, u, mode,
        gather=lambda base: ops.take_along(base, index, axis=axis),
        scatter=lambda base, v, how: ops.scatter_along(base, index, v, axis=axis, mode=how),
    )  # fmt: skip
    return dx, None, du


# x with u combined into x[..., index[..., k, ...], ...] on `axis`.
scatter_along = register(
    Op(
        "scatter_along",
        attrs=("axis", "mode"),
        infer=_scatter_along_type,
        vjp=_scatter_along_vjp,
        flops=lambda node: float(node.inputs[-1].type.size),
        hazards=_out_of_range,
    )
)

# ---------------------------------------------------------------- searches: i64 results

_POSITIONS = "the result is positions, which are integers"


def _argsort_type(x: TensorType, axis: int, descending: bool) -> TensorType:
    of_category(x, "bif")
    checked_axis(axis, x.ndim)
    require(isinstance(descending, bool), "descending must be a bool")
    return x.with_dtype(i64)


def _argsort_flops(node: Node) -> float:
    n = node.inputs[0].shape[node.attrs.axis]
    return float(node.type.size) * log2(max(n, 2))


# The stable order along `axis`; nan is larger than all.
argsort = register(
    Op(
        "argsort",
        attrs=("axis", "descending"),
        infer=_argsort_type,
        not_differentiable=_POSITIONS,
        traits=traits(EXPENSIVE),
        flops=_argsort_flops,
    )
)


def _arg_type(x: TensorType, axis: int) -> TensorType:
    of_category(x, "bif")
    checked_axis(axis, x.ndim)
    require(x.shape[axis] > 0, f"axis {axis} is empty")
    return TensorType(without_axes(x.shape, (axis,)), i64)


def _arg(name: str) -> Op:
    return register(
        Op(
            name,
            attrs=("axis",),
            infer=_arg_type,
            not_differentiable=_POSITIONS,
            flops=input_flops,
        )
    )


# The first position of the extreme along `axis`; a nan is the extreme.
argmax = _arg("argmax")
argmin = _arg("argmin")
