"""Functions made of others, which mostly arrange elements: they emit nothing themselves, so they are right
wherever those are.
"""

from __future__ import annotations

import math
from typing import Any

from tracegrad.ir.types import DType, f64
from tracegrad.tracer import functions
from tracegrad.tracer.creation.ranges import arange, linspace
from tracegrad.tracer.creation.tensors import tensor
from tracegrad.tracer.errors import InvalidValueError, ShapeError
from tracegrad.tracer.locate import here
from tracegrad.tracer.memory import view_methods
from tracegrad.tracer.memory.indexing import index_put
from tracegrad.tracer.memory.strided_views import diagonal
from tracegrad.tracer.memory.view_methods import axis_of
from tracegrad.tracer.state import get_default_dtype
from tracegrad.tracer.tensor import Size, Tensor


def fill_diagonal_(self: Tensor, fill_value: Any, wrap: bool = False) -> Tensor:
    """Write `fill_value` on the diagonal of a matrix; `wrap`: which begins anew below a full one."""
    if self.ndim != 2:
        raise ShapeError(
            f"fill_diagonal_ needs a matrix, this tensor has {self.ndim} dimensions", where=here()
        )
    rows, columns = arange(self.shape[0]), arange(self.shape[1])
    places = (rows % (self.shape[1] + 1) if wrap else rows)[:, None] == columns
    return self.masked_fill_(places, fill_value)


def tensor_split(input: Tensor, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces along an axis: a number of nearly equal ones, or cut at the indices given."""
    size = input.shape[axis_of(dim, input.ndim)]
    if isinstance(indices_or_sections, Tensor):
        indices_or_sections = indices_or_sections.tolist()
    if isinstance(indices_or_sections, int):
        if indices_or_sections < 1:
            raise InvalidValueError(
                f"tensor_split() into {indices_or_sections} pieces: give 1 or more"
            )
        each, extra = divmod(size, indices_or_sections)
        lengths = [each + (k < extra) for k in range(indices_or_sections)]
        cuts = [sum(lengths[:k]) for k in range(1, len(lengths))]
    else:
        cuts = [min(cut + size if cut < 0 else cut, size) for cut in map(int, indices_or_sections)]
    bounds = [0, *cuts, size]
    return tuple(
        view_methods.narrow(input, dim, a, max(b - a, 0)) for a, b in zip(bounds, bounds[1:])
    )


def _need_dimensions(name: str, input: Tensor, count: int) -> None:
    if input.ndim < count:
        raise ShapeError(f"{name}() needs {count} dimensions or more, got {list(input.shape)}")


def hsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """`tensor_split` of the columns (of a vector: its elements)."""
    _need_dimensions("hsplit", input, 1)
    return tensor_split(input, indices_or_sections, 0 if input.ndim == 1 else 1)


def vsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """`tensor_split` of the rows."""
    _need_dimensions("vsplit", input, 2)
    return tensor_split(input, indices_or_sections, 0)


def dsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """`tensor_split` of the third axis."""
    _need_dimensions("dsplit", input, 3)
    return tensor_split(input, indices_or_sections, 2)


def split_with_sizes(input: Tensor, split_sizes: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces of the sizes given along an axis."""
    return view_methods.split(input, list(split_sizes), dim)


def _each(function: Any, tensors: tuple[Any, ...]) -> Any:
    if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)):
        return tuple(map(function, tensors[0]))
    return function(tensors[0]) if len(tensors) == 1 else tuple(map(function, tensors))


def _row(x: Tensor) -> Tensor:
    return view_methods.reshape(x, 1) if x.ndim == 0 else x


def _matrix(x: Tensor) -> Tensor:
    return view_methods.unsqueeze(_row(x), 0) if x.ndim < 2 else x


def _cube(x: Tensor) -> Tensor:
    return view_methods.unsqueeze(_matrix(x), -1) if x.ndim < 3 else x


def atleast_1d(*tensors: Any) -> Any:
    """Each tensor with at least one axis."""
    return _each(_row, tensors)


def atleast_2d(*tensors: Any) -> Any:
    """Each tensor with at least two axes; a vector becomes a row."""
    return _each(_matrix, tensors)


def atleast_3d(*tensors: Any) -> Any:
    """Each tensor with at least three axes; a matrix gets a last one."""
    return _each(_cube, tensors)


def column_stack(tensors: Any) -> Tensor:
    """Vectors as the columns of a matrix; matrices beside each other."""
    return functions.cat(
        [view_methods.reshape(x, -1, 1) if x.ndim < 2 else x for x in tensors], dim=1
    )


def dstack(tensors: Any) -> Tensor:
    """Tensors behind each other along the third axis."""
    return functions.cat([_cube(x) for x in tensors], dim=2)


