"""Recurrent layers: RNN, LSTM, GRU (stacked, bidirectional) and their cells.

Weights are named and shaped as in PyTorch (`weight_ih_l0` [gates * hidden, input], ...,
`_reverse`), gates in the order i, f, g, o (LSTM) and r, z, n (GRU), all drawn from
U(+-1/sqrt(hidden)).
"""

from __future__ import annotations

import math
from typing import Any

import tracegrad as tg
from tracegrad.nn import functional as F
from tracegrad.nn import init
from tracegrad.nn.module import Module
from tracegrad.nn.parameter import Parameter
from tracegrad.nn.utils.rnn import PackedSequence, filled, within
from tracegrad.tracer import Tensor
from tracegrad.tracer.errors import InvalidValueError, ShapeError
from tracegrad.tracer.locate import warn

SHUT = 1e4  # sigmoid is exactly 0 at -SHUT and 1 at SHUT, in every dtype
_GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}


class _Recurrent(Module):
    kind = ""
    at_rest: tuple[float, ...] = ()  # what each gate gets where the state is to stay

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
        device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__()
        if not 0 <= dropout <= 1:
            raise InvalidValueError(
                "dropout should be a number in range [0, 1] representing the probability of an "
                f"element being zeroed, got {dropout}"
            )
        if hidden_size <= 0 or num_layers <= 0:
            raise InvalidValueError("hidden_size and num_layers must be greater than zero")
        if dropout > 0 and num_layers == 1:
            warn(
                "dropout option adds dropout after all but last recurrent layer, so non-zero "
                f"dropout expects num_layers greater than 1, but got dropout={dropout} and "
                f"num_layers={num_layers}"
            )
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        rows = _GATES[self.kind] * hidden_size
        factory = {"device": device, "dtype": dtype}
        for layer in range(num_layers):
            width = input_size if layer == 0 else hidden_size * self._directions
            for suffix in self._suffixes(layer):
                shapes: dict[str, tuple[int, ...]] = {
                    "weight_ih": (rows, width),
                    "weight_hh": (rows, hidden_size),
                }
                if bias:
                    shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
                for name, shape in shapes.items():
                    setattr(self, name + suffix, Parameter(tg.empty(*shape, **factory)))
        self.reset_parameters()

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}", f"_l{layer}_reverse"][: self._directions]

    def _weights(self, suffix: str) -> tuple[Any, ...]:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return tuple(getattr(self, name + suffix, None) for name in names)

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The weights of each layer and direction, in registration order."""
        return [
            [weight for weight in self._weights(suffix) if weight is not None]
            for layer in range(self.num_layers)
            for suffix in self._suffixes(layer)
        ]

    def reset_parameters(self) -> None:
        """Draw all weights afresh."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def flatten_parameters(self) -> None:
        """Here for scripts that call it; weights need no particular layout."""

    def _layer(self, x: Tensor, state: Any, weights: Any, reverse: bool) -> Any:
        """One layer, one direction: [T, N, I] -> [T, N, H] and the final states."""
        raise NotImplementedError

    def _layer_of_lengths(
        self, x: Tensor, state: Any, weights: Any, reverse: bool, lengths: Tensor
    ) -> Any:
        """`_layer` of sequences that end early: what lies behind their ends takes no part."""
        # Zeros behind the ends: what lies there may be nan, and would reach the gradients.
        x = filled(x, lengths, 0)
        rows = tg.arange(x.shape[1])
        if reverse:
            # Each sequence backwards, from its own end; applied twice, this changes nothing.
            steps = tg.arange(x.shape[0]).unsqueeze(1)
            mirrored = tg.where(steps < lengths, lengths - 1 - steps, steps)
            x = x[mirrored, rows]
        y, *finals = self._layer_held(x, state, weights, lengths)
        finals = [y[lengths - 1, rows], *finals[1:]]
        return (y[mirrored, rows] if reverse else y), *finals

    def _layer_held(self, x: Tensor, state: Any, weights: Any, lengths: Tensor) -> Any:
        """`_layer` forwards, where the last cell state is the one at each sequence's end.

        One more input, 1 behind the end, opens and shuts the gates there, entirely.
        """
        ended = (~within(x.shape[0], lengths)).to(x.dtype).unsqueeze(-1)
        gates = tg.tensor(self.at_rest, dtype=x.dtype)
        column = gates.repeat_interleave(self.hidden_size).unsqueeze(1)
        weights = (tg.cat([weights[0], column], 1), *weights[1:])
        return self._layer(tg.cat([x, ended], -1), state, weights, False)

    def _run(self, input: Any, states: tuple[Tensor, ...] | None) -> Any:
        """All layers; `states` are [layers * directions, N, H] (or without N)."""
        if isinstance(input, PackedSequence):
            return self._run_padded(input.padded, states, input)
        if input.dim() not in (2, 3):
            raise InvalidValueError(
                f"{self.kind}: Expected input to be 2D or 3D, got {input.dim()}D instead"
            )
        batched = input.dim() == 3
        x = input if batched else input.unsqueeze(1)
        if batched and self.batch_first:
            x = x.transpose(0, 1)
        if not batched and states is not None:
            states = tuple(s.unsqueeze(1) for s in states)
        x, last = self._run_padded(x, states)
        if batched:
            return (x.transpose(0, 1) if self.batch_first else x), last
        return x.squeeze(1), tuple(s.squeeze(1) for s in last)

    def _run_padded(
        self, x: Tensor, states: tuple[Tensor, ...] | None, sequences: PackedSequence | None = None
    ) -> Any:
        """All layers on [T, N, I], with states [layers * directions, N, H]."""
        if x.shape[-1] != self.input_size:
            raise ShapeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, "
                f"got {x.shape[-1]}"
            )
        count = self.num_layers * self._directions
        shape = (count, x.shape[1], self.hidden_size)
        if states is None:
            zero = tg.zeros(shape, dtype=x.dtype, device=x.device)
            states = (zero,) * (2 if self.kind == "LSTM" else 1)
        else:
            for state in states:
                if tuple(state.shape) != shape:
                    raise ShapeError(
                        f"Expected hidden size {shape}, got {list(state.shape)} "
                        "(layers * directions, batch, hidden)"
                    )
        finals: list[list[Tensor]] = []
        for layer in range(self.num_layers):
            outputs = []
            for direction, suffix in enumerate(self._suffixes(layer)):
                start = tuple(s[layer * self._directions + direction] for s in states)
                how = (x, start, self._weights(suffix), bool(direction))
                if sequences is None:
                    y, *final = self._layer(*how)
                else:
                    y, *final = self._layer_of_lengths(*how, sequences.lengths)
                outputs.append(y)
                finals.append(final)
            x = tg.cat(outputs, dim=-1) if len(outputs) > 1 else outputs[0]
            if self.dropout and layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout, self.training)
        last = tuple(tg.stack(parts) for parts in zip(*finals))
        return (x if sequences is None else sequences.with_padded(x)), last

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        if self.num_layers != 1:
            text += f", num_layers={self.num_layers}"
        if not self.bias:
            text += ", bias=False"
        if self.batch_first:
            text += ", batch_first=True"
        if self.dropout:
            text += f", dropout={self.dropout}"
        if self.bidirectional:
            text += ", bidirectional=True"
        return text


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter & Schmidhuber 1997).

    forward(x[T, N, I], (h0, c0) = zeros) -> (y[T, N, D H], (hT, cT)), states [layers D, N, H];
    [N, T, .] with batch_first; without N for a single sequence.
    """

    kind = "LSTM"
    at_rest = (-SHUT, SHUT, 0.0, 0.0)

    def forward(
        self, input: Tensor | PackedSequence, hx: tuple[Tensor, Tensor] | None = None
    ) -> Any:
        return self._run(input, hx)

    def _layer(self, x: Tensor, state: Any, weights: Any, reverse: bool) -> Any:
        return F.lstm_layer(x, *state, *weights, reverse=reverse)


class _OneState(_Recurrent):
    def forward(
        self, input: Tensor | PackedSequence, hx: Tensor | None = None
    ) -> tuple[Any, Tensor]:
        output, states = self._run(input, None if hx is None else (hx,))
        return output, states[0]


class GRU(_OneState):
    """Gated recurrent unit (Cho et al. 2014); the reset gate acts after the hidden product.

    forward(x[T, N, I], h0 = zeros) -> (y[T, N, D H], hT[layers D, N, H]).
    """

    kind = "GRU"
    at_rest = (0.0, SHUT, 0.0)

    def _layer(self, x: Tensor, state: Any, weights: Any, reverse: bool) -> Any:
        return F.gru_layer(x, *state, *weights, reverse=reverse)


class RNN(_OneState):
    """h' = tanh(W x + b + U h + c) (Elman 1990), or relu.

    forward(x[T, N, I], h0 = zeros) -> (y[T, N, D H], hT[layers D, N, H]).
    """

    kind = "RNN"
    at_rest = (-SHUT,)  # nothing stays; but a relu must not grow behind the end

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh",
        bias: bool = True, batch_first: bool = False, dropout: float = 0.0,
        bidirectional: bool = False, device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        _check_nonlinearity(nonlinearity)
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            device, dtype,
        )  # fmt: skip
        self.nonlinearity = nonlinearity

    def _layer(self, x: Tensor, state: Any, weights: Any, reverse: bool) -> Any:
        return F.rnn_layer(x, *state, *weights, nonlinearity=self.nonlinearity, reverse=reverse)


def _check_nonlinearity(name: str) -> None:
    if name not in ("tanh", "relu"):
        raise InvalidValueError(f"Unknown nonlinearity '{name}'. Select from 'tanh' or 'relu'.")


class _Cell(Module):
    gates = 1

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None,
        dtype: Any = None,
    ):  # fmt: skip
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        rows = self.gates * hidden_size
        factory = {"device": device, "dtype": dtype}
        self.weight_ih = Parameter(tg.empty(rows, input_size, **factory))
        self.weight_hh = Parameter(tg.empty(rows, hidden_size, **factory))
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, Parameter(tg.empty(rows, **factory)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights afresh."""
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def _state(self, input: Tensor, given: Tensor | None) -> Tensor:
        """The state of a step, zeros if none is given. Raises ShapeError if it does not fit."""
        shape = (*input.shape[:-1], self.hidden_size)
        if input.dim() not in (1, 2):
            raise InvalidValueError(
                f"{type(self).__name__}: expected input to be 1D or 2D, got {input.dim()}D instead"
            )
        if given is None:
            return tg.zeros(shape, dtype=input.dtype, device=input.device)
        if tuple(given.shape) != shape:
            raise ShapeError(
                f"{type(self).__name__}: a state of shape {list(given.shape)} for an input of shape "
                f"{list(input.shape)}",
                fix=f"give one of shape {list(shape)}",
            )
        return given

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


