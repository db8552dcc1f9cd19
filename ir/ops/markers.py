"""Identities that say something to the passes, and the run-time check."""

from __future__ import annotations

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node, Op
from tracegrad.ir.hazards import CHECK, DIVISION, LINALG, VALUE, Hazard
from tracegrad.ir.ops.base import equal_types, no_flops, register, tensor, traits
from tracegrad.ir.ops.traits import CHEAP, EFFECT, IDENTITY_MARKER, VIEW
from tracegrad.ir.types import TensorType, bool_

_MARKER = traits(IDENTITY_MARKER, VIEW, CHEAP)


def _fence_vjp(ct: Node, out: Node, x: Node) -> tuple[Node]:
    return (ct,)


# x, which neither CSE nor folding looks through: what is computed from it is computed again.
fence = register(
    Op("fence", infer=tensor, vjp=_fence_vjp, traits=_MARKER, flops=no_flops),
)


def _detach_vjp(ct: Node, out: Node, x: Node) -> tuple[None]:
    return (None,)


# x, through which no gradient flows; removed after autodiff.
detach = register(
    Op("detach", infer=tensor, vjp=_detach_vjp, traits=_MARKER, flops=no_flops),
)


def _rebind_vjp(ct: Node, out: Node, old: Node, new: Node) -> tuple[Node, None]:
    # a write under no_grad: the value is new, the gradient is as if it were the old one
    return ct, None


# The value of `new`; its gradient goes to `old`.
rebind = register(
    Op("rebind", infer=equal_types, vjp=_rebind_vjp, traits=traits(VIEW, CHEAP), flops=no_flops),
)


KINDS = (CHECK, VALUE, LINALG, DIVISION)  # what a check that fails raises: see backends/base.py


def _check_type(x: TensorType, message: str, kind: str) -> TensorType:
    if tensor(x) != TensorType((), bool_):
        raise IRTypeError(f"a check takes bool[], not {x}")
    if kind not in KINDS:
        raise IRTypeError(f"a check has one of the kinds {KINDS}, not {kind!r}")
    return x


# x; where it is false at run time an error with `message` and the user's line is raised. Kind
# "check" is raised when the call ends; the others where the op that asks for them would
# raise: on JAX at the next synchronisation, so that they cost a training loop no wait.
check = register(
    Op(
        "check",
        attrs=("message", "kind"),
        infer=_check_type,
        not_differentiable="its value is a bool",
        traits=traits(EFFECT),
        flops=no_flops,
        hazards=lambda node: [Hazard(node.attrs["kind"], node.inputs[0])],
    )
)


def _shard_type(x: TensorType, spec: tuple[str | None, ...]) -> TensorType:
    if len(spec) != tensor(x).ndim:
        raise IRTypeError(f"spec {spec} needs one mesh axis name (or None) per axis of {x}")
    return x


def _shard_vjp(ct: Node, out: Node, x: Node, spec: tuple[str | None, ...]) -> tuple[Node]:
    return (ops.shard(ct, spec=spec),)  # a cotangent lies where its value lies


# x, to be laid out over the mesh axes in `spec`, one name or None per axis.
shard = register(
    Op(
        "shard",
        attrs=("spec",),
        infer=_shard_type,
        vjp=_shard_vjp,
        traits=_MARKER,
        flops=no_flops,
    )
)
