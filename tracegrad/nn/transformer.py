"""MultiheadAttention, TransformerEncoderLayer, TransformerEncoder (Vaswani et al. 2017)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import tracegrad as tg
from tracegrad.nn import functional as F
from tracegrad.nn import init
from tracegrad.nn.containers import ModuleList
from tracegrad.nn.dropout import Dropout
from tracegrad.nn.linear import Linear
from tracegrad.nn.module import Module
from tracegrad.nn.norm import LayerNorm
from tracegrad.nn.parameter import Parameter
from tracegrad.tracer import Tensor
from tracegrad.tracer.errors import InvalidValueError, ShapeError


class MultiheadAttention(Module):
    """Attention with `num_heads` heads of size embed_dim / num_heads.

    forward(query, key, value) -> (output, weights); sequences are [L, N, E], [N, L, E] with
    batch_first, or [L, E]. `attn_mask` is boolean (True: do not attend) or added to the scores;
    `key_padding_mask` [N, S] likewise. Weights are [N, L, S], the mean over heads unless
    average_attn_weights=False, or None with need_weights=False.
    """

    def __init__(
        self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True,
        add_bias_kv: bool = False, add_zero_attn: bool = False, kdim: int | None = None,
        vdim: int | None = None, batch_first: bool = False, device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__()
        if embed_dim <= 0 or num_heads <= 0 or embed_dim % num_heads:
            raise InvalidValueError(
                f"embed_dim must be divisible by num_heads, got {embed_dim} and {num_heads}"
            )
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self.num_heads = num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.head_dim = embed_dim // num_heads
        self.add_zero_attn = add_zero_attn
        factory = {"device": device, "dtype": dtype}
        self._same_dims = self.kdim == embed_dim and self.vdim == embed_dim

        def weight(*shape: int) -> Parameter:
            return Parameter(tg.empty(*shape, **factory))

        if self._same_dims:
            self.in_proj_weight = weight(3 * embed_dim, embed_dim)
            separate: tuple[Parameter | None, ...] = (None, None, None)
        else:
            separate = (
                weight(embed_dim, embed_dim),
                weight(embed_dim, self.kdim),
                weight(embed_dim, self.vdim),
            )
            self.register_parameter("in_proj_weight", None)
        for name, value in zip(("q_proj_weight", "k_proj_weight", "v_proj_weight"), separate):
            self.register_parameter(name, value)
        self.register_parameter("in_proj_bias", weight(3 * embed_dim) if bias else None)
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias, **factory)
        self.register_parameter("bias_k", weight(1, 1, embed_dim) if add_bias_kv else None)
        self.register_parameter("bias_v", weight(1, 1, embed_dim) if add_bias_kv else None)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """Xavier-uniform projections, zero biases, Xavier-normal bias_k and bias_v."""
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            weight = self.__dict__[name]
            if weight is not None:
                init.xavier_uniform_(weight)
        if self.in_proj_bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)
        for extra in (self.bias_k, self.bias_v):
            if extra is not None:
                init.xavier_normal_(extra)

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """Projections of batch-first [N, L, .] inputs."""
        size = self.embed_dim
        bias = self.in_proj_bias
        if self._same_dims and query is key and key is value:
            return tuple(F.linear(query, self.in_proj_weight, bias).chunk(3, -1))
        if self._same_dims:
            weights = self.in_proj_weight.split(size, 0)
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        biases = (None, None, None) if bias is None else bias.split(size, 0)
        return tuple(map(F.linear, (query, key, value), weights, biases))

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        batched = query.dim() == 3
        if is_causal and attn_mask is None:
            raise InvalidValueError(
                "Need attn_mask if specifying the is_causal hint; pass "
                "tg.ones(length, length, dtype=tg.bool).triu(1)"
            )

        def arranged(x: Tensor) -> Tensor:
            if not batched:
                return x.unsqueeze(0)
            return x if self.batch_first else x.transpose(0, 1)

        if query is key and key is value:
            query = key = value = arranged(query)
        elif key is value:
            query, key = arranged(query), arranged(key)
            value = key
        else:
            query, key, value = arranged(query), arranged(key), arranged(value)
        q, k, v = self._projected(query, key, value)
        n, length, _ = q.shape
        if key_padding_mask is not None and not batched and key_padding_mask.dim() == 1:
            key_padding_mask = key_padding_mask.unsqueeze(0)
        mask = self._merged_mask(attn_mask, key_padding_mask, n, length, k.shape[1], q.dtype)
        k, v, mask = self._with_extra_positions(k, v, mask)

        def heads(x: Tensor) -> Tensor:
            return x.reshape(n, x.shape[1], self.num_heads, self.head_dim).transpose(1, 2)

        q, k, v = heads(q), heads(k), heads(v)
        rate = self.dropout if self.training else 0.0
        weights: Tensor | None = None
        if need_weights:
            scores = (q * self.head_dim**-0.5) @ k.transpose(-2, -1)
            weights = F.softmax(scores if mask is None else scores + mask, -1)
            if rate:
                weights = F.dropout(weights, rate)
            mixed = weights @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, mask, rate)
        output = self.out_proj(mixed.transpose(1, 2).reshape(n, length, self.embed_dim))
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if not batched:
            return output.squeeze(0), None if weights is None else weights.squeeze(0)
        return (output if self.batch_first else output.transpose(0, 1)), weights

    def _merged_mask(
        self, attn_mask: Tensor | None, padding: Tensor | None, n: int, length: int, source: int,
        dtype: Any,
    ) -> Tensor | None:  # fmt: skip
        """Both masks as one additive mask that broadcasts to [N, heads, L, S]."""
        merged = None
        if attn_mask is not None:
            heads = () if attn_mask.dim() == 2 else (n * self.num_heads,)
            merged = _additive("attn_mask", attn_mask, (*heads, length, source), dtype)
            if heads:
                merged = merged.reshape(n, self.num_heads, length, source)
        if padding is not None:
            wide = _additive("key_padding_mask", padding, (n, source), dtype)
            wide = wide.reshape(n, 1, 1, source)
            merged = wide if merged is None else merged + wide
        return merged

    def _with_extra_positions(
        self, k: Tensor, v: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Append bias_k / bias_v and the all-zero position, if asked for; neither is masked."""
        n, _, size = k.shape
        extra_k, extra_v = [], []
        if self.bias_k is not None:
            extra_k.append(self.bias_k.expand(n, 1, size))
            extra_v.append(self.bias_v.expand(n, 1, size))
        if self.add_zero_attn:
            zero = tg.zeros((n, 1, size), dtype=k.dtype)
            extra_k.append(zero)
            extra_v.append(zero)
        if not extra_k:
            return k, v, mask
        if mask is not None:
            mask = F.pad(mask, (0, len(extra_k)))
        return tg.cat([k, *extra_k], dim=1), tg.cat([v, *extra_v], dim=1), mask


