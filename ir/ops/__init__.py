"""Every op of the language, by name: `ops.add(x, y)`, `ops.sum_(x, axes=(0,))`, `op_named("sum")`.

A family file registers its ops; here they become attributes of this module. Names that Python keeps
for itself (keywords, builtins) get a trailing underscore as attribute; `op.name` has none.
"""

from __future__ import annotations

import builtins
import keyword
from importlib import import_module

from tracegrad.ir.errors import IRError
from tracegrad.ir.graph import INPUT, Op
from tracegrad.ir.ops.base import OPS
from tracegrad.ir.ops.custom import PREFIX, custom_op
from tracegrad.ir.ops.source import literal, ones_like, splat, zeros_like

FAMILIES: tuple[str, ...] = (
    "source", "elementwise", "binary", "select", "shape", "index", "reduce", "contract", "window",
    "linalg", "random", "structure", "markers", "fused",
    "composite_activation", "composite_norm", "composite_loss", "composite_attention",
    "composite_random", "composite_index", "composite_recurrent",
    "sugar",
)  # fmt: skip


def attribute_name(name: str) -> str:
    """How op `name` is spelled as an attribute of this module: "sum" -> "sum_", "add" -> "add"."""
    return name + "_" if keyword.iskeyword(name) or hasattr(builtins, name) else name


def op_named(name: str) -> Op:
    """The op called `name` in IR text. Raises IRError for an unknown name."""
    if name == INPUT.name:
        return INPUT
    if name.startswith(PREFIX):
        return custom_op(name.removeprefix(PREFIX))
    try:
        return OPS[name]
    except KeyError:
        raise IRError(f"unknown op {name!r}; see docs/ir.md for all {len(OPS)}") from None


def __getattr__(name: str) -> Op:
    # Reached only for names that are not there: the ops themselves are set below. It is also what
    # tells type checkers that every other attribute is an Op.
    close = [attribute_name(op) for op in OPS if op == name.strip("_")]
    hint = f"; did you mean ops.{close[0]}?" if close else ""
    raise AttributeError(f"no op {name!r}{hint}")


for _family in FAMILIES:
    import_module(f"{__name__}.{_family}")
# After the imports: importing fused.py sets the attribute `fused` to the module, the op takes it.
globals().update({attribute_name(op.name): op for op in OPS.values()})

__all__ = [
    "FAMILIES", "INPUT", "OPS", "attribute_name", "literal", "ones_like", "op_named", "splat",
    "zeros_like",
]  # fmt: skip
