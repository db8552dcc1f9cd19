"""Arguments: their structure, types, identity, aliases and gradients."""

import dataclasses
import enum
from typing import Any

import tracegrad as tg
from tests.runtime.hazards.registry import hazard, linear
from tests.runtime.programs import ramp


@hazard
def tensors_in_a_list(compile):
    g = compile(lambda xs: sum(xs))
    yield g([ramp(3)])
    yield g([ramp(3), ramp(3), ramp(3)])
    yield g((ramp(3), ramp(3)))


@hazard
def nested_dict(compile):
    g = compile(lambda d: {"out": [d["a"]["b"] * 2, d["c"]], "n": d["n"]})
    yield g({"a": {"b": ramp(3)}, "c": ramp(2), "n": 1})
    yield g({"c": ramp(2), "n": 2, "a": {"b": ramp(3)}})


@hazard
def enum_members(compile):
    class E(enum.Enum):
        A = 1
        B = 2

    g = compile(lambda x, e: x * e.value)
    yield g(ramp(2), E.A), g(ramp(2), E.B)


@hazard
def argument_of_another_dtype(compile):
    g = compile(lambda x: tg.arange(3) * x.sum())
    yield g(ramp(3))
    yield g(ramp(3, dtype=tg.float64))


@hazard
def same_tensor_twice(compile):
    def f(a, b):
        a.add_(1)
        return a + b

    g = compile(f)
    x, y = ramp(3), ramp(3)
    yield g(x, y), x, y
    yield g(x, x), x
    yield g(x, y), x, y
    yield g(y, y), y


@hazard
def same_tensor_twice_with_gradients(compile):
    g = compile(lambda a, b: (a * b).sum())
    x = ramp(3, start=1.0).requires_grad_()
    y = ramp(3, start=2.0).requires_grad_()
    for a, b in ((x, y), (x, x), (y, x)):
        x.grad = y.grad = None
        g(a, b).backward()
        yield x.grad, y.grad


@hazard
def positional_and_keyword(compile):
    def f(a, b=2.0, *, c=1.0):
        return a * b - c

    g = compile(f)
    yield g(ramp(3))
    yield g(ramp(3), 3.0)
    yield g(ramp(3), b=3.0)
    yield g(a=ramp(3), c=ramp(3))
    yield g(ramp(3), c=3.0)


@hazard
def none_and_tensor(compile):
    g = compile(lambda x, bias=None: x if bias is None else x + bias)
    yield g(ramp(3))
    yield g(ramp(3), ramp(3))
    yield g(ramp(3), None)
    yield g(ramp(3), bias=ramp(3))


@hazard
def size_one_then_more(compile):
    g = compile(lambda x: (x + tg.ones(4, 1)).sum(0))
    for n in (1, 4, 1, 3):
        yield g(ramp(n))
    h = compile(lambda a, b: a + b)
    yield h(ramp(1, 3), ramp(4, 3))
    yield h(ramp(4, 3), ramp(4, 3))
    yield h(ramp(4, 1), ramp(1, 3))


@hazard
def empty_input(compile):
    g = compile(lambda x: (x.sum(), x * 2))
    for n in (3, 0, 3):
        yield g(ramp(n, 2))


@hazard
def dtype_changes(compile):
    g = compile(lambda x: x * 2 + 1)
    for dtype in (tg.float32, tg.float64, tg.int64, tg.float32, tg.float16):
        yield g(ramp(3, dtype=dtype))


@hazard
def strides_change(compile):
    g = compile(lambda x: (x.contiguous().view(-1), x.is_contiguous(), x.stride()))
    yield g(ramp(2, 3))
    yield g(ramp(3, 2).t())
    yield g(ramp(2, 6)[:, ::2])
    yield g(ramp(2, 3))


@hazard
def requires_grad_of_an_input(compile):
    g = compile(lambda x: ((x * 2).requires_grad, x.is_leaf))
    x = ramp(3)
    yield g(x)
    yield g(x.requires_grad_())
    yield g(x * 1)
    yield g(x.detach())


@hazard
def order_of_keywords(compile):
    g = compile(lambda **k: list(k.items())[0][1] * 2)
    yield g(a=ramp(2), b=ramp(3))
    yield g(b=ramp(3), a=ramp(2))


@hazard
def order_of_a_dict_argument(compile):
    g = compile(lambda d: list(d.values())[0] * 2)
    yield g({"a": ramp(2), "b": ramp(2) * 5})
    yield g({"b": ramp(2) * 5, "a": ramp(2)})


