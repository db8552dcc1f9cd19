"""User-level functions: PyTorch's names and meaning, each once, as a function that emits IR.

`FUNCTIONS` maps the public name of every function to it; each is also an attribute of this package.
It holds every `UserOp` of the modules below (under its name, without a trailing underscore) and the
plain functions that they list as `PLAIN`, which arrange arguments for ops and so stand before an op
of the same name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tracegrad.tracer.dispatch import UserOp

MODULES = (
    "arithmetic", "bounds", "comparison", "unary", "complex_numbers", "reductions", "running", "norms",
    "shaping", "triangles", "padding",
    "matmul", "einsum", "indexing", "embeddings", "sorting", "selecting", "random", "activations",
    "convolution", "pooling", "patches", "normalisation", "losses", "attention", "recurrent",
    "resample", "linalg", "overloads", "inquiries",
)  # fmt: skip


def _collect() -> dict[str, Any]:
    table: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    for name in MODULES:
        module = import_module(f"{__name__}.{name}")
        for value in vars(module).values():
            if isinstance(value, UserOp):
                table[value.name] = value
        plain.update({function.__name__: function for function in getattr(module, "PLAIN", ())})
    return {**table, **plain}


FUNCTIONS = _collect()
ALIASES = {
    "subtract": "sub", "multiply": "mul", "divide": "div", "true_divide": "div", "negative": "neg",
    "absolute": "abs", "greater": "gt", "greater_equal": "ge", "less": "lt", "less_equal": "le",
    "not_equal": "ne", "arctan2": "atan2", "arcsin": "asin", "arccos": "acos", "arctan": "atan",
    "arcsinh": "asinh",
    "arccosh": "acosh", "arctanh": "atanh", "clip": "clamp", "fix": "trunc", "concat": "cat",
    "concatenate": "cat",
    "row_stack": "vstack", "ger": "outer", "inverse": "inv", "trapz": "trapezoid",
}  # fmt: skip
FUNCTIONS.update({alias: FUNCTIONS[name] for alias, name in ALIASES.items()})
globals().update(FUNCTIONS)

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...


__all__ = ["ALIASES", "FUNCTIONS", "MODULES", "UserOp", *FUNCTIONS]
