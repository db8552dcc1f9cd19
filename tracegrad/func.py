"""Function transforms with torch.func's names: `grad`, `grad_and_value`, `vmap`, `jacrev`, `jvp`,
`vjp`, `functional_call`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracegrad.autograd import grad as _grad
from tracegrad.ir.types import TensorType
from tracegrad.passes.vmap import vmap as _batched
from tracegrad.tracer.dispatch import apply
from tracegrad.tracer.errors import ArgumentError
from tracegrad.tracer.locate import here
from tracegrad.tracer.nested import trace_function
from tracegrad.tracer.program import GraphOp
from tracegrad.tracer.state import enable_grad, get_mode
from tracegrad.tracer.tensor import Tensor
from tracegrad.tracer.trees import flatten
from tracegrad.tracer.view_methods import axis_of
from tracegrad.tracer.views import IDENTITY, make_view


def _inner(tensor: Tensor) -> Tensor:
    """The same value as something to differentiate by, still connected to what `tensor` came from."""
    if get_mode().trace is not None:
        alias = make_view(tensor, IDENTITY)
        return alias if alias.requires_grad else alias.requires_grad_()
    if tensor.requires_grad:
        return make_view(tensor, IDENTITY)
    return tensor.detach().requires_grad_()  # type: ignore[attr-defined,no-any-return]


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, Tensor)


def grad_and_value(
    func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function returning (gradient with respect to argument(s) `argnums`, value of `func`).

    `func` returns a one-element tensor (and, with has_aux, anything beside it). Gradients have the
    arguments' structure and can be differentiated again.
    """

    def transformed(*args: Any, **kwargs: Any) -> Any:
        numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
        with enable_grad():
            given = list(args)
            leaves: list[Tensor] = []
            trees = []
            for number in numbers:
                flat, treedef = flatten(args[number], none_is_leaf=False)
                inner = [_inner(leaf) for leaf in flat]
                leaves += inner
                trees.append((treedef, len(flat)))
                given[number] = treedef.unflatten(inner)
            result = func(*given, **kwargs)
            value, aux = result if has_aux else (result, None)
            if not isinstance(value, Tensor) or value.numel() != 1:
                raise ArgumentError(
                    "func.grad needs a function that returns one element", where=here()
                )
            outer = (
                get_mode().trace is not None
                or any(not leaf.is_leaf for leaf in leaves)
                or _connected(value, leaves)
            )
            found = iter(_grad(value.sum(), leaves, create_graph=outer, allow_unused=True))  # type: ignore[attr-defined]
            zeros = iter(leaves)
            gradients = []
            for treedef, count in trees:
                parts = []
                for _ in range(count):
                    g, leaf = next(found), next(zeros)
                    parts.append(g if g is not None else (leaf * 0).detach())
                gradients.append(treedef.unflatten(parts))
        gradient = gradients[0] if isinstance(argnums, int) else tuple(gradients)
        if not outer:
            value = value.detach()  # type: ignore[attr-defined]
        return (gradient, (value, aux)) if has_aux else (gradient, value)

    return transformed


def _connected(value: Tensor, leaves: list[Tensor]) -> bool:
    """Whether the value depends on tracked tensors other than the leaves (whose gradients the
    caller may want).
    """
    from tracegrad.tracer.tape import LEAF, linearise

    if value._entry is None:
        return False
    own = {leaf._entry for leaf in leaves}
    order, _ = linearise([value._entry])
    return any(entry.kind is LEAF and entry not in own for entry in order)


