"""Embeddings of several indices reduced to one: `embedding_bag`."""

from __future__ import annotations

from typing import Any

import tracegrad as tg
from tracegrad.tracer import Tensor, functions
from tracegrad.tracer.errors import InvalidValueError, ShapeError, UnsupportedError


def refuse_options(what: str, **options: Any) -> None:
    """Raises UnsupportedError for an option of embeddings that is given: none of these is there."""
    for name, value in options.items():
        if value is not None and value is not False:
            raise UnsupportedError(
                f"{what}({name}={value!r})",
                why="rows are not renormalised, and gradients of embeddings are dense and unscaled",
                fix="leave it at its default",
            )


def embedding_bag(
    input: Tensor, weight: Tensor, offsets: Tensor | None = None, max_norm: float | None = None,
    norm_type: float = 2, scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False,
    per_sample_weights: Tensor | None = None, include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:  # fmt: skip
    """The sum, mean or maximum of the rows of each bag of indices: [bags, columns of weight].

    A bag is a row of `input` [bags, n]; or, for `input` [n], what lies between two `offsets`.
    Indices equal to `padding_idx` do not count; an empty bag gives zeros.
    """
    refuse_options(
        "embedding_bag", max_norm=max_norm, scale_grad_by_freq=scale_grad_by_freq, sparse=sparse
    )
    if mode not in ("sum", "mean", "max"):
        raise InvalidValueError(f"mode has to be one of sum, mean or max, not {mode!r}")
    if per_sample_weights is not None and mode != "sum":
        raise UnsupportedError(
            f"embedding_bag: per_sample_weights with mode {mode!r}", fix="use mode='sum'"
        )
    if input.dim() == 2 and offsets is None:
        rows = functions.embedding(input, weight)
        member = tg.ones_like(input, dtype=tg.bool)
    elif input.dim() == 1 and offsets is not None:
        offsets = functions.bag_offsets(offsets, count=input.shape[0])
        first = (offsets[:-1] if include_last_offset else offsets).unsqueeze(1)
        place = tg.arange(input.shape[0]).unsqueeze(0)
        last = tg.cat([first[1:], offsets[-1:].unsqueeze(1)]) if include_last_offset else None
        if last is None:
            last = tg.cat([first[1:], tg.full((1, 1), input.shape[0], dtype=first.dtype)])
        member = (first <= place) & (place < last)  # [bags, n]: every bag looks at all of `input`
        input = input.unsqueeze(0)
        rows = functions.embedding(input, weight)
    else:
        raise ShapeError(
            f"embedding_bag of indices {list(input.shape)}",
            why="bags are rows of a matrix, or parts of a vector cut at `offsets`",
        )
    if padding_idx is not None:
        member = member & (input != padding_idx % weight.shape[0])
    if per_sample_weights is not None:
        weights = per_sample_weights.reshape(input.shape)
        rows = rows * weights.unsqueeze(-1)
    member = member.unsqueeze(-1)
    count: Any = member.sum(1)
    if mode == "max":
        top = tg.where(member, rows, float("-inf")).amax(1)
        return tg.where(count > 0, top, 0.0)
    total = tg.where(member, rows, 0.0).sum(1)
    return total if mode == "sum" else total / count.clamp(min=1)
