"""Names of the public modules: their errors about arguments, the error for PyTorch's names that are not
here, and those of the tracer's functions that `torch.*` does not have.
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from tracegrad.tracer.arguments import explained
from tracegrad.tracer.errors import MissingNameError
from tracegrad.tracer.functions import FUNCTIONS, UserOp

# `nn.functional`, `linalg`, Tensor's methods and the library's own code use them; `tracegrad.*` does
# not show them, nor what is only a part of a function.
ELSEWHERE = frozenset(
    """
    adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d affine_grid
    attention avg_pool2d avg_pool3d cast contiguous eigh eigvalsh elu expand expand_as
    exponential gelu glu grid_sample gumbel_softmax hardsigmoid hardswish hardtanh index
    interpolate inv is_contiguous leaky_relu linear local_response_norm logsigmoid lp_pool2d
    matrix_norm max_pool2d_with_indices max_pool3d_with_indices mish multi_dot normalize one_hot
    pad pinv relu6 repeat reshape_as scaled_dot_product_attention silu softmin softplus
    softshrink softsign solve_triangular storage_offset stride svdvals tanhshrink type_as
    uniform vector_norm view view_as
    """.split()
) | {name for name, op in FUNCTIONS.items() if isinstance(op, UserOp) and op.shown != op.name}

_PUBLIC = tuple(f"tracegrad.{part}" for part in (
    "amp", "autograd", "cuda", "func", "linalg", "nn", "optim", "special", "tracer.functions", "utils",
))  # fmt: skip


def is_ours(value: Any) -> bool:
    return getattr(value, "__module__", "").startswith(_PUBLIC)


def not_here(module: str, name: str) -> AttributeError:
    """What a module's `__getattr__` raises for a name that it does not have."""
    if name.startswith("_"):  # Python and its tools ask; no user does
        return AttributeError(f"module {module!r} has no attribute {name!r}", name=name)
    known = getattr(sys.modules[module], "__all__", dir(sys.modules[module]))  # files are no names
    return MissingNameError(module, name, known, f"compose it from what dir({module}) lists")


def public(module: str) -> None:
    """Let `module` answer for its names, out of sight of type checkers, which know them: its functions
    and its classes' constructors say what they do not take, and other names are refused.
    """
    names = vars(sys.modules[module])
    for name in names.get("__all__", list(names)):
        value = names[name]
        if name[0] != "_" and value is not public:
            names[name] = explained(value, module) if is_ours(value) else value
        for kind in getattr(value, "__mro__", ()):
            init = vars(kind).get("__init__")
            if is_ours(kind) and init is not None and not hasattr(init, "__wrapped__"):
                kind.__init__ = explained(init, module, f"{kind.__name__}.")

    def __getattr__(name: str) -> NoReturn:
        raise not_here(module, name)

    names["__getattr__"] = __getattr__
