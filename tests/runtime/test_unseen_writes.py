"""Names that are written, or deleted, past the hooks of a recording: compiled as eager."""

import functools
import sys
import types

import pytest

import tracegrad as tg
from tracegrad import nn


def ramp(count, start=0.0):
    return tg.arange(count) + start


class Holder:
    pass


def cached_property(compile_):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.width = 3

        @functools.cached_property
        def mask(self):
            return tg.arange(self.width) * 1.0

        def forward(self, x):
            return x * self.mask + self.mask

    model = Model()
    f = compile_(model)
    yield from (f(ramp(3)) for _ in range(3))
    yield model.mask
    del model.mask
    yield f(ramp(3))
    model.__dict__["mask"] = ramp(3, start=5.0)
    yield f(ramp(3))


def deleted_attribute(compile_):
    holder = Holder()

    def f(x):
        del holder.spare
        return x * 2

    g = compile_(f)
    for k in range(3):
        holder.spare = k
        yield g(ramp(3)), hasattr(holder, "spare")


def attribute_deleted_and_set_again(compile_):
    holder = Holder()
    holder.total = ramp(3)

    def f(x):
        before = holder.total
        del holder.total
        holder.total = before + x
        if hasattr(holder, "spare"):
            del holder.spare
        holder.spare = x * 2
        return x

    g = compile_(f)
    for k in range(5):
        yield g(ramp(3, start=float(k))), holder.total, holder.spare
    del holder.spare
    yield g(ramp(3)), holder.total, holder.spare


def attribute_of_a_function(compile_):
    def f(x):
        if not hasattr(f, "calls"):
            f.calls = 0
        f.calls += 1
        f.last = x * f.calls
        return x + f.calls

    g = compile_(f)
    for _ in range(3):
        yield g(ramp(3)), f.calls, f.last


def attribute_of_a_class(compile_):
    class Counter:
        def step(self, x):
            type(self).last = x * 2
            return x

    counter = Counter()
    g = compile_(counter.step)
    for k in range(3):
        yield g(ramp(3, start=float(k))), Counter.last


def attribute_of_a_module(compile_):
    settings = sys.modules["unseen_settings"] = types.ModuleType("unseen_settings")

    def f(x):
        settings.last = x * 2
        return x

    g = compile_(f)
    for k in range(3):
        yield g(ramp(3, start=float(k))), settings.last


def item_of_globals(compile_):
    namespace = {}
    exec("def f(x):\n    globals()['found'] = x * 3\n    return x", namespace)
    g = compile_(namespace["f"])
    for k in range(3):
        yield g(ramp(3, start=float(k))), namespace["found"]


def object_setattr(compile_):
    holder = Holder()

    def f(x):
        object.__setattr__(holder, "mode", "ran")
        object.__setattr__(holder, "last", x * 2)
        return x

    g = compile_(f)
    for k in range(3):
        holder.mode = k
        yield g(ramp(3, start=float(k))), holder.mode, holder.last


def fields_of_an_empty_object(compile_):
    holder = Holder()

    def f(x):
        vars(holder)["last"] = x * 2
        holder.__dict__.update(again=x * 3)
        return x

    g = compile_(f)
    for k in range(3):
        yield g(ramp(3, start=float(k))), holder.last, holder.again


PROGRAMS = [
    cached_property, deleted_attribute, attribute_deleted_and_set_again, attribute_of_a_function,
    attribute_of_a_class, attribute_of_a_module, item_of_globals, object_setattr, fields_of_an_empty_object,
]  # fmt: skip


def plain(value):
    if isinstance(value, tuple):
        return tuple(map(plain, value))
    return value.tolist() if isinstance(value, tg.Tensor) else value


@pytest.mark.filterwarnings("ignore:tracegrad.*runs eagerly from now on")
@pytest.mark.parametrize("program", PROGRAMS)
def test_writes_past_the_hooks(program, backend):
    eager = list(map(plain, program(lambda f: f)))
    compiled = program(lambda f: tg.compile(f, backend=backend))
    assert list(map(plain, compiled)) == eager


def test_a_cached_property_is_filled_once_and_then_captured():
    class Model:
        @functools.cached_property
        def mask(self):
            return tg.arange(3) * 1.0

        def forward(self, x):
            return x * self.mask

    f = tg.compile(Model().forward)
    for _ in range(4):
        f(ramp(3))
    assert f.stats()["recordings"] == 2


def test_a_failed_call_leaves_nothing_of_the_recording_behind():
    holder = Holder()

    def f(x):
        object.__setattr__(holder, "last", x * 2)
        f.last = x * 3
        raise KeyError("stop")

    with pytest.raises(KeyError):
        tg.compile(f)(ramp(3))
    assert not hasattr(holder, "last") and not hasattr(f, "last")
