"""One layer, one direction of recurrent networks over a whole sequence [T, N, I]."""

from __future__ import annotations

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Graph, Node, placeholder
from tracegrad.ir.ops.build import full, part, swap
from tracegrad.ir.ops.shape import reverse_axes, take_range
from tracegrad.tracer.dispatch import user_op
from tracegrad.tracer.functions.axes import reshape
from tracegrad.tracer.functions.matmul import rows_times
from tracegrad.tracer.functions.promotion import Operand, as_node, expand, require_same_dtype


def _checked(name: str, gates: int, x: Node, h: Node, w_ih: Node, w_hh: Node) -> None:
    require_same_dtype(name, x, h, w_ih, w_hh)
    hidden = w_hh.shape[1]
    if x.ndim != 3 or w_ih.shape != (gates * hidden, x.shape[2]) or h.shape != (x.shape[1], hidden):
        raise IRTypeError(
            f"{name}: input {list(x.shape)}, state {list(h.shape)}, weights {list(w_ih.shape)} and "
            f"{list(w_hh.shape)} do not fit [T, N, I], [N, H], [{gates}H, I], [{gates}H, H]"
        )


def _bias(value: Operand | None, w: Node) -> Node:
    return full((w.shape[0],), w.dtype, 0.0) if value is None else as_node(value)


@user_op(shown="lstm")
def lstm_layer(
    input: Operand,
    h0: Operand,
    c0: Operand,
    w_ih: Operand,
    w_hh: Operand,
    b_ih: Operand | None = None,
    b_hh: Operand | None = None,
    /,
    *,
    reverse: bool = False,
) -> tuple[Node, Node, Node]:
    """(y[T, N, H], hT, cT): gates i, f, g, o (Hochreiter & Schmidhuber 1997, with PyTorch's two
    biases).
    """
    x, h, c, wi, wh = map(as_node, (input, h0, c0, w_ih, w_hh))
    _checked("lstm", 4, x, h, wi, wh)
    x = reverse_axes(x, (0,)) if reverse else x
    whole = ops.lstm(x, h, c, wi, wh, _bias(b_ih, wi), _bias(b_hh, wh))
    y = part(whole, 0)
    return reverse_axes(y, (0,)) if reverse else y, part(whole, 1), part(whole, 2)


def _scanned(
    name: str, x: Node, h: Node, consts: tuple[Node, ...], step: object
) -> tuple[Node, Node]:
    """Run step(slice of x, h, *consts) -> new h over axis 0 as one scan; (all h, last h)."""
    inside_h = placeholder(h.type)
    inside = tuple(placeholder(c.type) for c in consts)
    slice_ = placeholder(x.type.with_shape(x.shape[1:]))
    new = step(slice_, inside_h, *inside)  # type: ignore[operator]
    body = Graph((inside_h, *inside, slice_), (new, *inside, new), name=name)
    out = ops.scan(h, *consts, x, body=body, carries=1 + len(consts), length=x.shape[0])
    return part(out, 1 + len(consts)), part(out, 0)


@user_op(shown="gru")
def gru_layer(
    input: Operand,
    h0: Operand,
    w_ih: Operand,
    w_hh: Operand,
    b_ih: Operand | None = None,
    b_hh: Operand | None = None,
    /,
    *,
    reverse: bool = False,
) -> tuple[Node, Node]:
    """(y[T, N, H], hT): gates r, z, n (Cho et al. 2014, reset after the product as in PyTorch)."""
    x, h, wi, wh = map(as_node, (input, h0, w_ih, w_hh))
    _checked("gru", 3, x, h, wi, wh)
    x = reverse_axes(x, (0,)) if reverse else x
    hidden = wh.shape[1]
    # The input's part of all gates is one product over all steps.
    gates = rows_times(x, swap(wi))
    gates = ops.add(gates, expand(_bias(b_ih, wi), gates.shape))

    def step(at: Node, state: Node, weight: Node, bias: Node) -> Node:
        own = ops.matmul(state, weight)
        own = ops.add(own, expand(bias, own.shape))
        r, z = (
            ops.sigmoid(
                ops.add(
                    take_range(at, 1, k * hidden, (k + 1) * hidden),
                    take_range(own, 1, k * hidden, (k + 1) * hidden),
                )
            )
            for k in (0, 1)
        )
        n = ops.tanh(
            ops.add(
                take_range(at, 1, 2 * hidden, 3 * hidden),
                ops.mul(r, take_range(own, 1, 2 * hidden, 3 * hidden)),
            )
        )
        return ops.add(n, ops.mul(z, ops.sub(state, n)))  # (1 - z) n + z h

    y, last = _scanned("gru", gates, h, (swap(wh), _bias(b_hh, wh)), step)
    return reverse_axes(y, (0,)) if reverse else y, last


@user_op(shown="rnn")
def rnn_layer(
    input: Operand,
    h0: Operand,
    w_ih: Operand,
    w_hh: Operand,
    b_ih: Operand | None = None,
    b_hh: Operand | None = None,
    /,
    *,
    nonlinearity: str = "tanh",
    reverse: bool = False,
) -> tuple[Node, Node]:
    """(y[T, N, H], hT): h = tanh(x W_ih^T + b_ih + h W_hh^T + b_hh), or relu (Elman 1990)."""
    x, h, wi, wh = map(as_node, (input, h0, w_ih, w_hh))
    _checked("rnn", 1, x, h, wi, wh)
    if nonlinearity not in ("tanh", "relu"):
        raise IRTypeError(f'rnn: nonlinearity must be "tanh" or "relu", not {nonlinearity!r}')
    x = reverse_axes(x, (0,)) if reverse else x
    given = rows_times(x, swap(wi))
    bias = ops.add(_bias(b_ih, wi), _bias(b_hh, wh))
    given = ops.add(given, expand(bias, given.shape))
    curve = ops.tanh if nonlinearity == "tanh" else ops.relu

    def step(at: Node, state: Node, weight: Node) -> Node:
        return curve(ops.add(at, ops.matmul(state, weight)))

    y, last = _scanned("rnn", given, h, (swap(wh),), step)
    return reverse_axes(y, (0,)) if reverse else y, last


@user_op
def lstm_cell_(
    input: Operand,
    h: Operand,
    c: Operand,
    w_ih: Operand,
    w_hh: Operand,
    b_ih: Operand | None = None,
    b_hh: Operand | None = None,
    /,
) -> tuple[Node, Node]:
    """(h, c) after one step of an LSTM on [N, I]."""
    x = as_node(input)
    _, h1, c1 = lstm_layer.emit(reshape(x, (1, *x.shape)), h, c, w_ih, w_hh, b_ih, b_hh)
    return h1, c1


@user_op
def gru_cell(
    input: Operand,
    h: Operand,
    w_ih: Operand,
    w_hh: Operand,
    b_ih: Operand | None = None,
    b_hh: Operand | None = None,
    /,
) -> Node:
    """h after one step of a GRU on [N, I]."""
    x = as_node(input)
    return gru_layer.emit(reshape(x, (1, *x.shape)), h, w_ih, w_hh, b_ih, b_hh)[1]
