"""Ways to write samples, used by several families."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.sampling import Array, Rng, Sample, bools, integers, nonzero, normal

Table = dict[str, list[Sample]]
Draw = Callable[..., Array]
Shape = tuple[int, ...]


def whole(low: int, high: int) -> Draw:
    return lambda rng, *shape, dtype: integers(rng, low, high, *shape, dtype=dtype)


def flags(rng: Rng, *shape: int, dtype: Any) -> Array:
    return bools(rng, *shape)


def unit_disc(rng: Rng, *shape: int, dtype: Any) -> Array:
    """Complex numbers off both axes, where the branch cuts lie."""
    radius, angle = rng.uniform(0.3, 0.8, shape), rng.uniform(0.3, 1.2, shape)
    quarter = rng.integers(0, 4, shape) * (np.pi / 2)
    return np.asarray(radius * np.exp(1j * (angle + quarter))).astype(dtype)


def pair(first: list[Any], second: list[Any], differentiable: tuple[int, ...] = ()) -> Sample:
    """Two given vectors; finite differences cannot judge kinks, so their gradients go unchecked."""
    return Sample(
        lambda rng: (np.array(first), np.array(second)),
        differentiable=differentiable,
        grad_check=bool(differentiable),
        label="edges",
    )


def apart(rng: Rng) -> tuple[Array, Array]:
    x = normal(rng, 2, 3)
    return x, x + nonzero(rng, 2, 3)


def one(draw: Draw, shape: tuple[int, ...], label: str = "", /, **attrs: Any) -> Sample:
    """A differentiable sample of one input."""
    return Sample(lambda rng: (draw(rng, *shape),), attrs, (0,), label=label or str(shape))


def plain(build: Callable[[Rng], tuple[Any, ...]], label: str = "", /, **attrs: Any) -> Sample:
    """A sample without gradients."""
    return Sample(build, attrs, label=label)


def normals(
    *shapes: Shape, label: str = "", wrt: tuple[int, ...] | None = None, **attrs: Any
) -> Sample:
    """Normal f64 inputs of these shapes, all of them differentiable unless `wrt` says which."""
    return Sample(
        lambda rng: tuple(normal(rng, *shape) for shape in shapes),
        attrs,
        tuple(range(len(shapes))) if wrt is None else wrt,
        label=label,
    )


def in_dtype(sample: Sample, dtype: Any) -> Sample:
    """The same call with its f64 inputs in `dtype`; too coarse for finite differences."""

    def build(rng: Rng) -> tuple[Any, ...]:
        return tuple(
            a.astype(dtype) if np.asarray(a).dtype == np.float64 else a for a in sample.build(rng)
        )

    return Sample(build, sample.attrs, sample.differentiable, False, np.dtype(dtype).name)


def key(rng: Rng) -> Array:
    return np.asarray(rng.integers(0, 2**32, 2)).astype(np.uint32)
