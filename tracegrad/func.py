"""Function transforms with torch.func's names: `grad`, `grad_and_value`, `vmap`, `jacrev`, `jvp`,
`vjp`, `functional_call`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracegrad.autograd import grad as _grad
from tracegrad.batching import vmap
from tracegrad.names import public
from tracegrad.tracer.control_flow import trace_function, types_of
from tracegrad.tracer.creation.tensors import eye, ones_like, zeros_like
from tracegrad.tracer.errors import ArgumentError, InvalidValueError, ShapeError
from tracegrad.tracer.locate import here
from tracegrad.tracer.memory.views import IDENTITY, make_view
from tracegrad.tracer.state import enable_grad, get_mode
from tracegrad.tracer.tensor import Tensor
from tracegrad.tracer.trees import flatten


def _inner(tensor: Tensor) -> Tensor:
    """The same value as something to differentiate by, still connected to what `tensor` came from."""
    if not isinstance(tensor, Tensor):
        raise ArgumentError(
            f"a gradient is with respect to tensors, and an argument is {type(tensor).__name__}",
            where=here(), fix="give tg.tensor(value), or choose others: argnums=...",
        )  # fmt: skip
    if get_mode().trace is not None:
        alias = make_view(tensor, IDENTITY)
        return alias if alias.requires_grad else alias.requires_grad_()
    if tensor.requires_grad:
        return make_view(tensor, IDENTITY)
    return tensor.detach().requires_grad_()


def grad_and_value(
    func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function returning (gradient with respect to argument(s) `argnums`, value of `func`).

    `func` returns a one-element tensor (and, with has_aux, anything beside it). Gradients have the
    arguments' structure and can be differentiated again.
    """

    def transformed(*args: Any, **kwargs: Any) -> Any:
        numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
        _check_argnums(numbers, args, "grad")
        recording = get_mode().grad
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
                    "func.grad needs a function that returns one element", where=here(),
                    fix="reduce it: lambda x: f(x).sum(), or take the whole Jacobian: func.jacrev",
                )  # fmt: skip
            outer = recording and (
                any(not leaf.is_leaf for leaf in leaves) or _connected(value, leaves)
            )
            parts = iter(_gradients([value], leaves, [ones_like(value)], create=outer))
            gradients = [
                treedef.unflatten([next(parts) for _ in range(count)]) for treedef, count in trees
            ]
        gradient = gradients[0] if isinstance(argnums, int) else tuple(gradients)
        if not outer:
            value = value.detach()
        return (gradient, (value, _outside(aux, leaves))) if has_aux else (gradient, value)

    return transformed


def _check_argnums(numbers: tuple[int, ...], args: tuple[Any, ...], what: str) -> None:
    for number in numbers:
        if not -len(args) <= number < len(args):
            raise ArgumentError(
                f"{what} with argnums={number} of a call with {len(args)} positional arguments",
                where=here(),
                fix="count from 0, and give the argument by position",
            )


def _connected(value: Tensor, leaves: list[Tensor]) -> bool:
    """Whether the value depends on tracked tensors other than the leaves (whose gradients the
    caller may want).
    """
    from tracegrad.tracer.tape.entries import LEAF, Tape

    trace = get_mode().trace
    if trace is not None:
        return trace.depends_on_others(value, leaves)
    if value._entry is None:
        return False
    own = {leaf._entry for leaf in leaves}
    reached = Tape([value._entry]).order
    return any(entry.kind is LEAF and entry not in own for entry in reached)


def _outside(aux: Any, leaves: list[Tensor]) -> Any:
    """What a function gave beside its value, without the history that only the leaves have."""
    parts, treedef = flatten(aux)
    kept = any(not leaf.is_leaf for leaf in leaves)
    return treedef.unflatten([
        part.detach()
        if isinstance(part, Tensor) and part.requires_grad and not (kept or _connected(part, leaves))
        else part
        for part in parts
    ])  # fmt: skip


