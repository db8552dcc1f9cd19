"""The language between the tracer and the backends: typed, immutable, printable, checkable.

A graph is its inputs, its outputs and the nodes between; a node is an op applied to nodes. The
text form, one line a node (`print_graph`, `parse`):

    graph    = "graph" name ":" line+ return
    line     = "%n: " type " = " op "(" (%n ", ")* (attr "=" value ", ")* ")" "  # " origin
    input    = "%n: " type " = input()" "  # " role name [" at " origin]
    return   = "return " (%n ", ")* "  # " (role name ", ")*
    type     = dtype "[" (int ",")* "]"   or, for several results, "(" type ", " ... ")"
    value    = True | None | 3 | 1e-05 | nan | -inf | "text" | (value, ...) | f32 | const | "..."
    const    = "const<" type (element | "[" element, ... "]" | "blake2b:" hex) ">"
    "..."    = a sub-graph, written below the line as an indented block: attr " = " graph
    origin   = file ":" line [" in " function] [" @ " scope] (" <- " step)* ("; " origin)*

Inputs come before uses. A constant with one value throughout prints it once; above 16 elements
only the digest prints, and `parse(text, constants=constants_of(graph))` supplies the values. Names
with spaces or separators stand in double quotes. `origin` is the user's line, then the steps that
derived the node from it.
"""

from typing import TYPE_CHECKING, Any

from tracegrad.ir.const import Const
from tracegrad.ir.errors import IRError, IRTypeError, MissingVJPError, ParseError, VerifyError
from tracegrad.ir.fingerprint import fingerprint, labels
from tracegrad.ir.graph import (
    INPUT,
    Attrs,
    Graph,
    Node,
    Op,
    emit,
    inline,
    placeholder,
    postorder,
    rebuild,
    substitute,
)
from tracegrad.ir.loc import UNKNOWN, Loc, at
from tracegrad.ir.text import constants_of, parse, print_graph
from tracegrad.ir.types import (
    DTYPES,
    DType,
    TensorType,
    TupleType,
    Type,
    bf16,
    bool_,
    c64,
    c128,
    dtype_named,
    dtype_of,
    f16,
    f32,
    f64,
    i8,
    i16,
    i32,
    i64,
    u8,
    u32,
    u64,
)
from tracegrad.ir.verify import verify

__all__ = [
    "DTYPES",
    "INPUT",
    "UNKNOWN",
    "Attrs",
    "Const",
    "DType",
    "Graph",
    "IRError",
    "IRTypeError",
    "Loc",
    "MissingVJPError",
    "Node",
    "Op",
    "ParseError",
    "TensorType",
    "TupleType",
    "Type",
    "VerifyError",
    "at",
    "bf16",
    "bool_",
    "c64",
    "c128",
    "constants_of",
    "dtype_named",
    "dtype_of",
    "emit",
    "f16",
    "f32",
    "f64",
    "fingerprint",
    "from_bytes",
    "from_json",
    "i8",
    "i16",
    "i32",
    "i64",
    "inline",
    "ops",
    "parse",
    "placeholder",
    "postorder",
    "print_graph",
    "rebuild",
    "substitute",
    "to_bytes",
    "to_json",
    "u8",
    "u32",
    "u64",
    "verify",
]

from tracegrad.ir import ops  # last: ops are written in the language above

if TYPE_CHECKING:
    from tracegrad.ir.serialise import from_bytes, from_json, to_bytes, to_json


def __getattr__(name: str) -> Any:
    """JSON and what it needs are imported when a graph is first written or read."""
    if name not in ("from_bytes", "from_json", "to_bytes", "to_json"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
    from tracegrad.ir import serialise

    return getattr(serialise, name)