@hazard
def many_shapes(compile):
    g = compile(lambda x: x.sum())
    for n in range(1, 25):
        yield g(ramp(n))


@hazard
def float64_argument(compile):
    g = compile(lambda x, k: x * k)
    for k in (0.1, 1 / 3):
        yield g(ramp(3, dtype=tg.float64), k)


@hazard
def identity_of_arguments(compile):
    g = compile(lambda a, b: 1 if a is b else 2)
    x, y = ramp(3), ramp(3)
    yield g(x, y), g(x, x), g(x, x.view(3)), g(y, y)


@hazard
def gradient_of_an_argument_accumulates(compile):
    def f(x):
        (x * x).sum().backward()

    g = compile(f)
    x = ramp(3).requires_grad_()
    y = ramp(3).requires_grad_()
    for t in (x, x, y, x, y, y):
        g(t)
        yield x.grad, y.grad


@hazard
def argument_with_gradients_outside(compile):
    g = compile(lambda x: (x * x).sum())
    x = ramp(3).requires_grad_()
    y = ramp(3, start=2.0).requires_grad_()
    for t in (x, y, x):
        g(t).backward()
        yield x.grad, y.grad


@hazard
def alias_appears_between_calls(compile):
    total = tg.zeros(4)

    def f(x):
        total.add_(x)
        return total.sum()

    g = compile(f)
    yield g(ramp(4)), total
    view = total[1:3]
    yield g(ramp(4)), total, view
    view.fill_(100)
    yield g(ramp(4)), total, view
    array = total.numpy()
    yield g(ramp(4)), array.copy(), view
    array[:] = 0
    yield g(ramp(4)), array.copy(), view


@hazard
def argument_becomes_captured_state(compile):
    state = tg.zeros(3)

    def f(x):
        state.add_(1)
        return x * 2 + state

    g = compile(f)
    yield g(ramp(3)), state
    yield g(state), state
    yield g(ramp(3)), state
    yield g(state[:]), state


@hazard
def parameter_as_an_argument(compile):
    m = linear()
    g = compile(lambda w, x: (w * x).sum())
    yield g(m.weight, ramp(1, 3))
    with tg.no_grad():
        m.weight.add_(1)
    yield g(m.weight, ramp(1, 3))
    g(m.weight, ramp(1, 3)).backward()
    yield m.weight.grad


@hazard
def parameter_argument_updated(compile):
    def up(w, gr):
        with tg.no_grad():
            w.sub_(gr * 0.1)
        return w

    g = compile(up)
    m = linear()
    for _ in range(3):
        r = g(m.weight, tg.ones(1, 3))
        yield r is m.weight, m.weight


@hazard
def same_argument_again_and_again(compile):
    x = ramp(4, 3)
    g = compile(lambda x: (x * 2).sum())
    for k in range(5):
        yield g(x)
        if k % 2:
            x.mul_(0.5)
    x.numpy()[0] = 9.0
    yield g(x)
    x.numpy()[1] = 8.0
    yield g(x)


def twice(values):
    """Each twice in a row: values that change at every call are not compiled."""
    return [value for value in values for _ in range(2)]


@dataclasses.dataclass(frozen=True)
class Setting:
    value: Any


@hazard
def equal_numbers_of_other_types_inside_arguments(compile):
    """Python finds 2, 2.0 and True, or 0.0 and -0.0, equal; a graph does not."""
    numbers = (2, 2.0, 1, True, 1.0, complex(1), 0, 0.0, -0.0, False)
    g = compile(lambda x, s: (x * s.value, 1 / (tg.ones(1) * s.value)))
    for value in twice(numbers):
        yield g(tg.arange(3), Setting(value))
    g = compile(lambda x, s: x * s.value.value[0])
    for value in twice(numbers):
        yield g(tg.arange(3), Setting(Setting((value,))))
    g = compile(lambda x, s: x * next(iter(s)))
    for value in twice(numbers):
        yield g(tg.arange(3), {value}), g(tg.arange(3), frozenset([value]))
    g = compile(lambda x, s: x * next(iter(s))[0])
    for value in twice(numbers):
        yield g(tg.arange(3), {(value,)})
    g = compile(lambda x, s: x * s.start)
    for value in twice(numbers):
        yield g(tg.arange(3), slice(value, 3))