class LSTMCell(_Cell):
    """One LSTM step: (x[N, I], (h, c)[N, H]) -> (h', c')."""

    gates = 4

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        h, c = (self._state(input, given) for given in hx or (None, None))
        gates = F.linear(input, self.weight_ih, self.bias_ih) + F.linear(
            h, self.weight_hh, self.bias_hh
        )
        i, f, g, o = gates.chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class GRUCell(_Cell):
    """One GRU step: (x[N, I], h[N, H]) -> h'."""

    gates = 3

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        h = self._state(input, hx)
        return F.gru_gates(
            F.linear(input, self.weight_ih, self.bias_ih),
            F.linear(h, self.weight_hh, self.bias_hh),
            h,
        )


class RNNCell(_Cell):
    """One Elman step: (x[N, I], h[N, H]) -> h'."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh",
        device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        _check_nonlinearity(nonlinearity)
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        h = self._state(input, hx)
        total = F.linear(input, self.weight_ih, self.bias_ih) + F.linear(
            h, self.weight_hh, self.bias_hh
        )
        return total.tanh() if self.nonlinearity == "tanh" else total.relu()

    def extra_repr(self) -> str:
        text = super().extra_repr()
        return text if self.nonlinearity == "tanh" else f"{text}, nonlinearity={self.nonlinearity}"
