"""Random tensors: each draws one key from the stream and gives it to a keyed op."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.ir.types import DType, i64
from tracegrad.tracer import functions
from tracegrad.tracer.creation.random import next_key
from tracegrad.tracer.creation.tensors import check_device, size_of
from tracegrad.tracer.dispatch import UserOp, apply
from tracegrad.tracer.dtypes import as_dtype
from tracegrad.tracer.errors import InvalidValueError
from tracegrad.tracer.memory.inplace import fitted, write
from tracegrad.tracer.state import get_default_dtype
from tracegrad.tracer.tensor import Tensor


def _float(dtype: Any, device: Any) -> Any:
    check_device(device)
    return as_dtype(dtype) or get_default_dtype()


def _drawn(
    op: UserOp, sizes: tuple[Any, ...], generator: Any, dtype: Any, device: Any, requires_grad: bool
) -> Tensor:
    """Numbers that `op` draws from its usual range: in [0, 1), or around 0 with a deviation of 1."""
    attrs = (size_of(sizes), _float(dtype, device), 0.0, 1.0)
    out = apply(op, (next_key(generator),), attrs)
    return out.requires_grad_() if requires_grad else out


def rand(
    *sizes: Any, size: Any = None, generator: Any = None, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Uniform in [0, 1)."""
    sizes = sizes if size is None else (size,)
    return _drawn(functions.uniform, sizes, generator, dtype, device, requires_grad)


def randn(
    *sizes: Any, size: Any = None, generator: Any = None, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Standard normal."""
    sizes = sizes if size is None else (size,)
    return _drawn(functions.normal, sizes, generator, dtype, device, requires_grad)


def randint(
    low: int = 0,
    high: Any = None,
    size: Any = None,
    *,
    generator: Any = None,
    dtype: Any = None,
    device: Any = None,
) -> Tensor:
    """Integers in [low, high), or in [0, low) when called as randint(high, size)."""
    check_device(device)
    if size is None:  # randint(high, size)
        high, size = None, high
    if high is None:
        low, high = 0, low
    return functions.randint(
        next_key(generator),
        low=int(low),
        high=int(high),
        shape=size_of((size,)),
        dtype=as_dtype(dtype) or i64,
    )


def randperm(n: int, *, generator: Any = None, dtype: Any = None, device: Any = None) -> Tensor:
    """0 .. n - 1 in random order."""
    check_device(device)
    return functions.randperm(next_key(generator), n=n, dtype=as_dtype(dtype) or i64)


def normal(
    mean: Any = 0.0,
    std: Any = 1.0,
    size: Any = None,
    *,
    generator: Any = None,
    dtype: Any = None,
    device: Any = None,
) -> Tensor:
    """Normal numbers: of one mean and std in a shape, or one per element of tensors."""
    if size is None:
        return functions.normal_like(mean, std, next_key(generator))
    shape = size_of((size,))
    return functions.normal(
        next_key(generator),
        shape=shape,
        dtype=_float(dtype, device),
        mean=float(mean),
        std=float(std),
    )


def bernoulli(input: Tensor, p: float | None = None, *, generator: Any = None) -> Tensor:
    """1 with the probability each element gives (or with p), else 0."""
    if p is not None:
        return functions.bernoulli_p(
            next_key(generator), p=p, shape=tuple(input.shape), dtype=input.dtype
        )
    return functions.bernoulli(input, next_key(generator))


def multinomial(
    input: Tensor, num_samples: int, replacement: bool = False, *, generator: Any = None
) -> Tensor:
    """Indices drawn with probabilities proportional to the rows of `input`: int64 [..,
    num_samples].
    """
    return functions.multinomial(
        input, next_key(generator), num_samples=num_samples, replacement=replacement
    )


def rand_like(
    input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Uniform in [0, 1), of the input's shape and dtype."""
    return rand(
        tuple(input.shape), dtype=dtype or input.dtype, device=device, requires_grad=requires_grad
    )


def randn_like(
    input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Standard normal numbers, of the input's shape and dtype."""
    return randn(
        tuple(input.shape), dtype=dtype or input.dtype, device=device, requires_grad=requires_grad
    )


def randint_like(
    input: Tensor, low: int, high: Any = None, *, dtype: Any = None, device: Any = None
) -> Tensor:
    """Integers in [low, high), or [0, low), of the input's shape and dtype."""
    low, high = (0, low) if high is None else (low, high)
    return randint(low, high, tuple(input.shape), dtype=dtype or input.dtype, device=device)


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero each element with probability p and scale the rest by 1 / (1 - p); identity unless
    training.
    """
    if not 0 <= p <= 1:
        raise InvalidValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not training or p == 0:
        return input
    result = functions.dropout(input, next_key(), p=float(p))
    return write(input, result) if inplace else result


def _in_place(name: str, sample: Any) -> Any:
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return write(self, fitted(self, sample(self, *args, **kwargs), name))

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"Fill with random numbers: {(sample.__doc__ or '').strip()}"
    return method


def _uniform_into(self: Tensor, a: float = 0.0, b: float = 1.0, generator: Any = None) -> Tensor:
    """uniform in [a, b)."""
    return functions.uniform(
        next_key(generator), shape=tuple(self.shape), dtype=self.dtype, low=float(a), high=float(b)
    )


def _normal_into(
    self: Tensor, mean: float = 0.0, std: float = 1.0, generator: Any = None
) -> Tensor:
    """normal."""
    return functions.normal(
        next_key(generator),
        shape=tuple(self.shape),
        dtype=self.dtype,
        mean=float(mean),
        std=float(std),
    )


def _bernoulli_into(self: Tensor, p: Any = 0.5, generator: Any = None) -> Tensor:
    """1 with probability p (a number, or one for each element), else 0."""
    if isinstance(p, Tensor):
        return functions.bernoulli(p.expand(self.shape), next_key(generator), dtype=self.dtype)
    return functions.bernoulli_p(
        next_key(generator), p=float(p), shape=tuple(self.shape), dtype=self.dtype
    )


def _random_into(
    self: Tensor, low: int = 0, high: int | None = None, generator: Any = None
) -> Tensor:
    """integers in [low, high), or as far as the dtype knows all of them."""
    if high is None:
        low, high = 0, low or _integers_known(self.dtype)
    return randint(low, high, tuple(self.shape), generator=generator, dtype=self.dtype)


def _integers_known(dtype: DType) -> int:
    """How many integers from 0 on a dtype has without a gap."""
    if dtype.is_bool:
        return 2
    if dtype.is_int:
        return min(np.iinfo(dtype.np).max + 1, 2**63 - 1)
    import ml_dtypes  # with the first call, not with the library

    return 2 ** (ml_dtypes.finfo(dtype.np).nmant + 1) + 1


def _exponential_into(self: Tensor, lambd: float = 1.0, generator: Any = None) -> Tensor:
    """exponential."""
    return functions.exponential(
        next_key(generator), shape=tuple(self.shape), dtype=self.dtype, lambd=float(lambd)
    )


IN_PLACE = {
    "uniform_": _in_place("uniform_", _uniform_into), "normal_": _in_place("normal_", _normal_into),
    "bernoulli_": _in_place("bernoulli_", _bernoulli_into), "random_": _in_place("random_", _random_into),
    "exponential_": _in_place("exponential_", _exponential_into),
}  # fmt: skip
FUNCTIONS = {
    f.__name__: f
    for f in (
        rand, randn, randint, randperm, normal, bernoulli, multinomial, rand_like, randn_like, randint_like, dropout,
    )
}  # fmt: skip
