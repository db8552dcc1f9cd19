"""Values that reach a function by less common roads: proxies, context variables, function attributes."""

import collections
import configparser
import contextvars
import ctypes
import functools
import importlib
import io
import multiprocessing
import os
import queue
import sys
import threading
import types
import weakref

import numpy as np

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


@hazard
def flags_and_queues_of_threads(compile):
    stop, waiting = threading.Event(), queue.Queue()
    yield from before_and_after(compile, lambda x: x * 2 if stop.is_set() else x, stop.set)
    yield from before_and_after(
        compile, lambda x: x * waiting.qsize(), lambda: waiting.put("a batch")
    )


@hazard
def numbers_shared_with_c_and_processes(compile):
    number, shared = ctypes.c_float(2.0), multiprocessing.Value("d", 2.0)
    pair = (ctypes.c_int * 2)(2, 3)
    yield from before_and_after(
        compile, lambda x: x * number.value, lambda: setattr(number, "value", 5.0)
    )
    yield from before_and_after(compile, lambda x: x * pair[1], lambda: pair.__setitem__(1, 5))
    yield from before_and_after(
        compile, lambda x: x * shared.value, lambda: setattr(shared, "value", 5.0)
    )


@hazard
def weak_containers(compile):
    class Layer:
        pass

    a, b = Layer(), Layer()
    by_key, by_value = weakref.WeakKeyDictionary(), weakref.WeakValueDictionary()
    layers = weakref.WeakSet([a])
    by_key[a], by_value["t"], later = 2.0, (first := tg.ones(3)), tg.ones(3) * 5
    yield from before_and_after(
        compile, lambda x: x * by_key[a], lambda: by_key.__setitem__(a, 5.0)
    )
    yield from before_and_after(
        compile, lambda x: x * by_value["t"], lambda: by_value.__setitem__("t", later)
    )
    yield from before_and_after(compile, lambda x: x * len(layers), lambda: layers.add(b))
    yield first


@hazard
def views_of_dicts(compile):
    settings, user = {"factor": 2.0}, collections.UserDict(factor=2.0)
    values, items, keys = settings.values(), settings.items(), settings.keys()
    others = user.values()
    yield from before_and_after(
        compile, lambda x: x * sum(values), lambda: settings.update(factor=5.0)
    )
    yield from before_and_after(
        compile, lambda x: x * dict(items)["factor"], lambda: settings.update(factor=7.0)
    )
    yield from before_and_after(compile, lambda x: x * len(keys), lambda: settings.update(more=1))
    yield from before_and_after(compile, lambda x: x * sum(others), lambda: user.update(factor=5.0))


@hazard
def arrays_of_objects(compile):
    array = np.array([2.0, {"factor": 3.0}], dtype=object)
    yield from before_and_after(compile, lambda x: x * array[0], lambda: array.__setitem__(0, 5.0))
    yield from before_and_after(
        compile, lambda x: x * array[1]["factor"], lambda: array[1].update(factor=9.0)
    )


@hazard
def text_in_memory(compile):
    text = io.StringIO("2")
    yield from before_and_after(
        compile, lambda x: x * float(text.getvalue()), lambda: text.write("5")
    )


@hazard
def own_way_with_attributes(compile):
    class Settings:
        def __init__(self):
            self.values = {"factor": 2.0}

        def __getattribute__(self, name):
            fields = object.__getattribute__(self, "__dict__")
            if name in fields.get("values", ()):
                return fields["values"][name]
            return object.__getattribute__(self, name)

    settings = Settings()
    yield from before_and_after(
        compile, lambda x: x * settings.factor, lambda: settings.values.update(factor=5.0)
    )


@hazard
def modules_looked_up(compile):
    module = types.ModuleType("tracegrad_test_settings")
    module.FACTOR = 2.0
    sys.modules["tracegrad_test_settings"] = module
    change = functools.partial(setattr, module, "FACTOR")
    yield from before_and_after(
        compile,
        lambda x: x * importlib.import_module("tracegrad_test_settings").FACTOR,
        lambda: change(5.0),
    )
    yield from before_and_after(
        compile,
        lambda x: x * sys.modules["tracegrad_test_settings"].FACTOR,
        lambda: change(7.0),
    )
    del sys.modules["tracegrad_test_settings"]


@hazard
def modules_that_name_each_other(compile):
    a, b = types.ModuleType("tracegrad_test_a"), types.ModuleType("tracegrad_test_b")
    a.b, b.a, b.factor = b, a, 2.0
    yield from before_and_after(
        compile, lambda x: x * a.b.a.b.factor, lambda: setattr(b, "factor", 5.0)
    )


@hazard
def property_put_before_another(compile):
    class Settings:
        @property
        def factor(self):
            return 2.0

    class Special(Settings):
        pass

    settings = Special()
    yield from before_and_after(
        compile,
        lambda x: x * settings.factor,
        lambda: setattr(Special, "factor", property(lambda self: 5.0)),
    )
