"""One LSTM layer, forward and backward: one GEMM for all inputs, static buffers for the loop.

Gates in PyTorch's order i, f, g, o. The three sigmoids are tanh in disguise, sigmoid(z) =
(1 + tanh(z / 2)) / 2: their rows of the weights are halved once a call, so a step's 4H gates are
one tanh.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.backends.numpy.fast.reduce import sum_first
from tracegrad.backends.numpy.fast.work import Array

Ints = tuple[int, ...]


class _Weights:
    """The weights with the rows of i, f and o halved, transposed for x @ w."""

    def __init__(self, features: int, hidden: int, dtype: np.dtype[Any]):
        self.scale = np.full(4 * hidden, 0.5, dtype)
        self.scale[2 * hidden : 3 * hidden] = 1
        self.w_ih = np.empty((features, 4 * hidden), dtype)
        self.w_hh = np.empty((hidden, 4 * hidden), dtype)
        self.bias = np.empty(4 * hidden, dtype)

    def load(self, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array) -> None:
        np.multiply(w_ih.T, self.scale, out=self.w_ih)
        np.multiply(w_hh.T, self.scale, out=self.w_hh)
        np.add(b_ih, b_hh, out=self.bias)
        np.multiply(self.bias, self.scale, out=self.bias)


def _sigmoids(gates: Array, hidden: int, half: Array) -> None:
    """tanh(z / 2) -> sigmoid(z) in the i, f and o parts of gates[.., 4H]."""
    for part in (gates[..., : 2 * hidden], gates[..., 3 * hidden :]):
        np.multiply(part, half, out=part)
        np.add(part, half, out=part)


class LstmForward:
    """(x[T,N,I], h0, c0, w_ih, w_hh, b_ih, b_hh) -> y[T,N,H], h_T[N,H], c_T[N,H].

    float32 or float64. Owns its buffers: one call at a time.
    """

    def __init__(self, x_shape: Ints, hidden: int, dtype: np.dtype[Any]):
        self.steps, self.batch, self.features = x_shape
        self.hidden = hidden
        self.weights = _Weights(self.features, hidden, np.dtype(dtype))
        self.fed = np.empty((self.steps, self.batch, 4 * hidden), dtype)
        self.gates = np.empty((self.batch, 4 * hidden), dtype)
        self.spare = np.empty((self.batch, hidden), dtype)
        self.half = np.array(0.5, dtype)

    @property
    def nbytes(self) -> int:
        return self.fed.nbytes + self.gates.nbytes + self.spare.nbytes + self.weights.w_ih.nbytes

    def __call__(
        self, x: Array, h0: Array, c0: Array, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array,
        y: Array, h: Array, c: Array,
    ) -> None:  # fmt: skip
        hidden, gates, spare, fed, weights = (
            self.hidden, self.gates, self.spare, self.fed, self.weights,
        )  # fmt: skip
        weights.load(w_ih, w_hh, b_ih, b_hh)
        np.matmul(x.reshape(-1, self.features), weights.w_ih, out=fed.reshape(-1, 4 * hidden))
        np.add(fed, weights.bias, out=fed)
        i, f, g, o = (gates[:, k * hidden : (k + 1) * hidden] for k in range(4))
        before = h0
        np.copyto(c, c0)
        for step in range(self.steps):
            np.matmul(before, weights.w_hh, out=gates)
            np.add(gates, fed[step], out=gates)
            np.tanh(gates, out=gates)
            _sigmoids(gates, hidden, self.half)
            np.multiply(c, f, out=c)
            np.multiply(i, g, out=spare)
            np.add(c, spare, out=c)
            np.tanh(c, out=spare)
            before = y[step]
            np.multiply(o, spare, out=before)
        np.copyto(h, before)


class LstmBackward:
    """(ct_y, ct_h, ct_c, inputs of the forward, y) -> a cotangent of every input.

    The gates of all steps follow from y by two GEMMs; only cells and cotangents need the loop.
    """

    def __init__(self, x_shape: Ints, hidden: int, dtype: np.dtype[Any]):
        steps, batch, self.features = x_shape
        self.steps, self.hidden = steps, hidden
        self.weights = _Weights(self.features, hidden, np.dtype(dtype))
        self.before = np.empty((steps, batch, hidden), dtype)
        self.gates = np.empty((steps, batch, 4 * hidden), dtype)
        self.to_gates = np.empty((steps, batch, 4 * hidden), dtype)
        self.cells = np.empty((steps + 1, batch, hidden), dtype)
        self.spare = np.empty((batch, hidden), dtype)
        self.dh, self.dc = np.empty((2, batch, hidden), dtype)
        self.half, self.one = np.array(0.5, dtype), np.array(1, dtype)

    @property
    def nbytes(self) -> int:
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray))

    def __call__(
        self, ct_y: Array, ct_h: Array, ct_c: Array, x: Array, h0: Array, c0: Array, w_ih: Array,
        w_hh: Array, b_ih: Array, b_hh: Array, y: Array, outs: tuple[Array, ...],
    ) -> None:  # fmt: skip
        """`outs`: arrays for x, h0, c0, w_ih, w_hh, b_ih, b_hh."""
        dx, dh0, dc0, dw_ih, dw_hh, db_ih, db_hh = outs
        rows = x.reshape(-1, self.features)
        self._gates(rows, h0, c0, w_ih, w_hh, b_ih, b_hh, y)
        np.copyto(self.dh, ct_h)
        np.copyto(self.dc, ct_c)
        for step in reversed(range(self.steps)):
            self._step(step, ct_y[step], w_hh)
        np.copyto(dh0, self.dh)
        np.copyto(dc0, self.dc)
        flat = self.to_gates.reshape(-1, 4 * self.hidden)
        np.copyto(dx, np.matmul(flat, w_ih).reshape(dx.shape))
        np.matmul(flat.T, rows, out=dw_ih)
        np.matmul(flat.T, self.before.reshape(-1, self.hidden), out=dw_hh)
        sum_first(flat, db_ih)
        np.copyto(db_hh, db_ih)

    def _gates(
        self, rows: Array, h0: Array, c0: Array, w_ih: Array, w_hh: Array, b_ih: Array,
        b_hh: Array, y: Array,
    ) -> None:  # fmt: skip
        """All gates after their activations, and the cell state before each step and after."""
        hidden, gates = self.hidden, self.gates
        if self.steps:
            np.copyto(self.before[0], h0)
            np.copyto(self.before[1:], y[:-1])
        self.weights.load(w_ih, w_hh, b_ih, b_hh)
        flat, other = (a.reshape(-1, 4 * hidden) for a in (gates, self.to_gates))
        np.matmul(rows, self.weights.w_ih, out=flat)
        np.matmul(self.before.reshape(-1, hidden), self.weights.w_hh, out=other)
        np.add(flat, other, out=flat)
        np.add(flat, self.weights.bias, out=flat)
        np.tanh(flat, out=flat)
        _sigmoids(gates, hidden, self.half)
        np.copyto(self.cells[0], c0)
        for step in range(self.steps):
            i, f, g, _ = self._parts(gates[step])
            np.multiply(i, g, out=self.spare)
            np.multiply(self.cells[step], f, out=self.cells[step + 1])
            np.add(self.cells[step + 1], self.spare, out=self.cells[step + 1])

    def _parts(self, gates: Array) -> tuple[Array, Array, Array, Array]:
        h = self.hidden
        return gates[:, :h], gates[:, h : 2 * h], gates[:, 2 * h : 3 * h], gates[:, 3 * h :]

    def _step(self, step: int, ct_y: Array, w_hh: Array) -> None:
        dh, dc, spare, one = self.dh, self.dc, self.spare, self.one
        i, f, g, o = self._parts(self.gates[step])
        di, df, dg, do = self._parts(self.to_gates[step])
        np.add(dh, ct_y, out=dh)
        # h = o tanh(c): do = dh tanh(c) o (1 - o), dc += dh o (1 - tanh(c)^2)
        np.tanh(self.cells[step + 1], out=spare)
        np.multiply(dh, o, out=dh)
        np.subtract(one, o, out=do)
        np.multiply(do, spare, out=do)
        np.multiply(do, dh, out=do)
        np.multiply(spare, spare, out=spare)
        np.subtract(one, spare, out=spare)
        np.multiply(spare, dh, out=spare)
        np.add(dc, spare, out=dc)
        # c = f c_before + i g, d sigmoid = s (1 - s), d tanh = 1 - t^2
        for into, gate, factor in ((di, i, g), (df, f, self.cells[step])):
            np.subtract(one, gate, out=into)
            np.multiply(into, gate, out=into)
            np.multiply(into, factor, out=into)
            np.multiply(into, dc, out=into)
        np.multiply(g, g, out=dg)
        np.subtract(one, dg, out=dg)
        np.multiply(dg, i, out=dg)
        np.multiply(dg, dc, out=dg)
        np.multiply(dc, f, out=dc)
        np.matmul(self.to_gates[step], w_hh, out=dh)
