"""Values that reach a function by less common roads: proxies, context variables, function attributes."""

import collections
import configparser
import contextvars
import functools
import os
import threading
import types
import weakref

import tracegrad as tg
from tests.runtime.hazards.registry import hazard
from tests.runtime.programs import ramp

FACTOR = 2.0


def before_and_after(compile, function, change):
    """Two calls, the change, and the call that must see it."""
    compiled = compile(function)
    for _ in range(2):
        yield compiled(ramp(3))
    change()
    yield compiled(ramp(3))


@hazard
def context_variable(compile):
    factor = contextvars.ContextVar("factor", default=2.0)
    token = []
    yield from before_and_after(
        compile, lambda x: x * factor.get(), lambda: token.append(factor.set(5.0))
    )
    factor.reset(token[0])


@hazard
def thread_local(compile):
    local = threading.local()
    local.factor = 2.0
    yield from before_and_after(
        compile, lambda x: x * local.factor, lambda: setattr(local, "factor", 5.0)
    )


@hazard
def read_only_mapping(compile):
    settings = {"factor": 2.0}
    proxy = types.MappingProxyType(settings)
    yield from before_and_after(
        compile, lambda x: x * proxy["factor"], lambda: settings.update(factor=5.0)
    )


@hazard
def mapping_classes(compile):
    first = {"factor": 2.0}
    chain, user = collections.ChainMap({}, first), collections.UserDict(factor=2.0)
    parser = configparser.ConfigParser()
    parser["a"] = {"factor": "2"}
    yield from before_and_after(
        compile, lambda x: x * chain["factor"], lambda: first.update(factor=5.0)
    )
    yield from before_and_after(
        compile, lambda x: x * user["factor"], lambda: user.update(factor=5.0)
    )
    yield from before_and_after(
        compile, lambda x: x * float(parser["a"]["factor"]), lambda: parser["a"].update(factor="5")
    )


@hazard
def weak_reference(compile):
    class Settings:
        factor = 2.0

    settings = [Settings()]
    reference = weakref.ref(settings[0])
    yield from before_and_after(
        compile, lambda x: x * reference().factor, lambda: setattr(settings[0], "factor", 5.0)
    )


@hazard
def look_at_bytes(compile):
    memory = bytearray([2, 3])
    view = memoryview(memory)
    yield from before_and_after(compile, lambda x: x * view[0], lambda: memory.__setitem__(0, 5))


@hazard
def another_class(compile):
    class Two:
        def factor(self):
            return 2.0

    class Five:
        def factor(self):
            return 5.0

    settings = Two()
    yield from before_and_after(
        compile, lambda x: x * settings.factor(), lambda: setattr(settings, "__class__", Five)
    )


@hazard
def attribute_of_the_class_of_a_class(compile):
    class Meta(type):
        factor = 2.0

    class Settings(metaclass=Meta):
        pass

    yield from before_and_after(
        compile, lambda x: x * Settings.factor, lambda: setattr(Meta, "factor", 5.0)
    )


@hazard
def attributes_of_functions(compile):
    def scaled(x):
        return x * scaled.factor

    def settings():
        pass

    scaled.factor = settings.factor = 2.0
    yield from before_and_after(compile, scaled, lambda: setattr(scaled, "factor", 5.0))
    yield from before_and_after(
        compile, lambda x: x * settings.factor, lambda: setattr(settings, "factor", 5.0)
    )


@hazard
def code_of_a_function(compile):
    """As tools that reload edited files replace it."""

    def factor():
        return 2.0

    def later():
        return 5.0

    yield from before_and_after(
        compile, lambda x: x * factor(), lambda: setattr(factor, "__code__", later.__code__)
    )


@hazard
def implementation_by_type(compile):
    @functools.singledispatch
    def factor(value):
        return 2.0

    yield from before_and_after(
        compile, lambda x: x * factor(3), lambda: factor.register(int)(lambda value: 5.0)
    )


@hazard
def environment(compile):
    os.environ["TRACEGRAD_TEST_FACTOR"] = "2"
    yield from before_and_after(
        compile,
        lambda x: x * float(os.getenv("TRACEGRAD_TEST_FACTOR")),
        lambda: os.environ.update(TRACEGRAD_TEST_FACTOR="5"),
    )
    del os.environ["TRACEGRAD_TEST_FACTOR"]


@hazard
def names_looked_up(compile):
    global FACTOR
    module = types.ModuleType("settings")
    module.factor, name = 2.0, "factor"
    change = functools.partial(setattr, module, "factor")
    yield from before_and_after(
        compile, lambda x: x * module.__dict__["factor"], lambda: change(5.0)
    )
    yield from before_and_after(compile, lambda x: x * getattr(module, name), lambda: change(7.0))
    yield from before_and_after(
        compile, lambda x: x * globals()["FACTOR"], lambda: globals().update(FACTOR=5.0)
    )
    FACTOR = 2.0


@hazard
def what_a_tensor_says_of_itself(compile):
    """Of one whose value the graph does not use."""
    tensor = tg.ones(2)
    tensor.tag = 2.0
    yield from before_and_after(
        compile, lambda x: x * tensor.tag, lambda: setattr(tensor, "tag", 5.0)
    )
    yield from before_and_after(
        compile, lambda x: x * (5.0 if tensor.requires_grad else 2.0), tensor.requires_grad_
    )
    other = tg.ones(2)
    yield from before_and_after(
        compile, lambda x: x * other.shape[0], lambda: setattr(other, "data", tg.ones(5))
    )
