"""What the functions given to `cond`, `while_loop` and `vmap` read of the world around them."""

import numpy as np

import tracegrad as tg
from tests.runtime.hazards.registry import hazard, linear
from tests.runtime.programs import ramp


class Plain:
    """No module: a user's own object."""

    scale = 2.0


def _changes(compile, body):
    """`body(holder, x)` before and after an attribute that it reads has changed."""
    for make in (Plain, tg.nn.Module):
        holder = make()
        holder.scale = 2.0
        g = compile(lambda x, holder=holder: body(holder, x))
        yield g(ramp(3, start=1.0))
        holder.scale = 5.0
        yield g(ramp(3, start=1.0))


@hazard
def attribute_in_a_branch_of_cond(compile):
    yield from _changes(
        compile, lambda o, x: tg.cond(x.sum() > 0, lambda: x * o.scale, lambda: x - o.scale)
    )


@hazard
def attribute_in_the_body_of_while_loop(compile):
    yield from _changes(
        compile,
        lambda o, x: tg.while_loop(lambda y: y.sum() < 40, lambda y: (y + o.scale,), (x,))[0],
    )


@hazard
def attribute_in_the_condition_of_while_loop(compile):
    yield from _changes(
        compile,
        lambda o, x: tg.while_loop(lambda y: y.sum() < 9 * o.scale, lambda y: (y + 1,), (x,))[0],
    )


@hazard
def attribute_in_vmap(compile):
    yield from _changes(compile, lambda o, x: tg.func.vmap(lambda row: row * o.scale)(x))


@hazard
def mode_in_a_branch_of_cond(compile):
    m = linear()
    g = compile(lambda x: tg.cond(x.sum() > 0, lambda: x * (2 if m.training else 3), lambda: x))
    yield g(ramp(3, start=1.0))
    m.eval()
    yield g(ramp(3, start=1.0))


@hazard
def rebound_containers_in_vmap(compile):
    holder = Plain()
    holder.table, holder.steps = {"shift": 1.0}, [2.0]
    g = compile(lambda x: tg.func.vmap(lambda r: r * holder.steps[0] + holder.table["shift"])(x))
    yield g(ramp(3))
    holder.table = {"shift": 3.0}
    yield g(ramp(3))
    holder.steps = [4.0]
    yield g(ramp(3))


@hazard
def replaced_parameter_in_vmap(compile):
    m = linear()
    g = compile(lambda x: tg.func.vmap(m)(x))
    yield g(ramp(2, 3))
    m.weight = tg.nn.Parameter(ramp(1, 3))
    yield g(ramp(2, 3))


@hazard
def learning_rate_in_nested_branches(compile):
    opt = tg.optim.SGD(linear().parameters(), lr=0.5)

    def f(x):
        lr = opt.param_groups[0]["lr"]

        def inner():
            return x * lr * opt.param_groups[0]["lr"] + (1.0 if lr > 0.3 else 0.0)

        return tg.cond(x.sum() > 0, lambda: tg.cond(x.sum() > 1, inner, lambda: x), lambda: x / lr)

    g = compile(f)
    for lr in (0.5, 0.4, 0.2):
        opt.param_groups[0]["lr"] = lr
        yield g(ramp(3, start=1.0)), g(ramp(3, start=-9.0))


@hazard
def number_of_a_tensor_in_a_branch_of_cond(compile):
    def f(x):
        total = x.sum().item()
        return tg.cond(x.sum() > 0, lambda: x * total, lambda: x + total)

    g = compile(lambda x: tg.cond(x.sum() > 0, lambda: x * f(x).sum().item(), lambda: x))
    yield g(ramp(3, start=1.0))
    yield g(ramp(3, start=2.0))


@hazard
def large_array_in_a_branch_of_cond(compile):
    array = np.ones((200, 100), np.float32)  # too large for a constant
    g = compile(lambda x: tg.cond(x.sum() > 0, lambda: x + array, lambda: array - x).sum())
    yield g(tg.ones(200, 100))
    array[:] = 2.0
    yield g(tg.ones(200, 100)), g(-tg.ones(200, 100))


@hazard
def gradient_read_in_a_branch_of_cond(compile):
    m = linear()

    def f(x):
        m.zero_grad()
        m(x).sum().backward()
        return tg.cond(x.sum() > 0, lambda: m.weight.grad * 2, lambda: m.weight * 1)

    g = compile(f)
    for _ in range(3):
        yield g(ramp(2, 3, start=1.0)), g(ramp(2, 3, start=-9.0))


@hazard
def leaf_made_in_a_branch_of_cond(compile):
    def then(x):
        t = tg.tensor([1.0, 2.0, 3.0], requires_grad=True)
        (t.square() * x).sum().backward()
        return t.grad

    g = compile(lambda x: tg.cond(x.sum() > 0, lambda: then(x), lambda: x))
    yield g(ramp(3, start=1.0)), g(ramp(3, start=-9.0))
