"""What no call can make or set anew, or whose owner cannot be told: the function runs eagerly."""

import threading

import numpy as np
import pytest

import tracegrad as tg
from tests.runtime.hazards.registry import falls_back
from tests.runtime.programs import ramp


@falls_back("a new iterator \\(generator\\) is returned")
def generator_returned(compile):
    def f(x):
        for k in range(2):
            yield x * k

    g = compile(f)
    for k in range(3):
        yield list(g(ramp(3, start=float(k))))


@falls_back("a new iterator \\(zip\\) is returned")
def iterator_returned(compile):
    g = compile(lambda x: zip([x * 1], [x]))
    for k in range(3):
        yield list(g(ramp(3, start=float(k))))


@falls_back("a coroutine is returned")
def coroutine_returned(compile):
    async def f(x):
        return x * 2

    g = compile(f)
    for k in range(3):
        coroutine = g(ramp(3, start=float(k)))
        with pytest.raises(StopIteration) as stopped:
            coroutine.send(None)
        yield stopped.value.value


@falls_back("a new function")
def closure_returned(compile):
    g = compile(lambda x: lambda y: x + y)
    for k in range(3):
        yield g(ramp(3, start=float(k)))(1)


@falls_back("a new Linear is returned or kept")
def module_returned(compile):
    def f(x):
        module = tg.nn.Linear(3, 3, bias=False)
        with tg.no_grad():
            module.weight.copy_(x)
        return module

    g = compile(f)
    for k in range(3):
        yield g(ramp(3, 3, start=float(k)))(tg.ones(3)).detach()


@falls_back("whose methods hold values")
def object_of_a_new_class_returned(compile):
    def f(x):
        class Adder:
            def add(self, y):
                return x + y

        return Adder()

    g = compile(f)
    for k in range(3):
        yield g(ramp(3, start=float(k))).add(1)


@falls_back("a new Interned is returned")
def object_that_only_its_class_can_make_returned(compile):
    class Interned:
        def __new__(cls, value):
            made = super().__new__(cls)
            made.value = value
            return made

    g = compile(lambda x: Interned(x))
    for k in range(3):
        yield g(ramp(3, start=float(k))).value


@falls_back("a new Lock|a new lock")
def lock_in_a_new_object_returned(compile):
    class Guarded:
        def __init__(self, x):
            self.x, self.lock = x, threading.Lock()

    g = compile(lambda x: Guarded(x * 2))
    for k in range(3):
        yield g(ramp(3, start=float(k))).x


@falls_back("a new view of a ndarray")
def view_of_an_array_from_outside_returned(compile):
    array = np.zeros(3)
    g = compile(lambda x: (x * 2, array[1:]))
    for k in range(3):
        g(ramp(3))[1][0] += k
        yield array.tolist()


@falls_back("twice among the arguments")
def list_given_twice_returned(compile):
    g = compile(lambda first, second: second)
    one, other = [1, 2], [1, 2]
    yield g(one, one) is one
    yield g(one, other) is other


@falls_back("an attribute \\(last\\) of a tensor from outside is set")
def attribute_of_a_captured_tensor_set(compile):
    b = ramp(3)

    def f(x):
        b.last = x * 2
        return x + b

    g = compile(f)
    for k in range(3):
        yield g(ramp(3, start=float(k))), b.last


@falls_back("an attribute \\(seen\\) of a tensor from outside is set")
def counter_on_an_argument(compile):
    def f(x):
        x.seen = getattr(x, "seen", 0) + 1
        return x * x.seen

    g = compile(f)
    x = ramp(3)
    for _ in range(3):
        yield g(x), x.seen


@falls_back("a new tensor with an attribute of the user's own \\(note\\)")
def result_with_an_attribute(compile):
    def f(x):
        y = x * 2
        y.note = "made"
        return y

    g = compile(f)
    for k in range(3):
        yield g(ramp(3, start=float(k))).note


@falls_back("a tensor on which the function called requires_grad_\\(\\) is returned")
def leaf_returned_beside_what_is_computed_from_it(compile):
    w = tg.nn.Parameter(ramp(3, start=0.5))

    def f(image):
        image = image.detach().clone().requires_grad_()
        return (w * image).sum(), image

    g = compile(f)
    for _ in range(2):
        loss, image = g(ramp(3))
        loss.backward()
        yield loss, image.grad, w.grad
