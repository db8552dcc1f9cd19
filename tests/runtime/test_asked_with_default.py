"""Names that are not there when a recording asks for them, and come later: compiled as eager."""

import contextlib
import types

import pytest

import tracegrad as tg

SETTINGS = types.ModuleType("settings_of_a_test")


class Base:
    pass


def on_a_class(compile_):
    class Layer(Base):
        def forward(self, x):
            return x * getattr(Layer, "scale", 2)

    f = compile_(Layer().forward)
    yield f(tg.ones(2))
    Layer.scale = 5
    yield f(tg.ones(2))
    Layer.scale = 6
    yield f(tg.ones(2))


def on_the_class_of_self(compile_):
    class Layer:
        def forward(self, x):
            return x * getattr(type(self), "scale", 2)

    layer = Layer()
    f = compile_(lambda x: layer.forward(x))
    yield f(tg.ones(2))
    Layer.scale = 5
    yield f(tg.ones(2))


def on_a_base_class(compile_):
    class Layer(Base):
        def forward(self, x):
            return x * (3 if hasattr(Layer, "flag") else 2)

    f = compile_(Layer().forward)
    yield f(tg.ones(2))
    Base.flag = True
    try:
        yield f(tg.ones(2))
    finally:
        del Base.flag
    yield f(tg.ones(2))


def on_a_function(compile_):
    def f(x):
        return x * (3 if hasattr(function, "flag") else 2)

    function, g = f, compile_(f)
    yield g(tg.ones(2))
    f.flag = 5
    yield g(tg.ones(2))


def on_a_module(compile_):
    vars(SETTINGS).pop("flag", None)
    f = compile_(lambda x: x * getattr(SETTINGS, "flag", 2))
    yield f(tg.ones(2))
    SETTINGS.flag = 5
    yield f(tg.ones(2))


def set_by_the_function_itself(compile_):
    class Counter:
        pass

    def f(x):
        if not hasattr(Counter, "seen"):
            Counter.seen = 1
        return x * Counter.seen

    g = compile_(f)
    for _ in range(3):
        yield g(tg.ones(2))
    Counter.seen = 4
    yield g(tg.ones(2))


def on_a_metaclass(compile_):
    class Meta(type):
        pass

    class Layer(metaclass=Meta):
        pass

    f = compile_(lambda x: x * getattr(Layer, "scale", 2))
    yield f(tg.ones(2))
    Meta.scale = 5
    yield f(tg.ones(2))


def by_a_helper(compile_):
    def found(holder, name):
        return getattr(holder, name, 2)

    class First:
        pass

    class Second:
        pass

    f = compile_(lambda x: x * found(First, "scale") * found(Second, "factor"))
    yield f(tg.ones(2))
    First.scale = 5
    yield f(tg.ones(2))
    Second.factor = 7
    yield f(tg.ones(2))


def by_a_name_kept_in_a_variable(compile_):
    def holder():
        pass

    name = "scale"
    f = compile_(lambda x: x * getattr(holder, name, 2))
    yield f(tg.ones(2))
    holder.scale = 5
    yield f(tg.ones(2))


def in_the_dict_of_a_class(compile_):
    class Layer:
        pass

    f = compile_(lambda x: x * Layer.__dict__.get("scale", 2) * vars(Layer).get("factor", 2))
    yield f(tg.ones(2))
    Layer.scale = 5
    yield f(tg.ones(2))
    Layer.factor = 7
    yield f(tg.ones(2))


def with_a_handler_for_a_class(compile_):
    class Layer:
        pass

    def f(x):
        try:
            return x * Layer.scale
        except AttributeError:
            return x * 2

    g = compile_(f)
    yield g(tg.ones(2))
    Layer.scale = 5
    yield g(tg.ones(2))
    del Layer.scale
    yield g(tg.ones(2))


def with_a_handler_for_a_module(compile_):
    vars(SETTINGS).pop("flag", None)

    def f(x):
        with contextlib.suppress(AttributeError):
            return x * SETTINGS.flag
        return x * 2

    g = compile_(f)
    yield g(tg.ones(2))
    SETTINGS.flag = 5
    yield g(tg.ones(2))


def with_a_handler_for_a_global(compile_):
    def f(x):
        try:
            return x * DEFINED_LATER
        except NameError:
            return x * 2

    g = compile_(f)
    yield g(tg.ones(2))
    globals()["DEFINED_LATER"] = 5
    try:
        yield g(tg.ones(2))
    finally:
        del globals()["DEFINED_LATER"]
    yield g(tg.ones(2))


def among_the_globals(compile_):
    f = compile_(lambda x: x * globals().get("DEFINED_LATER", 2))
    yield f(tg.ones(2))
    globals()["DEFINED_LATER"] = 5
    try:
        yield f(tg.ones(2))
    finally:
        del globals()["DEFINED_LATER"]


PROGRAMS = [
    on_a_class, on_the_class_of_self, on_a_base_class, on_a_function, on_a_module, set_by_the_function_itself,
    on_a_metaclass, by_a_helper, by_a_name_kept_in_a_variable, in_the_dict_of_a_class, with_a_handler_for_a_class,
    with_a_handler_for_a_module, with_a_handler_for_a_global, among_the_globals,
]  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_name_that_was_absent_is_noticed_once_it_is_there(program, backend):
    eager = [result.tolist() for result in program(lambda f: f)]
    compiled = program(lambda f: tg.compile(f, backend=backend))
    assert [result.tolist() for result in compiled] == eager
