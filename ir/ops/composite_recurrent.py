"""LSTM layer (Hochreiter & Schmidhuber 1997 with forget gates), one layer, one direction.

Gates in PyTorch's order i, f, g, o:
c' = sigmoid(f) c + sigmoid(i) tanh(g) and h' = sigmoid(o) tanh(c').
Backward keeps the inputs and y: the gates of all steps follow from y by one product, only the cell
states and the cotangents need a loop.
"""

from __future__ import annotations

from collections.abc import Callable

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Graph, Node, Op, placeholder
from tracegrad.ir.ops.base import of_category, register, traits
from tracegrad.ir.ops.build import along, given, part, reshape, swap, total
from tracegrad.ir.ops.shape import reverse_axes, take_range
from tracegrad.ir.ops.traits import COMPOSITE, CONTRACTION, EXPENSIVE, MULTI
from tracegrad.ir.types import TensorType, TupleType

Parts = tuple[Node | None, ...]
_TRAITS = traits(COMPOSITE, MULTI, CONTRACTION, EXPENSIVE)


def _flops(factor: float, first: int) -> Callable[[Node], float]:
    def flops(node: Node) -> float:
        steps, batch, features = node.inputs[first].shape
        hidden = node.inputs[first + 1].shape[1]
        return factor * steps * batch * 4 * hidden * (features + hidden)

    return flops


def _lstm_type(
    x: TensorType, h0: TensorType, c0: TensorType, w_ih: TensorType, w_hh: TensorType,
    b_ih: TensorType, b_hh: TensorType,
) -> TupleType:  # fmt: skip
    of_category(x, "f")
    if x.ndim != 3 or h0.ndim != 2:
        raise IRTypeError(f"needs x[T, N, I] and h0[N, H], not {x} and {h0}")
    (steps, batch, features), hidden = x.shape, h0.shape[1]
    shapes = ((batch, hidden), (batch, hidden), (4 * hidden, features), (4 * hidden, hidden),
              (4 * hidden,), (4 * hidden,))  # fmt: skip
    names = ("h0", "c0", "w_ih", "w_hh", "b_ih", "b_hh")
    for name, shape, type_ in zip(names, shapes, (h0, c0, w_ih, w_hh, b_ih, b_hh)):
        if type_ != x.with_shape(shape):
            raise IRTypeError(f"{name} must be {x.with_shape(shape)}, not {type_}")
    return TupleType((x.with_shape((steps, batch, hidden)), h0, c0))


def _rows(x: Node) -> Node:
    """x[T, N, K] as [T N, K]: one product for all steps."""
    return ops.reshape(x, shape=(x.shape[0] * x.shape[1], x.shape[2]))


def _input_part(x: Node, w_ih: Node, b_ih: Node, b_hh: Node) -> Node:
    """x w_ih^T + b_ih + b_hh, [T, N, 4H]."""
    product = ops.matmul(_rows(x), swap(w_ih))
    product = product + along(b_ih + b_hh, product.shape, (1,))
    return ops.reshape(product, shape=(*x.shape[:2], product.shape[1]))


def _gates(pre: Node) -> tuple[Node, Node, Node, Node]:
    """i, f, g, o after their activations, from [.., 4H]."""
    last = pre.ndim - 1
    hidden = pre.shape[last] // 4
    i, f, g, o = (take_range(pre, last, k * hidden, (k + 1) * hidden) for k in range(4))
    return ops.sigmoid(i), ops.sigmoid(f), ops.tanh(g), ops.sigmoid(o)


def _graph(name: str, inputs: tuple[Node, ...], *outputs: Node) -> Graph:
    return Graph(inputs, outputs, name=name)


# ---- lstm(x, h0, c0, w_ih, w_hh, b_ih, b_hh) -> (y[T, N, H], h_T, c_T) ----


def _lstm(
    x: Node, h0: Node, c0: Node, w_ih: Node, w_hh: Node, b_ih: Node, b_hh: Node
) -> tuple[Node, Node, Node]:
    fed = _input_part(x, w_ih, b_ih, b_hh)
    turned = swap(w_hh)
    h, c, w, row = (placeholder(t) for t in (h0.type, c0.type, turned.type,
                                             fed.type.with_shape(fed.shape[1:])))  # fmt: skip
    i, f, g, o = _gates(row + ops.matmul(h, w))
    next_c = f * c + i * g
    next_h = o * ops.tanh(next_c)
    body = _graph("lstm_step", (h, c, w, row), next_h, next_c, w, next_h)
    result = ops.scan(h0, c0, turned, fed, body=body, carries=3, length=x.shape[0])
    return part(result, 3), part(result, 0), part(result, 1)


def _lstm_vjp(
    ct: Parts,
    out: Node,
    x: Node,
    h0: Node,
    c0: Node,
    w_ih: Node,
    w_hh: Node,
    b_ih: Node,
    b_hh: Node,
) -> tuple[Node, ...]:
    cts = [given(part_ct, type_) for part_ct, type_ in zip(ct, out.type.parts)]
    whole = ops.lstm_backward(*cts, x, h0, c0, w_ih, w_hh, b_ih, b_hh, part(out, 0))
    return tuple(part(whole, index) for index in range(7))