def grad(
    func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function returning the gradient of `func` with respect to argument(s) `argnums`. Nests."""
    both = grad_and_value(func, argnums, has_aux)

    def transformed(*args: Any, **kwargs: Any) -> Any:
        gradient, value = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return transformed


def _leaves(tree: Any, what: str) -> tuple[list[Tensor], Any]:
    """The tensors of a tree. Raises ArgumentError for anything else in it."""
    leaves, treedef = flatten(tree, none_is_leaf=False)
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise ArgumentError(
                f"{what} {type(leaf).__name__}", where=here(),
                why="only tensors are differentiated",
                fix="make it a tensor, or bind it beforehand: lambda x: f(x, value)",
            )  # fmt: skip
    return leaves, treedef


def _run_on(
    func: Callable[..., Any], leaves: list[Tensor], treedef: Any, has_aux: bool, what: str
) -> tuple[list[Tensor], Any, Any, bool]:
    """Run `func`: its tensors, their structure, the rest, and whether something outside wants their
    history.
    """
    result = func(*treedef.unflatten(leaves))
    output, aux = result if has_aux else (result, None)
    values, structure = _leaves(output, f"{what} of a function that returned")
    outer = any(not leaf.is_leaf for leaf in leaves) or any(
        _connected(value, leaves) for value in values
    )
    return values, structure, _outside(aux, leaves), outer


def _gradients(
    values: list[Tensor], wrt: list[Tensor], cotangents: list[Tensor], create: bool = True
) -> list[Tensor]:
    """Cotangents pulled back to `wrt`; zeros where none arrives."""
    pairs = [(v, ct) for v, ct in zip(values, cotangents) if v.requires_grad]
    if not pairs:
        return [zeros_like(x) for x in wrt]
    found = _grad(
        [v for v, _ in pairs], wrt, [ct for _, ct in pairs], retain_graph=True, create_graph=create,
        allow_unused=True,
    )  # fmt: skip
    return [zeros_like(x) if g is None else g for g, x in zip(found, wrt)]


def vjp(func: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """(func(*primals), a function from cotangents of the output to a tuple of those of the primals).

    Trees of tensors in and out; cotangents have the structure, shapes and dtypes of the output,
    results those of the primals, zeros where an argument is not used. With `has_aux` func returns
    (output, anything), and the third result is the latter. Raises ArgumentError for other
    structures and for arguments that are no tensors.
    """
    given, treedef = _leaves(primals, "vjp with respect to")
    with enable_grad():
        inner = [_inner(leaf) for leaf in given]
        values, structure, aux, outer = _run_on(func, inner, treedef, has_aux, "vjp")

    def pull(cotangents: Any) -> Any:
        cts, own = _leaves(cotangents, "vjp with the cotangent")
        if own != structure:
            raise ArgumentError(
                "vjp: the cotangents do not have the structure of the output", where=here(),
                fix="give one tensor for each tensor that the function returned, nested alike",
            )  # fmt: skip
        with enable_grad():
            found = _gradients(values, inner, cts)
        wanted = outer or any(ct.requires_grad for ct in cts)
        return treedef.unflatten(found if wanted else [g.detach() for g in found])

    output = structure.unflatten(values if outer else [v.detach() for v in values])
    return (output, pull, aux) if has_aux else (output, pull)


def jvp(
    func: Callable[..., Any], primals: tuple[Any, ...], tangents: tuple[Any, ...], *, has_aux: bool = False
) -> Any:  # fmt: skip
    """(func(*primals), its directional derivative along `tangents`), by differentiating the VJP.

    Trees of tensors in and out; tangents have the structure and shapes of the primals. With
    `has_aux` func returns (output, anything), and the third result is the latter. Raises
    ArgumentError for other structures, ShapeError for other shapes.
    """
    if not isinstance(primals, tuple) or not isinstance(tangents, tuple):
        raise ArgumentError(
            "jvp takes tuples of primals and tangents", where=here(), fix="write (x,) and (t,)"
        )
    given, treedef = _leaves(primals, "jvp with respect to")
    directions, own = _leaves(tangents, "jvp along")
    if own != treedef:
        raise ArgumentError(
            "jvp: the tangents do not have the structure of the primals", where=here(),
            fix="give one tangent for each tensor among the primals, nested alike",
        )  # fmt: skip
    for x, t in zip(given, directions):
        if x.shape != t.shape:
            raise ShapeError(
                f"jvp: a tangent of shape {list(t.shape)} for a primal of shape {list(x.shape)}",
                where=here(),
            )
    with enable_grad():
        inner = [_inner(leaf) for leaf in given]
        values, structure, aux, outer = _run_on(func, inner, treedef, has_aux, "jvp")
        moved = [_tangent(value, inner, directions) for value in values]
    if not outer:
        values = [v.detach() for v in values]
        if not any(t.requires_grad for t in directions):
            moved = [m.detach() for m in moved]
    results = structure.unflatten(values), structure.unflatten(moved)
    return (*results, aux) if has_aux else results


def _tangent(value: Tensor, wrt: list[Tensor], directions: list[Tensor]) -> Tensor:
    """J t. The gradient of <ct, value> is J^T ct, linear in ct: its own gradient, along t, is J t."""
    if not value.requires_grad:
        return zeros_like(value)
    ct = zeros_like(value).requires_grad_()
    return _gradients(_gradients([value], wrt, [ct]), [ct], directions)[0]


def jacrev(func: Callable[..., Any], argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """A function returning the Jacobian, shape [*output, *argument], one VJP per output element,
    batched by vmap; for several `argnums` a tuple of them.

    `func` takes and returns tensors: ArgumentError where it returns more than one. A branch on
    values inside it raises UnsupportedError.
    """

    def transformed(*args: Any) -> Any:
        if not isinstance(argnums, int):
            return tuple(jacrev(func, number)(*args) for number in argnums)
        _check_argnums((argnums,), args, "jacrev")

        def row(cotangent: Tensor, *all_args: Any) -> Any:
            given = list(all_args)
            given[argnums] = _inner(given[argnums])
            with enable_grad():
                output = func(*given)
                return _gradients([output], [given[argnums]], [cotangent.reshape(output.shape)])[0]

        if not isinstance(args[argnums], Tensor):
            raise ArgumentError(
                f"jacrev with respect to {type(args[argnums]).__name__}", where=here(),
                why="the Jacobian is taken along one tensor",
                fix="name it with argnums, or wrap it: jacrev(lambda x: f({'x': x}))",
            )  # fmt: skip
        probe = trace_function(func, types_of(args), "jacrev")
        if not probe.treedef.is_leaf():
            raise ArgumentError(
                "jacrev needs a function that returns one tensor", where=here(),
                fix="take one part of the result at a time: jacrev(lambda x: f(x)[0])",
            )  # fmt: skip
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
    module: Any, parameter_and_buffer_dicts: Any, args: Any = None, kwargs: Any = None, *,
    tie_weights: bool = True, strict: bool = False,
) -> Any:  # fmt: skip
    """Call a module with some of its parameters and buffers replaced; the module is left as it was.

    parameter_and_buffer_dicts  by dotted name; one dict, or several that are put together
    tie_weights  a tensor that the module has under several names is replaced under all of them
    strict  InvalidValueError unless the names are exactly the module's; else others are ignored
    """
    given = parameter_and_buffer_dicts
    new = (
        dict(given)
        if isinstance(given, dict)
        else {k: v for each in given for k, v in each.items()}
    )
    members = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
    if strict and new.keys() != members.keys():
        raise InvalidValueError(
            f"functional_call: unknown names {sorted(new.keys() - members.keys())}, missing "
            f"{sorted(members.keys() - new.keys())}",
            where=here(),
            fix="give each of module.named_parameters() and named_buffers(), or strict=False",
        )
    if tie_weights:
        by_tensor = {id(members[name]): value for name, value in new.items() if name in members}
        tied = {name: by_tensor[id(t)] for name, t in members.items() if id(t) in by_tensor}
        new = {**tied, **new}
    replaced = []
    try:
        for name, value in new.items():
            if name in members:
                path, _, last = name.rpartition(".")
                fields = module.get_submodule(path).__dict__
                replaced.append((fields, last, fields[last]))
                fields[last] = value
        given_args = () if args is None else args if isinstance(args, tuple) else (args,)
        return module(*given_args, **(kwargs or {}))
    finally:
        for fields, last, value in reversed(replaced):
            fields[last] = value


__all__ = [
    "functional_call", "grad", "grad_and_value", "hessian", "jacfwd", "jacrev", "jvp", "vjp", "vmap",
]  # fmt: skip

public(__name__)
