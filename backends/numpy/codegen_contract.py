"""Matrix products as BLAS calls: transposed operands are views, transposed results too; sums with one."""

from __future__ import annotations

from tracegrad.backends.numpy.codegen_elementwise import kernel_call
from tracegrad.backends.numpy.codegen_moves import unless_in_place
from tracegrad.backends.numpy.codegen_writer import Writer, emits
from tracegrad.backends.numpy.fast.matmul import add_product, cut_of, share_matmul
from tracegrad.ir.graph import Node
from tracegrad.ir.types import f32, f64
from tracegrad.passes.memory.storage import Shape, View, transposed


def blas_order(view: View) -> str | None:
    """ "C" or "F" where BLAS takes the last two axes as they lie, else None."""
    (m, n), (row, column) = view.shape[-2:], view.strides[-2:]
    if (column == 1 or n == 1) and row >= max(n, 1):
        return "C"
    if (row == 1 or m == 1) and column >= max(m, 1):
        return "F"
    return None


def _swapped(view: View) -> View:
    axes = tuple(range(len(view.shape)))
    return transposed(view, (*axes[:-2], axes[-1], axes[-2]))


@emits("matmul")
def emit_matmul(w: Writer, node: Node) -> None:
    x, y = node.inputs
    if node.dtype not in (f32, f64):
        # integers, complex and halves: rare, and the kernel rounds halves once
        w.call(w.np("copyto"), w.out(node), kernel_call(w, node, [w.ref(x), w.ref(y)]))
        return
    w.np("matmul")
    out = w.placed.view(node)
    left, right = _blas_operand(w, x), _blas_operand(w, y)
    if out.storage.kind != "input" and blas_order(out) != "C" and blas_order(out) == "F":
        # (x @ y).T = y.T @ x.T: BLAS writes rows
        flip = "swapaxes(-1, -2)"
        name, shape = w.view(_swapped(out)), (*node.shape[:-2], node.shape[-1], node.shape[-2])
        _emit_product(w, f"{right}.{flip}", f"{left}.{flip}", name, shape, x.shape[-1])
    else:
        _emit_product(w, left, right, w.out(node), node.shape, x.shape[-1])


@emits("accumulate")
def emit_accumulate(w: Writer, node: Node) -> None:
    c, x, y, factor = node.inputs
    out = w.out(node)
    unless_in_place(w, node, c, out)
    left, right, number = _blas_operand(w, x), _blas_operand(w, y), w.ref(factor)
    w.use("add_product", add_product)
    _emit_product(w, left, right, out, node.shape, x.shape[-1], number)


def _emit_product(
    w: Writer, left: str, right: str, out: str, shape: Shape, depth: int, factor: str = ""
) -> None:
    """By BLAS's threads, or by those of the pool; with a factor added to `out`."""
    cut = cut_of(shape, depth, w.cores.threads) if w.cores.held else None
    if cut is not None:
        w.use("share_matmul", share_matmul)
        more = f", add_product, {factor}" if factor else ""
        w.line(f"share_matmul({left}, {right}, {out}, {cut.axis}, {cut.bounds}{more})")
    elif factor:
        w.line(f"add_product({left}, {right}, {out}, {factor})")
    else:
        w.line(f"matmul({left}, {right}, {out})")


def _blas_operand(w: Writer, x: Node) -> str:
    """The operand's name, after a copy where BLAS could not read it in place."""
    view = w.placed.view(x)
    name = w.ref(x)
    if view.storage.kind == "input" or x.type.size == 0 or blas_order(view) is not None:
        return name
    copy = w.view(w.workspace(x.shape, x.dtype))
    w.call(w.np("copyto"), copy, name)
    return copy
