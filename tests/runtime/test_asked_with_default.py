"""Names that are not there when a recording asks for them, and come later: compiled as eager."""

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


PROGRAMS = [
    on_a_class, on_the_class_of_self, on_a_base_class, on_a_function, on_a_module, set_by_the_function_itself,
]  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_name_that_was_absent_is_noticed_once_it_is_there(program, backend):
    eager = [result.tolist() for result in program(lambda f: f)]
    compiled = program(lambda f: tg.compile(f, backend=backend))
    assert [result.tolist() for result in compiled] == eager