lstm = register(
    Op(
        "lstm",
        infer=_lstm_type,
        vjp=_lstm_vjp,
        decompose=_lstm,
        traits=_TRAITS,
        flops=_flops(2.0, 0),
    )
)

# ---- lstm_backward(ct_y, ct_h, ct_c, <inputs of lstm>, y) -> a cotangent per input of lstm ----


def _lstm_backward_type(
    ct_y: TensorType, ct_h: TensorType, ct_c: TensorType, x: TensorType, h0: TensorType,
    c0: TensorType, w_ih: TensorType, w_hh: TensorType, b_ih: TensorType, b_hh: TensorType,
    y: TensorType,
) -> TupleType:  # fmt: skip
    parts = _lstm_type(x, h0, c0, w_ih, w_hh, b_ih, b_hh).parts
    if (ct_y, ct_h, ct_c) != parts or y != parts[0]:
        raise IRTypeError(f"ct_y, ct_h, ct_c must be {parts} and y {parts[0]}")
    return TupleType((x, h0, c0, w_ih, w_hh, b_ih, b_hh))


def _lstm_backward(
    ct_y: Node, ct_h: Node, ct_c: Node, x: Node, h0: Node, c0: Node, w_ih: Node, w_hh: Node,
    b_ih: Node, b_hh: Node, y: Node,
) -> tuple[Node, ...]:  # fmt: skip
    steps, batch, hidden = y.shape
    # every gate of every step, from y: h[t] = y[t - 1]
    if steps:
        first = ops.reshape(h0, shape=(1, *h0.shape))
        before = ops.concatenate(first, take_range(y, 0, 0, steps - 1), axis=0)
    else:
        before = y
    recurrent = ops.matmul(_rows(before), swap(w_hh))
    fed = _input_part(ops.fence(x), w_ih, b_ih, b_hh)
    i, f, g, o = _gates(fed + reshape(recurrent, fed.shape))
    c_before = _cells(c0, f, i * g)
    tanh_c = ops.tanh(f * c_before + i * g)

    # per step, what multiplies dh and dc; d sigmoid = s (1 - s), d tanh = 1 - t^2
    slopes = (
        o * (1.0 - tanh_c * tanh_c),  # dc += dh times this
        g * (i * (1.0 - i)),
        c_before * (f * (1.0 - f)),
        i * (1.0 - g * g),
        tanh_c * (o * (1.0 - o)),
        f,
    )
    ct_pre, to_h0, to_c0 = _walk_back(ct_y, ct_h, ct_c, w_hh, slopes)

    rows = _rows(ct_pre)
    to_bias = total(rows, (0,))
    return (
        reshape(ops.matmul(rows, w_ih), x.shape),
        to_h0,
        to_c0,
        ops.matmul(swap(rows), _rows(x)),
        ops.matmul(swap(rows), _rows(before)),
        to_bias,
        to_bias,
    )


def _cells(c0: Node, f: Node, fresh: Node) -> Node:
    """The cell state before each step, [T, N, H]: c' = f c + fresh."""
    step_type = c0.type
    c, f_t, fresh_t = (placeholder(step_type) for _ in range(3))
    body = _graph("lstm_cells", (c, f_t, fresh_t), f_t * c + fresh_t, c)
    return part(ops.scan(c0, f, fresh, body=body, carries=1, length=f.shape[0]), 1)


def _walk_back(
    ct_y: Node, ct_h: Node, ct_c: Node, w_hh: Node, slopes: tuple[Node, ...]
) -> tuple[Node, Node, Node]:
    """Cotangents of all gate inputs [T, N, 4H], of h0 and of c0; the last step comes first."""
    step = ct_h.type
    dh, dc, w, dy, to_c, di, df, dg, do, f = (
        placeholder(w_hh.type if index == 2 else step) for index in range(10)
    )
    at_h = dh + dy
    at_c = dc + at_h * to_c
    ct_pre = ops.concatenate(at_c * di, at_c * df, at_c * dg, at_h * do, axis=1)
    body = _graph(
        "lstm_step_backward",
        (dh, dc, w, dy, to_c, di, df, dg, do, f),
        ops.matmul(ct_pre, w), at_c * f, w, ct_pre,
    )  # fmt: skip
    scanned = [reverse_axes(series, (0,)) for series in (ct_y, *slopes)]
    result = ops.scan(ct_h, ct_c, w_hh, *scanned, body=body, carries=3, length=ct_y.shape[0])
    return reverse_axes(part(result, 3), (0,)), part(result, 0), part(result, 1)


lstm_backward = register(
    Op(
        "lstm_backward",
        infer=_lstm_backward_type,
        decompose=_lstm_backward,
        traits=_TRAITS,
        flops=_flops(6.0, 3),
    )
)