def broadcast_shapes(*shapes: Any) -> Size:
    """The shape that tensors of these shapes broadcast to. Raises ShapeError when they do not."""
    sized = [(s,) if isinstance(s, int) else tuple(s) for s in shapes]
    result: list[int] = [1] * max(map(len, sized), default=0)
    for shape in sized:
        for k in range(1, len(shape) + 1):
            if shape[-k] != 1:
                if result[-k] not in (1, shape[-k]):
                    raise ShapeError(
                        f"shapes {', '.join(str(list(s)) for s in sized)} do not broadcast",
                        where=here(),
                        why="counted from the last, sizes must be equal or 1",
                    )
                result[-k] = shape[-k]
    return Size(result)


def broadcast_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Each tensor expanded to their common shape."""
    shape = broadcast_shapes(*(x.shape for x in tensors))
    return tuple(view_methods.expand(x, *shape) for x in tensors)


def block_diag(*tensors: Tensor) -> Tensor:
    """The matrices along the diagonal of one matrix, zeros elsewhere."""
    blocks = [_matrix(x) for x in tensors]
    if any(block.ndim > 2 for block in blocks):
        raise ShapeError(f"block_diag() takes matrices, got {[list(b.shape) for b in blocks]}")
    width, before, rows = sum(b.shape[1] for b in blocks), 0, []
    for block in blocks:
        rows.append(functions.pad(block, (before, width - before - block.shape[1])))
        before += block.shape[1]
    return functions.cat(rows, dim=0)


def vdot(input: Tensor, other: Tensor) -> Tensor:
    """The dot product of vectors, the first conjugated."""
    return functions.dot(functions.conj(input), other)


def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """A matrix with the elements of `input` on a diagonal."""
    return functions.diag(view_methods.reshape(input, -1), offset)


def adjoint(input: Tensor) -> Tensor:
    """The conjugate transpose of the last two axes."""
    return functions.conj(view_methods.matrix_transpose(input))


def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """A copy with `src` stored at one position of an axis."""
    result = functions.clone(input)
    view_methods.select(result, dim, index).copy_(src)
    return result


def diagonal_scatter(
    input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Tensor:
    """A copy with `src` stored on a diagonal."""
    result = functions.clone(input)
    diagonal(result, offset, dim1, dim2).copy_(src)
    return result


def slice_scatter(
    input: Tensor,
    src: Tensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Tensor:
    """A copy with `src` stored at start:end:step of an axis."""
    result = functions.clone(input)
    index = (slice(None),) * axis_of(dim, input.ndim) + (slice(start, end, step),)
    result[index].copy_(src)
    return result


def logspace(
    start: float,
    end: float,
    steps: int,
    base: float = 10.0,
    *,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """`base` to the powers of `steps` evenly spaced numbers; integers from whole bounds, as linspace."""
    if dtype is not None and dtype.is_int:
        start, end = math.trunc(start), math.trunc(end)
    exponents = linspace(start, end, steps, dtype=f64, device=device)
    result = functions.pow(base, exponents).to(dtype or get_default_dtype())
    return result.requires_grad_() if requires_grad else result


def scalar_tensor(s: Any, *, dtype: DType | None = None, device: Any = None) -> Tensor:
    """A tensor of no dimensions."""
    return tensor(s, dtype=dtype or get_default_dtype(), device=device)


def is_nonzero(input: Tensor) -> bool:
    """Whether the one element is not zero."""
    return bool(input)


def is_same_size(input: Tensor, other: Tensor) -> bool:
    """Whether the shapes are equal."""
    return tuple(input.shape) == tuple(other.shape)


def is_signed(input: Tensor) -> bool:
    """Whether the dtype has negative numbers."""
    return input.dtype.np.kind in "ifcV"  # bfloat16 is of NumPy's kind V


def dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """Zero elements with probability p, scale the rest by 1 / (1 - p); identity unless train."""
    from tracegrad.tracer.creation import sampling

    return sampling.dropout(input, p, train)


FUNCTIONS = {
    f.__name__: f
    for f in (
        tensor_split,
        hsplit,
        vsplit,
        dsplit,
        split_with_sizes,
        atleast_1d,
        atleast_2d,
        atleast_3d,
        column_stack,
        dstack,
        broadcast_shapes,
        broadcast_tensors,
        block_diag,
        vdot,
        diagflat,
        adjoint,
        index_put,
        select_scatter,
        diagonal_scatter,
        slice_scatter,
        logspace,
        scalar_tensor,
        is_nonzero,
        is_same_size,
        is_signed,
        dropout,
    )
}
METHODS = {
    f.__name__: f
    for f in (
        fill_diagonal_,
        tensor_split,
        hsplit,
        vsplit,
        dsplit,
        split_with_sizes,
        vdot,
        diagflat,
        adjoint,
        select_scatter,
        diagonal_scatter,
        slice_scatter,
        is_nonzero,
        is_same_size,
        is_signed,
    )
}
