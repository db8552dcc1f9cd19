"""Embedding: rows of a table by index; EmbeddingBag: several rows reduced to one."""

from __future__ import annotations

from typing import Any

import tracegrad as tg
from tracegrad.nn import functional as F
from tracegrad.nn import init
from tracegrad.nn.bags import refuse_options
from tracegrad.nn.module import Module
from tracegrad.nn.parameter import Parameter
from tracegrad.tracer import Tensor, no_grad
from tracegrad.tracer.errors import InvalidValueError


class _Table(Module):
    """A table `weight` [num_embeddings, embedding_dim] ~ N(0, 1); row `padding_idx` starts at 0."""

    def _add_table(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None, given: Tensor | None,
        requires_grad: bool, device: Any, dtype: Any,
    ) -> None:  # fmt: skip
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise InvalidValueError("Padding_idx must be within num_embeddings")
            padding_idx %= num_embeddings
        self.padding_idx = padding_idx
        if given is None:
            table = tg.empty(num_embeddings, embedding_dim, device=device, dtype=dtype)
            self.weight = Parameter(table, requires_grad=requires_grad)
            self.reset_parameters()
        else:
            self.weight = Parameter(given, requires_grad=requires_grad)

    def reset_parameters(self) -> None:
        """Draw the table afresh."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx].fill_(0)


class Embedding(_Table):
    """weight [num_embeddings, embedding_dim] ~ N(0, 1); row `padding_idx` stays 0."""

    def __init__(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None,
        max_norm: float | None = None, norm_type: float = 2.0, scale_grad_by_freq: bool = False,
        sparse: bool = False, _weight: Tensor | None = None, _freeze: bool = False,
        device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__()
        refuse_options(
            "Embedding", max_norm=max_norm, scale_grad_by_freq=scale_grad_by_freq, sparse=sparse
        )
        self._add_table(
            num_embeddings, embedding_dim, padding_idx, _weight, not _freeze, device, dtype
        )

    @classmethod
    def from_pretrained(
        cls, embeddings: Tensor, freeze: bool = True, padding_idx: int | None = None
    ) -> Embedding:
        """An Embedding on a given table [num_embeddings, embedding_dim]."""
        rows, columns = embeddings.shape
        return cls(rows, columns, padding_idx, _weight=embeddings, _freeze=freeze)

    def forward(self, input: Tensor) -> Tensor:
        return F.embedding(input, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        return text if self.padding_idx is None else f"{text}, padding_idx={self.padding_idx}"


class EmbeddingBag(_Table):
    """The sum, mean or maximum of rows of a table; see F.embedding_bag. weight ~ N(0, 1)."""

    def __init__(
        self, num_embeddings: int, embedding_dim: int, max_norm: float | None = None,
        norm_type: float = 2.0, scale_grad_by_freq: bool = False, mode: str = "mean",
        sparse: bool = False, _weight: Tensor | None = None, include_last_offset: bool = False,
        padding_idx: int | None = None, device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__()
        refuse_options(
            "EmbeddingBag", max_norm=max_norm, scale_grad_by_freq=scale_grad_by_freq, sparse=sparse
        )
        self.mode = mode
        self.include_last_offset = include_last_offset
        self._add_table(num_embeddings, embedding_dim, padding_idx, _weight, True, device, dtype)

    @classmethod
    def from_pretrained(
        cls, embeddings: Tensor, freeze: bool = True, mode: str = "mean", include_last_offset: bool = False,
        padding_idx: int | None = None,
    ) -> EmbeddingBag:  # fmt: skip
        """An EmbeddingBag on a given table [num_embeddings, embedding_dim]."""
        rows, columns = embeddings.shape
        bag = cls(
            rows, columns, mode=mode, _weight=embeddings, include_last_offset=include_last_offset,
            padding_idx=padding_idx,
        )  # fmt: skip
        bag.weight.requires_grad = not freeze
        return bag

    def forward(
        self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        return F.embedding_bag(
            input, self.weight, offsets, mode=self.mode, per_sample_weights=per_sample_weights,
            include_last_offset=self.include_last_offset, padding_idx=self.padding_idx,
        )  # fmt: skip

    def extra_repr(self) -> str:
        text = f"{self.num_embeddings}, {self.embedding_dim}, mode={self.mode!r}"
        return text if self.padding_idx is None else f"{text}, padding_idx={self.padding_idx}"
