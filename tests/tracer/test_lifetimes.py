"""What nothing refers to any more is freed: no cache keeps a program, a tape or code alive."""

import gc
import weakref

import tracegrad as tg
from tracegrad.ir.graph import Graph
from tracegrad.tracer import locate
from tracegrad.tracer.eager import program
from tracegrad.tracer.eager import run as eager
from tracegrad.tracer.memory import views
from tracegrad.tracer.tape import compiled as compiled_backward
from tracegrad.tracer.trace.recording import Trace


def graphs_alive():
    gc.collect()
    return sum(type(thing) is Graph for thing in gc.get_objects())


def forget_programs():
    for cache in (program._programs, eager._programs, views._programs):
        cache.clear()
    compiled_backward._compiled.clear()


def second_gradients(size):
    x = tg.ones(size, requires_grad=True)
    (first,) = tg.autograd.grad((x.sin() * x).sum(), x, create_graph=True)
    first.sum().backward()


def test_gradient_programs_go_with_their_programs():
    second_gradients(2)
    forget_programs()
    before = graphs_alive()
    for size in range(3, 20):
        second_gradients(size)
    forget_programs()
    assert graphs_alive() <= before


def test_a_hook_that_holds_its_own_tensor_is_freed():
    def once():
        hooked = tg.ones(2, requires_grad=True) * 2
        hooked.register_hook(lambda gradient: gradient * hooked.detach())
        hooked.sum().backward()
        return weakref.ref(hooked)

    tensor = once()
    gc.collect()
    assert tensor() is None


def test_code_that_was_located_is_freed(monkeypatch):
    def once():
        names = {"locate": locate}
        exec(compile("def f(): return locate.here()", "<cell 1>", "exec"), names)
        assert names["f"]().file == "<cell 1>"
        return weakref.ref(names["f"].__code__)

    code = once()
    gc.collect()
    assert code() is None
    monkeypatch.setattr(locate, "_CACHE_SIZE", len(locate._own_files) + 1)
    for number in range(5):
        exec(compile("locate.here()", f"<cell of {number}>", "exec"), {"locate": locate})
    assert len(locate._own_files) <= locate._CACHE_SIZE


def test_the_recording_of_a_users_function_is_freed():
    """Its op is one of this recording alone, whose gradient is the user's backward."""

    class Double(tg.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, ct):
            return ct * 2

    def once():
        step = tg.compile(lambda x: Double.apply(x) if Double.apply(x).sum() > 0 else x)
        step(tg.ones(3, requires_grad=True)).sum().backward()

    def traces_alive():
        gc.collect()
        gc.collect()  # what a weak dictionary held for graphs that have gone now
        return sum(type(thing) is Trace for thing in gc.get_objects())

    once()
    before = traces_alive()
    for _ in range(3):
        once()
    assert traces_alive() <= before
