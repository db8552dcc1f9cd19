"""Matrix products and convolutions in jax.lax."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax import lax

from tracegrad.backends.jax.lowering_elementwise import Lowering, is_bool

Ints = tuple[int, ...]


def matmul(x: Any, y: Any) -> Any:
    """[..B, m, k] @ [..B, k, n]; on bool: and, then or."""
    if is_bool(x):
        counted = matmul(
            lax.convert_element_type(x, np.int32), lax.convert_element_type(y, np.int32)
        )
        return lax.convert_element_type(counted, np.bool_)
    batch = tuple(range(x.ndim - 2))
    contracting = ((x.ndim - 1,), (y.ndim - 2,))
    return lax.dot_general(x, y, (contracting, (batch, batch)))


def conv(
    x: Any,
    w: Any,
    *,
    strides: Ints,
    padding: tuple[tuple[int, int], ...],
    lhs_dilation: Ints,
    rhs_dilation: Ints,
    groups: int,
) -> Any:
    """Cross-correlation of x[N,C,*S] with w[O,C/groups,*K]."""
    if any(side < 0 for sides in padding for side in sides):
        # XLA:CPU's float32 convolution (jaxlib 0.10) is wrong at a cropped edge: crop beforehand.
        # The dilation comes before the crop, so it moves along.
        crops = [(min(lo, 0), min(hi, 0), d - 1) for (lo, hi), d in zip(padding, lhs_dilation)]
        x = lax.pad(x, np.zeros((), x.dtype), [(0, 0, 0), (0, 0, 0), *crops])
        padding = tuple((max(lo, 0), max(hi, 0)) for lo, hi in padding)
        lhs_dilation = (1,) * len(lhs_dilation)
    letters = "DHW"[3 - (x.ndim - 2) :]
    channels_last = jax.default_backend() == "cpu"
    if channels_last:
        # XLA:CPU's fast convolution is channels-last only; XLA moves the transposes of a chain
        # together.
        last = (0, *range(2, x.ndim), 1)
        x = lax.transpose(x, last)
        w = lax.transpose(w, (*range(2, w.ndim), 1, 0))
        layout = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    else:
        layout = (f"NC{letters}", f"OI{letters}", f"NC{letters}")
    result = lax.conv_general_dilated(
        x, w, strides, padding, lhs_dilation, rhs_dilation,
        dimension_numbers=layout, feature_group_count=groups,
    )  # fmt: skip
    if channels_last:
        result = lax.transpose(result, (0, x.ndim - 1, *range(1, x.ndim - 1)))
    return result


LOWERINGS: dict[str, Lowering] = {"matmul": matmul, "conv": conv}
