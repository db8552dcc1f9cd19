"""Attributes of objects that are not plain: with slots, containers, modules, classes made by calls."""

import abc
import collections
import contextlib
import dataclasses
import types
import unittest.mock

import numpy as np

import tracegrad as tg
from tests.runtime.hazards.registry import hazard
from tests.runtime.programs import ramp


def read_and_written(compile, *objects):
    """A number under `n` that changes between calls, one that the step counts, and a tensor."""
    for o in objects:
        o.n = 1.0
        read = compile(lambda x, o=o: x * o.n)
        for n in (1.0, 2.0, 3.0):
            o.n = n
            yield read(ramp(2))

        def count(x, o=o):
            o.n += 1
            return x * o.n

        o.n = 1.0
        counted = compile(count)
        for _ in range(3):
            yield counted(ramp(2)), o.n

        def average(x, o=o):
            o.n = o.n * 0.5 + x
            return o.n * 1

        o.n = tg.zeros(2)
        averaged = compile(average)
        for _ in range(3):
            yield averaged(ramp(2)), o.n


@hazard
def slots_of_a_base_class(compile):
    @dataclasses.dataclass(slots=True)
    class State:
        n: float = 1.0

    class Agent(State):
        pass

    class WithDict:
        __slots__ = ("n", "__dict__")

    yield from read_and_written(compile, Agent(), WithDict())


@hazard
def containers_with_attributes(compile):
    kinds = (
        list, dict, collections.OrderedDict, tuple, set, collections.deque, float, Exception, collections.Counter,
    )  # fmt: skip
    made = [types.new_class(f"Own{kind.__name__}", (kind,))() for kind in kinds]

    class Array(np.ndarray):
        pass

    yield from read_and_written(compile, *made, np.ones(2).view(Array))


@hazard
def classes_made_by_calls(compile):
    yield from read_and_written(
        compile,
        dataclasses.make_dataclass("Config", [("n", float)])(1.0),
        types.new_class("Made")(),
        type("Inner", (abc.ABC,), {})(),
        unittest.mock.Mock(n=1.0),
        contextlib.nullcontext(),
    )


@hazard
def a_class_that_says_it_is_another(compile):
    class Proxy:
        def __init__(self):
            self.target, self.n = 1.0, 1.0

        @property
        def __class__(self):
            return type(self.target)

    yield from read_and_written(compile, Proxy())


@hazard
def module_handed_on(compile):
    config = types.ModuleType("configuration")
    config.scale = 1.0

    class Holder:
        cfg = None

        def f(self, x):
            return x * self.cfg.scale

    def scale(where, x):
        return x * where.scale

    holder = Holder()
    holder.cfg = config
    table = [config]
    functions = [
        compile(holder.f),
        compile(lambda x: scale(table[0], x)),
        compile(lambda x: scale(holder.cfg, x)),
    ]
    given = compile(scale)
    for k in range(3):
        config.scale = float(k + 1)
        yield [f(ramp(2)) for f in functions], given(config, ramp(2))


@hazard
def descriptor_that_stores_elsewhere(compile):
    class Stored:
        def __set_name__(self, owner, name):
            self.name = "_" + name

        def __get__(self, instance, owner=None):
            return instance.__dict__.get(self.name, 1.0)

        def __set__(self, instance, value):
            instance.__dict__[self.name] = value

    class Holder:
        n = Stored()

    first, second = Holder(), Holder()
    read = compile(lambda x: x * first.n)
    for n in (None, 2.0, 3.0):
        if n is not None:
            first.n = n
        yield read(ramp(2))

    def count(x):
        second.n += 1
        return x * second.n

    counted = compile(count)
    for _ in range(4):
        yield counted(ramp(2)), second.n


@hazard
def masked_array(compile):
    data = np.ma.masked_array([1.0, 2.0], [False, True])
    g = compile(lambda x: x * float(data.sum()))
    for k in range(3):
        yield g(ramp(2))
        data[0] = k + 2.0


@hazard
def dicts_that_are_their_own_attributes(compile):
    class Config(dict):
        def __init__(self, **fields):
            super().__init__(**fields)
            self.__dict__ = self

    class Forwarding(dict):
        __getattr__ = dict.__getitem__
        __setattr__ = dict.__setitem__

    yield from read_and_written(compile, Config(), Forwarding(n=1.0))
    nested = Forwarding(inner=Config(n=1.0))
    g = compile(lambda x: x * nested.inner.n)
    for k in range(3):
        nested.inner.n = float(k)
        yield g(ramp(2))


@hazard
def results_that_are_dicts_with_attributes(compile):
    """As model hubs return them."""

    class Output(collections.OrderedDict):
        def __init__(self, **fields):
            super().__init__(**fields)
            for name, value in fields.items():
                object.__setattr__(self, name, value)

    layer = tg.nn.Linear(2, 2)
    with tg.no_grad():
        layer.weight.fill_(0.5)
        layer.bias.fill_(0.25)

    def f(x):
        y = layer(x)
        out = Output(loss=y.sum(), logits=y)
        return out.loss + out["logits"].mean()

    g = compile(f)
    model = compile(lambda x: Output(loss=layer(x).sum(), logits=layer(x)))
    for k in range(3):
        out = model(ramp(3, 2) * k)
        yield g(ramp(3, 2) * k), out.loss, out["logits"], list(out)


@hazard
def named_tuples(compile):
    class Pair(collections.namedtuple("Pair", "a b")):
        scale = 2.0

    plain = collections.namedtuple("plain", "a b")
    holder = types.SimpleNamespace(pair=Pair(1.0, 2.0), plain=plain(1.0, 2.0))
    g = compile(lambda x: x * holder.pair.scale * holder.pair.a + holder.plain.b)
    yield g(ramp(2))
    Pair.scale = 3.0
    yield g(ramp(2))
    holder.pair, holder.plain = Pair(4.0, 5.0), plain(6.0, 7.0)
    yield g(ramp(2))
