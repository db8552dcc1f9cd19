"""More functions and methods made of others: of integers, of matrices, drawn at random."""

from __future__ import annotations

import math
from typing import Any

from tracegrad.ir.types import bool_, i64
from tracegrad.tracer import functions
from tracegrad.tracer.creation.random import next_key
from tracegrad.tracer.creation.tensors import eye, full_like, ones_like, tensor, zeros_like
from tracegrad.tracer.errors import ArgumentError, InvalidValueError, ShapeError
from tracegrad.tracer.memory import view_methods
from tracegrad.tracer.memory.inplace import in_place
from tracegrad.tracer.state import get_default_dtype, get_mode
from tracegrad.tracer.tensor import Tensor


def isreal(input: Tensor) -> Tensor:
    """Whether each element has no imaginary part."""
    if input.is_complex():
        return functions.imag(input) == 0
    return functions.eq(zeros_like(input), 0)


def lcm(input: Tensor, other: Tensor) -> Tensor:
    """Least common multiple of integers, 0 where one is 0."""
    divisor = functions.gcd(input, other)
    safe = functions.where(divisor == 0, functions.add(divisor, 1), divisor)
    return functions.abs(functions.mul(functions.floor_divide(input, safe), other))


def ldexp(input: Tensor, other: Tensor) -> Tensor:
    """input * 2**other, also where 2**other alone is too large or too small for the dtype."""
    half = functions.floor_divide(other, 2)
    base = full_like(
        half, 2.0, dtype=other.dtype if other.dtype.is_inexact else get_default_dtype()
    )
    base = base.to(functions.result_type(input, base))
    scaled = functions.mul(input, functions.pow(base, half))
    return functions.mul(scaled, functions.pow(base, functions.sub(other, half)))


def fill(input: Tensor, value: Any) -> Tensor:
    """A tensor like input, every element `value`."""
    return functions.masked_fill(input, ones_like(input, dtype=bool_), value)


def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """A copy with `source` stored at (added to) the places `index` of the flat tensor."""
    flat = view_methods.reshape(input, -1)
    stored = flat.index_put(
        (view_methods.reshape(index, -1),), view_methods.reshape(source, -1), accumulate
    )
    return view_methods.reshape(stored, *input.shape)


def sum_to_size(input: Tensor, *size: Any) -> Tensor:
    """The sum over what broadcasting to input's shape would repeat: of shape `size`."""
    shape = view_methods.ints(size)
    lead = input.ndim - len(shape)
    fits = lead >= 0 and all(n in (1, m) for n, m in zip(shape, input.shape[lead:]))
    if not fits:
        raise ShapeError(f"sum_to_size: {list(input.shape)} is no broadcast of {list(shape)}")
    dims = [k for k, n in enumerate(input.shape) if k < lead or (shape[k - lead] == 1 and n != 1)]
    summed = functions.sum(input, tuple(dims)) if dims else input
    return view_methods.reshape(summed, *shape)


def unravel_index(indices: Tensor, shape: Any) -> tuple[Tensor, ...]:
    """Positions in a tensor of `shape`, of indices into the flat tensor."""
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    if not indices.dtype.is_int:
        raise ArgumentError(
            f"unravel_index(): indices is a {indices.dtype} tensor", fix="give integers"
        )
    indices = indices.to(i64)
    found = []
    for k, size in enumerate(sizes):
        step = math.prod(sizes[k + 1 :])
        found.append(functions.remainder(functions.floor_divide(indices, step), size))
    return tuple(found)


def pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:
    """The Moore-Penrose inverse: singular values below rcond times the largest count as 0."""
    return functions.pinv(input, rtol=rcond)


def chain_matmul(*matrices: Tensor) -> Tensor:
    """The product of several matrices."""
    return functions.multi_dot(matrices)


def cholesky_solve(input: Tensor, L: Tensor, upper: bool = False) -> Tensor:
    """X with A X = input, from the Cholesky factor of A."""
    lower = view_methods.transpose(L, -2, -1) if upper else L
    half = functions.solve_triangular(lower, input, upper=False)
    return functions.solve_triangular(view_methods.transpose(lower, -2, -1), half, upper=True)