def _additive(name: str, mask: Tensor, shape: tuple[int, ...], dtype: Any) -> Tensor:
    """A boolean mask (True: masked) as 0 / -inf; floats unchanged. Raises ShapeError for others."""
    if tuple(mask.shape) != shape:
        raise ShapeError(
            f"{name} has shape {list(mask.shape)}, not {list(shape)}",
            why="attn_mask is [L, S] or [N * heads, L, S], key_padding_mask [N, S]",
            fix="transpose or expand it",
        )
    if mask.is_floating_point():
        return mask
    if mask.dtype != tg.bool:
        raise ShapeError(
            f"{name} has dtype {mask.dtype.public_name}",
            why="a bool mask says what not to attend to, a float one is added to the scores",
            fix="give mask.bool()",
        )
    return tg.zeros(tuple(mask.shape), dtype=dtype).masked_fill(mask, float("-inf"))


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}


class TransformerEncoderLayer(Module):
    """Self-attention and a feed-forward block, each with dropout, residual and layer norm.

    `norm_first=True` normalises before each block instead of after it.
    """

    def __init__(
        self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
        activation: str | Callable[[Tensor], Tensor] = "relu", layer_norm_eps: float = 1e-5,
        batch_first: bool = False, norm_first: bool = False, bias: bool = True,
        device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        self.self_attn = MultiheadAttention(
            d_model, nhead, dropout=dropout, bias=bias, batch_first=batch_first, **factory
        )
        self.linear1 = Linear(d_model, dim_feedforward, bias=bias, **factory)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias=bias, **factory)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, eps=layer_norm_eps, bias=bias, **factory)
        self.norm2 = LayerNorm(d_model, eps=layer_norm_eps, bias=bias, **factory)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        if isinstance(activation, str):
            if activation not in _ACTIVATIONS:
                raise InvalidValueError(f"activation should be relu/gelu, not {activation}")
            activation = _ACTIVATIONS[activation]
        self.activation = activation

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        x = src
        if self.norm_first:
            x = x + self._attend(self.norm1(x), src_mask, src_key_padding_mask, is_causal)
            return x + self._feed_forward(self.norm2(x))
        x = self.norm1(x + self._attend(x, src_mask, src_key_padding_mask, is_causal))
        return self.norm2(x + self._feed_forward(x))

    def _attend(
        self, x: Tensor, mask: Tensor | None, padding: Tensor | None, is_causal: bool
    ) -> Tensor:
        output, _ = self.self_attn(
            x, x, x, attn_mask=mask, key_padding_mask=padding, need_weights=False,
            is_causal=is_causal,
        )  # fmt: skip
        return self.dropout1(output)

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(x)))))


class TransformerEncoder(Module):
    """A stack of `num_layers` copies of a TransformerEncoderLayer."""

    def __init__(
        self, encoder_layer: TransformerEncoderLayer, num_layers: int,
        norm: Module | None = None, enable_nested_tensor: bool = True, mask_check: bool = True,
    ):  # fmt: skip
        super().__init__()
        self.layers = ModuleList(copy.deepcopy(encoder_layer) for _ in range(num_layers))
        self.num_layers = num_layers
        self.norm = norm

    def forward(
        self, src: Tensor, mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None, is_causal: bool | None = None,
    ) -> Tensor:  # fmt: skip
        x = src
        for layer in self.layers:
            x = layer(x, mask, src_key_padding_mask, bool(is_causal))
        return x if self.norm is None else self.norm(x)
