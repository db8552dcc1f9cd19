"""Whom the cores of a program belong to: the threads of our pool, or those of OpenBLAS.

A worker of OpenBLAS stays awake for 2^28 ticks after a product (100 ms here), and takes turns on
its core with whatever else wants it. Attention of 8 x 6 heads x 256 x 64 takes 12 ms on one thread,
8 on two of the pool, and 14 on two of the pool right after a product on two of OpenBLAS (see
docs/decisions.md). So a program uses either the one or the other. With the pool, BLAS is held at one
thread while it runs (for the whole process: products of other Python threads as well) and the pool
shares the large products; with OpenBLAS everything else runs on the calling thread. What is likely
to be faster is told from the shapes, before code is written.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import NamedTuple

from tracegrad.backends.numpy.fast import blas
from tracegrad.backends.numpy.fast.attention import attention_flops
from tracegrad.backends.numpy.fast.matmul import cut_of, product_flops
from tracegrad.backends.numpy.fast.pool import thread_count
from tracegrad.backends.numpy.fast.work import share_count
from tracegrad.backends.numpy.kernels.random import BLOCK
from tracegrad.backends.numpy.loops import loop_of
from tracegrad.backends.numpy.tiles import loop_shares
from tracegrad.ir.graph import Graph, Node
from tracegrad.ir.types import f32, f64

# Rough seconds of one core; only how they compare matters.
FLOP = 1.2e-11  # of a large product
PLAN_FLOP = 2.5e-11  # of attention or a convolution, with all that surrounds its products
LOOP_STEP = 1e-10  # an operation on one element, in a fused loop
RANDOM_WORD = 4e-9
PACKED = 7e-10  # an element of an operand that every thread packs for itself
FORK = 1e-4  # to wake a thread and wait for it: 10 us on a quiet machine, 200 on a busy one
MARGIN = 0.05  # of the products' time: what their estimate may well be wrong by
BLAS_SHARES_FROM = 1 << 18  # multiply-adds of a product below which OpenBLAS uses one thread


class Product(NamedTuple):
    """One call of BLAS: the shape of its result, the terms of each sum, whether the pool cuts it."""

    out: tuple[int, ...]
    depth: int
    cuttable: bool = True

    @property
    def seconds(self) -> float:
        """Of one core."""
        return product_flops(self.out, self.depth) * FLOP

    def by_blas(self, count: int) -> float:
        shared = prod(self.out[-2:]) * self.depth > BLAS_SHARES_FROM
        return self.seconds / count if shared else self.seconds

    def by_pool(self, count: int) -> float:
        cut = cut_of(self.out, self.depth, count) if self.cuttable else None
        if cut is None:
            return self.seconds
        shares = len(cut.bounds) - 1
        whole = min(self.out[-2:]) * self.depth if cut.axis else 0
        return self.seconds / shares + FORK + whole * PACKED * (1 - 1 / shares)


class Cores(NamedTuple):
    """threads  of the pool, at most; None: all it has
    held  BLAS is at one thread while the program runs, and the pool shares products too
    """

    threads: int | None = None
    held: bool = False

    def __str__(self) -> str:
        if self.held:
            return "the pool shares loops and products; BLAS is held at one thread"
        if self.threads == 1:
            return "products run as BLAS is set, all else on the calling thread"
        return "the pool shares loops"


def cores_of(steps: Iterable[Node], threads: int | None) -> Cores:
    """For the program of these steps, at most `threads` threads."""
    count = threads or thread_count()
    if not blas.available():
        return Cores(threads)
    if count == 1:
        return Cores(1, held=threads == 1)  # asked for one: BLAS has to be told
    steps = list(steps)
    products = [product for node in steps for product in _products(node)]
    if not products:
        return Cores(threads)  # plans with products of their own hold BLAS themselves
    gained = sum(_seconds_gained(node, count) for node in steps)
    by_blas = sum(product.by_blas(count) for product in products)
    lost = sum(product.by_pool(count) for product in products) - by_blas
    if gained > max(lost, 0.0) + MARGIN * by_blas:
        return Cores(threads, held=True)
    return Cores(1)


def _seconds_gained(node: Node, count: int) -> float:
    """By sharing what only the pool can share."""
    name, seconds, shares = node.op.name, 0.0, 1
    if name == "fused":
        loop = loop_of(node.attrs["graph"])
        size = prod(loop.domain)
        seconds = size * len(loop.body) * LOOP_STEP
        shares = loop_shares(size, len(loop.body), count)
    elif name in ("sdpa", "sdpa_backward", "conv") and node.inputs[0].dtype in (f32, f64):
        flops, chunks = _plan_flops(node)
        seconds, shares = flops * PLAN_FLOP, share_count(count, chunks, flops)
    elif name == "random_bits":
        seconds, shares = node.type.size * RANDOM_WORD, min(count, node.type.size // BLOCK)
    if shares > 1:
        return seconds * (1 - 1 / shares) - FORK
    return sum(_seconds_gained(step, count) for step in _inner_steps(node))


def _plan_flops(node: Node) -> tuple[float, int]:
    """(flops, pieces they come in) of a plan of `fast`."""
    if node.op.name == "conv":
        images, filters = node.type.shape[0], node.inputs[1].shape
        threaded = filters[1] > 1 or node.attrs["groups"] == 1  # a depthwise one is not
        return product_flops(node.type.shape, prod(filters[1:])), images if threaded else 1
    backward = node.op.name == "sdpa_backward"
    q, _, v = node.inputs[1:4] if backward else node.inputs[:3]
    return attention_flops(q.shape, v.shape, node.attrs["causal"], backward), prod(q.shape[:2])


def _products(node: Node) -> list[Product]:
    """The calls of BLAS of a step."""
    name = node.op.name
    if name in ("matmul", "accumulate") and node.dtype in (f32, f64):
        left = node.inputs[1 if name == "accumulate" else 0]
        return [Product(node.shape, left.shape[-1])]
    if name in ("lstm", "lstm_backward"):
        x, h0 = node.inputs[:2] if name == "lstm" else node.inputs[3:5]
        (steps, batch, features), hidden = x.shape, h0.shape[-1]
        forward = name == "lstm"
        row = Product((batch, 4 * hidden), hidden, cuttable=False)  # of one time step
        whole = Product((steps * batch, 4 * hidden), features, cuttable=False)
        weights = Product((steps * batch, 4 * hidden), hidden, cuttable=False)
        return [row] * steps + ([whole] if forward else [whole, whole, weights])
    return [product for step in _inner_steps(node) for product in _products(step)]


def _inner_steps(node: Node) -> Iterable[Node]:
    """Of the sub-graphs of control flow, each counted once."""
    if node.op.name == "fused":
        return ()
    return [n for value in node.attrs.values() if isinstance(value, Graph) for n in value.nodes]
