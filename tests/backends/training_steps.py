"""Whole training steps as graphs: forward, backward and update, small enough to interpret."""

from __future__ import annotations

from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, Node, placeholder
from tracegrad.ir.ops.build import along, average, part, reshape
from tracegrad.ir.ops.shape import take_range
from tracegrad.ir.types import TensorType, f32, i64
from tracegrad.passes.autodiff import reverse

Shapes = dict[str, tuple[int, ...]]


def tensor(*shape: int) -> Node:
    return placeholder(TensorType(shape, f32))


def integers(*shape: int) -> Node:
    return placeholder(TensorType(shape, i64))


def finished(
    loss: Node, state: dict[str, Node], new: dict[str, Node], arguments: dict[str, Node]
) -> Graph:
    """The graph of a step: the loss and the new state."""
    inputs = {**state, **arguments}
    return Graph(
        tuple(inputs.values()),
        (loss, *new.values()),
        tuple(inputs),
        ("loss", *(f"new.{name}" for name in new)),
        tuple("state" if name in state else "argument" for name in inputs),
        ("result", *(f"state:{name}" for name in new)),
    )


def mlp_step(batch: int = 6, sizes: tuple[int, ...] = (12, 16, 16, 5)) -> Graph:
    """Linear and relu layers, cross-entropy, SGD."""
    state: dict[str, Node] = {}
    for k, (width, out) in enumerate(zip(sizes, sizes[1:])):
        state[f"w{k}"], state[f"b{k}"] = tensor(width, out), tensor(out)
    x, y = tensor(batch, sizes[0]), integers(batch)
    h = x
    for k in range(len(sizes) - 1):
        h = ops.matmul(h, state[f"w{k}"])
        h = h + along(state[f"b{k}"], h.shape, (1,))
        h = ops.relu(h) if k < len(sizes) - 2 else h
    loss = average(ops.cross_entropy(h, y, ignore_index=-100), (0,))
    gradients = reverse([loss], [ops.ones_like(loss)], list(state.values()))
    new = {name: p - g * 0.1 for (name, p), g in zip(state.items(), gradients) if g is not None}
    return finished(loss, state, new, {"x": x, "y": y})


def transformer_step(
    batch: int = 2, length: int = 6, width: int = 8, heads: int = 2, vocabulary: int = 5
) -> Graph:
    """One block with causal attention, a tied output head, AdamW."""
    shapes: Shapes = {
        "embedding": (vocabulary, width), "position": (length, width), "ln1": (width,),
        "qkv": (3 * width, width), "proj": (width, width), "ln2": (width,),
        "up": (4 * width, width), "down": (width, 4 * width),
    }  # fmt: skip
    weights = {name: tensor(*shape) for name, shape in shapes.items()}
    x, y = integers(batch, length), integers(batch, length)
    rows, size = batch * length, width // heads
    whole = (batch, length, width)
    zero = ops.zeros_like(weights["ln1"])

    def linear(h: Node, name: str) -> Node:
        return ops.matmul(h, ops.transpose(weights[name], perm=(1, 0)))

    def normed(h: Node, name: str) -> Node:
        return reshape(ops.layer_norm(h, weights[name], zero, ndim=1, eps=1e-5), (rows, width))

    h = ops.gather(weights["embedding"], x, axes=(0,)) + along(weights["position"], whole, (1, 2))
    qkv = reshape(linear(normed(h, "ln1"), "qkv"), (batch, length, 3 * width))
    q, k, v = (
        ops.transpose(
            reshape(take_range(qkv, 2, j * width, (j + 1) * width), (batch, length, heads, size)),
            perm=(0, 2, 1, 3),
        )
        for j in range(3)
    )
    mixed = part(ops.sdpa(q, k, v, causal=True, scale=size**-0.5), 0)
    mixed = reshape(ops.transpose(mixed, perm=(0, 2, 1, 3)), (rows, width))
    h = h + reshape(linear(mixed, "proj"), whole)
    up = ops.gelu(linear(normed(h, "ln2"), "up"), approximate="tanh")
    h = reshape(h, (rows, width)) + linear(up, "down")
    logits = linear(h, "embedding")
    loss = average(ops.cross_entropy(logits, reshape(y, (rows,)), ignore_index=-100), (0,))
    gradients = reverse([loss], [ops.ones_like(loss)], list(weights.values()))
    state, new = dict(weights), {}
    for (name, p), g in zip(weights.items(), gradients):
        assert g is not None
        m, s = tensor(*p.shape), tensor(*p.shape)
        state[f"m.{name}"], state[f"v.{name}"] = m, s
        new[f"m.{name}"] = m * 0.9 + g * 0.1
        new[f"v.{name}"] = s * 0.99 + g * g * 0.01
        step = new[f"m.{name}"] / (ops.sqrt(new[f"v.{name}"]) + 1e-3)
        new[name] = p * 0.999 - step * 0.01
    return finished(loss, state, new, {"x": x, "y": y})