def cholesky_inverse(L: Tensor, upper: bool = False) -> Tensor:
    """The inverse of A, from its Cholesky factor."""
    return cholesky_solve(eye(L.shape[-1], dtype=L.dtype), L, upper)


def narrow_copy(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """A copy of `length` elements of one axis from `start`."""
    return functions.clone(view_methods.narrow(input, dim, start, length))


def unsafe_chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """`chunk`."""
    return view_methods.chunk(input, chunks, dim)


def unsafe_split(input: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """`split`."""
    return view_methods.split(input, split_size_or_sections, dim)


def itself(input: Tensor) -> Tensor:
    """This tensor: conjugation and negation are never postponed."""
    return input


def get_device(input: Tensor) -> int:
    """-1: eager tensors live on the CPU."""
    return -1


def is_conj(input: Tensor) -> bool:
    """False: conjugation is never postponed."""
    return False


def apply_(self: Tensor, callable: Any) -> Tensor:
    """Replace each element by `callable(element)`: slow, and eager only."""
    trace = get_mode().trace
    if trace is not None:
        trace.refuse("apply_() while recording", "use tensor operations")
    if self.requires_grad:
        raise ArgumentError("apply_() of a tensor that requires grad", fix="use x.detach()")
    values = [callable(v) for v in self.reshape(-1).tolist()]
    new = tensor(values, dtype=self.dtype)
    return self.copy_(new.reshape(*self.shape))


def _sampled(name: str, doc: str, value: Any) -> Any:
    def method(self: Tensor, *args: Any, generator: Any = None, **kwargs: Any) -> Tensor:
        dtype = self.dtype if self.dtype.is_float else None
        shape = tuple(self.shape)
        key = next_key(generator)
        attributes = {"shape": shape} | ({"dtype": dtype} if dtype is not None else {})
        return self.copy_(value(key, attributes, *args, **kwargs))

    method.__name__ = method.__qualname__ = name
    method.__doc__ = doc
    return method


def _log_normal(key: Tensor, at: dict, mean: float = 1.0, std: float = 2.0) -> Tensor:
    normal = functions.normal(key, mean=float(mean), std=float(std), **at)
    return functions.exp(normal)


def _cauchy(key: Tensor, at: dict, median: float = 0.0, sigma: float = 1.0) -> Tensor:
    if not sigma > 0:
        raise InvalidValueError(f"cauchy_ needs sigma above 0, got {sigma}")
    angle = (functions.uniform(key, **at) - 0.5) * math.pi
    return functions.tan(angle) * sigma + median


def _geometric(key: Tensor, at: dict, p: float) -> Tensor:
    if not 0 < p < 1:
        raise InvalidValueError(f"geometric_ needs p between 0 and 1, got {p}")
    u = functions.log1p(-functions.uniform(key, **at))
    return functions.floor(u / math.log1p(-p)) + 1


BOTH = {
    f.__name__: f
    for f in (
        isreal, lcm, ldexp, put, cholesky_solve, cholesky_inverse, narrow_copy, pinverse, unsafe_chunk,
        unsafe_split,
    )
} | {"resolve_conj": itself, "resolve_neg": itself}  # fmt: skip
FUNCTIONS = BOTH | {
    f.__name__: f
    for f in (
        fill, unravel_index, chain_matmul, get_device, is_conj,
    )
}  # fmt: skip
METHODS = BOTH | {
    "sum_to_size": sum_to_size,
    "apply_": apply_,
    "share_memory_": itself,
    "is_shared": lambda self: False,
    "is_neg": lambda self: False,
    "is_coalesced": lambda self: False,
    "lcm_": in_place("lcm_", lcm),
    "ldexp_": in_place("ldexp_", ldexp),
    "put_": in_place("put_", put),
    "log_normal_": _sampled("log_normal_", "Fill with log-normal numbers.", _log_normal),
    "cauchy_": _sampled("cauchy_", "Fill with Cauchy numbers.", _cauchy),
    "geometric_": _sampled("geometric_", "Fill with geometric numbers.", _geometric),
}