def grad(
    func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function returning the gradient of `func` with respect to argument(s) `argnums`. Nests."""
    both = grad_and_value(func, argnums, has_aux)

    def transformed(*args: Any, **kwargs: Any) -> Any:
        gradient, value = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return transformed


def vmap(func: Callable[..., Any], in_dims: Any = 0, out_dims: Any = 0) -> Callable[..., Any]:
    """`func` on every slice of its arguments along `in_dims` at once: one traced graph, batched by
    a pass.

    in_dims  an axis or None (not batched) for all arguments, or one per argument (trees allowed)
    out_dims  where the batch axis goes in the results
    Raises ArgumentError when batch sizes differ, UnsupportedError for branches on values.
    """

    def transformed(*args: Any) -> Any:
        dims = in_dims if isinstance(in_dims, (tuple, list)) else (in_dims,) * len(args)
        if len(dims) != len(args):
            raise ArgumentError(
                f"vmap got in_dims for {len(dims)} arguments, and {len(args)} arguments",
                where=here(),
            )
        leaves: list[Any] = []
        axes: list[int | None] = []
        trees = []
        for argument, dim in zip(args, dims):
            flat, treedef = flatten(argument)
            trees.append((treedef, len(flat)))
            leaves += flat
            if dim is None or isinstance(dim, int):
                axes += [dim if _is_tensor(leaf) else None for leaf in flat]
            else:
                axes += flatten(dim)[0]
        for leaf, axis in zip(leaves, axes):
            if axis is not None:
                axis_of(axis, leaf.ndim, "in_dims")
        sizes = {leaf.shape[axis] for leaf, axis in zip(leaves, axes) if axis is not None}
        if len(sizes) != 1:
            raise ArgumentError(
                f"vmap needs one batch size, the arguments have {sorted(sizes)}", where=here()
            )
        size = sizes.pop()
        moved = [
            leaf if axis is None else leaf.movedim(axis, 0) for leaf, axis in zip(leaves, axes)
        ]
        examples = iter(
            leaf if not _is_tensor(leaf)
            else TensorType(tuple(leaf.shape) if axis is None else tuple(leaf.shape)[1:], leaf.dtype)
            for leaf, axis in zip(moved, axes)
        )  # fmt: skip
        types = tuple(
            treedef.unflatten([next(examples) for _ in range(count)]) for treedef, count in trees
        )
        traced = trace_function(func, types, "vmap")
        tensors = [(leaf, axis) for leaf, axis in zip(moved, axes) if _is_tensor(leaf)]
        batched = _batched(
            traced.graph,
            tuple(0 if axis is not None else None for _, axis in tensors)
            + (None,) * len(traced.captured),
            size,
        )
        results = apply(GraphOp(batched), (*(leaf for leaf, _ in tensors), *traced.captured))
        out = out_dims if isinstance(out_dims, (tuple, list)) else (out_dims,) * len(results)
        placed = [r if axis == 0 else r.movedim(0, axis) for r, axis in zip(results, out)]
        return traced.treedef.unflatten(placed)

    return transformed


def vjp(func: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """(func(*primals), a function from a cotangent of the output to cotangents of the primals)."""
    with enable_grad():
        inner = [_inner(p) for p in primals]
        output = func(*inner)

    def pull(cotangent: Tensor) -> tuple[Any, ...]:
        return _grad(
            output, inner, cotangent, retain_graph=True, create_graph=True, allow_unused=True
        )

    return output.detach(), pull


def jvp(func: Callable[..., Any], primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    """(func(*primals), the directional derivative along `tangents`), by differentiating the VJP."""
    from tracegrad.tracer.creation import zeros_like

    with enable_grad():
        inner = [_inner(p) for p in primals]
        output = func(*inner)
        dummy = zeros_like(output).requires_grad_()
        pulled = _grad(output, inner, dummy, create_graph=True, allow_unused=True)
        pairs = [(g, t) for g, t in zip(pulled, tangents) if g is not None]
        (tangent,) = _grad([g for g, _ in pairs], [dummy], [t for _, t in pairs], create_graph=True)
    return output.detach(), tangent


def jacrev(func: Callable[..., Any], argnums: int = 0) -> Callable[..., Any]:
    """A function returning the Jacobian, shape [*output, *argument], one VJP per output element,
    batched by vmap.
    """

    def transformed(*args: Any) -> Any:
        from tracegrad.tracer import functions
        from tracegrad.tracer.creation import eye

        def row(cotangent: Tensor, *all_args: Any) -> Any:
            given = list(all_args)
            given[argnums] = _inner(given[argnums])
            with enable_grad():
                output = func(*given)
                flat = functions.sum(output.reshape(-1) * cotangent)
                return _grad(flat, given[argnums], create_graph=True)[0]

        probe = trace_function(
            func, tuple(TensorType(tuple(a.shape), a.dtype) for a in args), "jacrev"
        )
        out = probe.graph.outputs[0].type
        basis = eye(out.size, dtype=out.dtype)
        rows = vmap(row, (0, *(None,) * len(args)))(basis, *args)
        return rows.reshape(*out.shape, *args[argnums].shape)

    return transformed


jacfwd = jacrev  # the same numbers; the walk is always backwards


def hessian(func: Callable[..., Any], argnums: int = 0) -> Callable[..., Any]:
    """The function that gives second derivatives: shape output + input + input."""
    return jacrev(jacrev(func, argnums), argnums)


def functional_call(
    module: Any, parameter_and_buffer_dicts: dict[str, Tensor], args: Any, kwargs: Any = None
) -> Any:
    """Call a module with some of its parameters and buffers replaced; the module is left as it was."""
    replaced = []
    try:
        for name, value in parameter_and_buffer_dicts.items():
            path, _, last = name.rpartition(".")
            owner = module
            for part in path.split(".") if path else ():
                owner = getattr(owner, part)
            replaced.append((owner.__dict__, last, owner.__dict__[last]))
            owner.__dict__[last] = value
        args = args if isinstance(args, tuple) else (args,)
        return module(*args, **(kwargs or {}))
    finally:
        for fields, last, value in reversed(replaced):
            fields[last] = value


__all__ = [
    "functional_call", "grad", "grad_and_value", "hessian", "jacfwd", "jacrev", "jvp", "vjp", "vmap",
]  # fmt: skip
