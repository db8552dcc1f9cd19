"""Programs that change or meet what no replay repeats: each ends up eager, after one warning."""

import collections
import functools
import io
import types

import numpy as np

import tracegrad as tg
from tests.runtime.hazards.registry import falls_back
from tests.runtime.programs import ramp
from tracegrad.runtime.watch.pictures import MAX_ITEMS


@falls_back("changes between calls: n")
def counter_in_a_closure(compile):
    n = 0

    def f(x):
        nonlocal n
        n += 1
        return x * n

    g = compile(f)
    for _ in range(7):
        yield g(ramp(3)), n
    n = 0
    yield g(ramp(3)), n


@falls_back("changes between calls: count")
def counter_on_a_class(compile):
    class Counting:
        count = 0

        def scale(self, x):
            type(self).count += 1
            return x * self.count

    o = Counting()
    g = compile(lambda x: o.scale(x))
    for _ in range(7):
        yield g(ramp(3)), Counting.count


@falls_back("log")
def tensors_appended_to_a_list(compile):
    log = []

    def f(x):
        y = x * 2
        log.append(y)
        return y

    g = compile(f)
    for k in range(4):
        g(ramp(3, start=float(k)))
        yield list(log)


@falls_back("history")
def numbers_appended_to_an_attribute(compile):
    class Local:
        def __init__(self):
            self.history = []

        def step(self, x):
            loss = x.sum()
            self.history.append(loss.item())
            return loss

    o = Local()
    g = compile(o.step)
    for k in range(4):
        g(ramp(3, start=float(k)))
        yield list(o.history)


@falls_back("losses")
def a_number_kept_in_a_dict(compile):
    losses = {}

    def f(x):
        losses["last"] = x.sum().item()
        losses["calls"] = losses.get("calls", 0) + 1
        return x * 2

    g = compile(f)
    for k in range(8):
        yield g(ramp(3, start=float(k))), losses


@falls_back("text")
def text_written_to_memory(compile):
    text = io.StringIO()

    def f(x):
        text.write("step ")
        return x * 2

    g = compile(f)
    for _ in range(3):
        yield g(ramp(3)), text.getvalue()


@falls_back("objects")
def array_of_objects_written(compile):
    objects = np.array([1.0, None], dtype=object)

    def f(x):
        objects[0] = objects[0] + 1
        return x * objects[0]

    g = compile(f)
    for _ in range(3):
        yield g(ramp(3)), objects[0]


@falls_back("removed")
def key_of_a_dict_removed(compile):
    removed = {"a": 1.0, "b": 2.0}

    def f(x):
        removed.pop("a", None)
        removed["a"] = 1.0
        return x * len(removed)

    g = compile(f)
    for _ in range(3):
        yield g(ramp(3)), list(removed)


@falls_back("under functools.lru_cache, uses a value of this call")
def cached_function_that_reads_what_the_step_wrote(compile):
    w = tg.nn.Parameter(ramp(3))

    @functools.cache
    def size():
        return w.detach().square().sum()

    def f(x):
        with tg.no_grad():
            w.add_(x)
        return x * size()

    g = compile(f)
    for _ in range(3):
        yield g(ramp(3)), w


@falls_back("under functools.lru_cache, uses a value of this call")
def cached_method_that_reads_a_result(compile):
    class Local:
        @functools.lru_cache  # noqa: B019
        def scaled(self, k):
            return self.h * k

    o = Local()

    def f(x):
        o.h = x * 2
        return o.scaled(3)

    g = compile(f)
    for k in range(3):
        yield g(ramp(3, start=float(k)))


@falls_back("window")
def deque_as_a_window(compile):
    window = collections.deque(maxlen=2)

    def f(x):
        window.append(x.sum().item())
        return x * sum(window)

    g = compile(f)
    for k in range(4):
        yield g(ramp(3, start=float(k)))


@falls_back("array")
def numpy_array_written(compile):
    array = np.zeros(3, np.float32)

    def f(x):
        array[0] += 1
        return x * float(array[0])

    g = compile(f)
    for _ in range(3):
        yield g(ramp(3)), array.copy()


@falls_back("too large")
def enormous_list(compile):
    values = [1.0] * (MAX_ITEMS + 1)
    g = compile(lambda x: x * values[-1])
    yield g(ramp(3))
    values[-1] = 3.0
    yield g(ramp(3))


@falls_back("reading x\\[mask\\]")
def shape_that_depends_on_values(compile):
    g = compile(lambda x: x[x > 0.4].sum())
    for k in range(3):
        yield g(ramp(3, start=k * 0.2))


@falls_back("argument")
def argument_dict_extended(compile):
    def f(d):
        d["new"] = d["x"] * 2
        return d["new"]

    g = compile(f)
    for k in range(3):
        d = {"x": ramp(2, start=float(k))}
        yield g(d), d


@falls_back("argument")
def argument_list_extended(compile):
    def f(values):
        values.append(values[0] * 2)
        return values[0]

    g = compile(f)
    for k in range(3):
        values = [ramp(2, start=float(k))]
        yield g(values), values


@falls_back("argument 1: 4.0 -> 4.5")
def number_that_changes_at_every_call(compile):
    g = compile(lambda x, scale: x * scale)
    for k in range(12):
        yield g(ramp(3), k / 2)


@falls_back("scale: a NumPy array, float32\\[2\\], content")
def array_that_changes_at_every_call(compile):
    g = compile(lambda x, *, scale: x * tg.from_numpy(scale))
    for k in range(12):
        yield g(ramp(2), scale=np.full(2, k, np.float32))


@falls_back("looks the same")
def object_that_changes_at_every_call(compile):
    class Settings:
        def __init__(self, scale):
            self.scale = scale

        def __repr__(self):
            return "settings"

    g = compile(lambda x, settings: x * settings.scale)
    for k in range(12):
        yield g(ramp(2), Settings(k))


@falls_back("argument")
def list_in_an_argument_extended(compile):
    def f(batch):
        batch.values.append(batch.x * 2)
        return batch.x

    g = compile(f)
    for k in range(3):
        batch = types.SimpleNamespace(x=ramp(2, start=float(k)), values=[])
        yield g(batch), batch.values


@falls_back("argument")
def argument_array_written(compile):
    def f(x, array):
        array[0] = 7
        return x * 2

    g = compile(f)
    for _ in range(3):
        array = np.arange(3.0)
        yield g(ramp(3), array), array
