"""Attributes of classes and objects: where they stand, and who changes them between calls."""

import dataclasses
from collections import namedtuple

import tracegrad as tg
from tests.runtime.hazards.registry import Scaled, hazard
from tests.runtime.programs import ramp


@hazard
def class_attribute_changed(compile):
    class Local:
        factor = 2.0

    instance = Local()
    g = compile(lambda x: x * instance.factor)
    yield g(ramp(3))
    Local.factor = 5.0
    yield g(ramp(3))


@hazard
def class_attribute_read_on_the_class_changed(compile):
    class Local:
        factor = 2.0

    g = compile(lambda x: x * Local.factor)
    yield g(ramp(3))
    Local.factor = 5.0
    yield g(ramp(3))


@hazard
def method_of_a_class_replaced(compile):
    class Local:
        def scale(self, x):
            return x * 2

    instance = Local()
    g = compile(lambda x: instance.scale(x))
    yield g(ramp(3))
    Local.scale = lambda self, x: x * 3
    yield g(ramp(3))


@hazard
def method_on_two_instances(compile):
    class Model(Scaled):
        pass

    Model.forward = compile(Model.forward)
    a, b = Model(2.0), Model(5.0)
    x = ramp(2, 3)
    yield a(x)
    yield b(x)
    yield a(x)
    a.scale = 7.0
    yield a(x)
    yield b(x)


@hazard
def plain_method_on_two_instances(compile):
    class Local:
        def __init__(self, factor):
            self.factor = factor
            self.weight = tg.full((3,), factor)

        @compile
        def __call__(self, x):
            return x * self.factor + self.weight

    a, b = Local(2.0), Local(3.0)
    yield a(ramp(3)), b(ramp(3))
    a.factor = 10.0
    yield a(ramp(3)), b(ramp(3))
    b.weight = tg.zeros(3)
    yield a(ramp(3)), b(ramp(3))
    b.weight += 4
    yield a(ramp(3)), b(ramp(3))


@dataclasses.dataclass
class Config:
    width: float = 1.0
    flags: list = dataclasses.field(default_factory=list)


@hazard
def config_replaced(compile):
    m = Scaled()
    m.config = Config()
    g = compile(lambda x: m(x) * m.config.width + len(m.config.flags))
    yield g(ramp(2, 3))
    m.config = dataclasses.replace(m.config, width=2.0)
    yield g(ramp(2, 3))
    m.config.width = 3.0
    yield g(ramp(2, 3))
    m.config.flags.append("a")
    yield g(ramp(2, 3))
    yield g(ramp(2, 3))
    m.config = Config(5.0)
    yield g(ramp(2, 3))


@dataclasses.dataclass(frozen=True)
class Frozen:
    width: float = 1.0


@hazard
def config_as_an_argument(compile):
    g = compile(lambda x, config: x * config.width)
    config = Config()
    yield g(ramp(3), config)
    config.width = 2.0
    yield g(ramp(3), config)
    yield g(ramp(3), Config(4.0))
    yield g(ramp(3), Frozen(5.0))
    yield g(ramp(3), Frozen(6.0))


class Plain:
    def __init__(self, width):
        self.width = width
        self.inner = {"deep": [width]}


@hazard
def plain_object_as_an_argument_mutated(compile):
    g = compile(lambda x, o: x * o.width + o.inner["deep"][0])
    o = Plain(2.0)
    yield g(ramp(3), o)
    o.width = 3.0
    yield g(ramp(3), o)
    o.inner["deep"][0] = 50.0
    yield g(ramp(3), o)
    yield g(ramp(3), Plain(9.0))


@hazard
def module_as_an_argument(compile):
    g = compile(lambda x, m: m(x))
    a, b = Scaled(1.0), Scaled(4.0)
    yield g(ramp(2, 3), a)
    yield g(ramp(2, 3), b)
    a.scale = 9.0
    yield g(ramp(2, 3), a)


@hazard
def slots_object_changed(compile):
    class Slotted:
        __slots__ = ("factor",)

    o = Slotted()
    o.factor = 2.0
    g = compile(lambda x: x * o.factor)
    yield g(ramp(3))
    o.factor = 3.0
    yield g(ramp(3))


@hazard
def property_that_reads_state(compile):
    class Local:
        def __init__(self):
            self._factor = 2.0

        @property
        def factor(self):
            return self._factor * 2

    o = Local()
    g = compile(lambda x: x * o.factor)
    yield g(ramp(3))
    o._factor = 3.0
    yield g(ramp(3))


@hazard
def callable_object_compiled(compile):
    class Local:
        def __init__(self):
            self.factor = 2.0

        def __call__(self, x):
            return x * self.factor

    o = Local()
    g = compile(o)
    yield g(ramp(3))
    o.factor = 5.0
    yield g(ramp(3))


@hazard
def getattr_by_a_changing_name(compile):
    class C:
        pass

    c = C()
    c.a1 = 2.0
    c.a2 = 3.0
    n = 1
    g = compile(lambda x: x * getattr(c, f"a{n}"))
    yield g(ramp(3))
    n = 2
    yield g(ramp(3))
    c.a2 = 7.0
    yield g(ramp(3))


@hazard
def vars_of_an_object(compile):
    class C:
        pass

    c = C()
    c.a = 2.0
    g = compile(lambda x: x * vars(c)["a"] + c.__dict__["a"])
    yield g(ramp(3))
    c.a = 5.0
    yield g(ramp(3))


@hazard
def object_with_getitem(compile):
    class D:
        def __init__(self):
            self._d = {"a": 2.0}

        def __getitem__(self, k):
            return self._d[k]

        def __len__(self):
            return len(self._d)

    d = D()
    g = compile(lambda x: x * d["a"] + len(d))
    yield g(ramp(3))
    d._d["a"] = 5.0
    yield g(ramp(3))
    d._d["b"] = 1
    yield g(ramp(3))


@hazard
def namedtuple_replaced(compile):
    T = namedtuple("T", "a b")
    t = T(1.0, [2.0])
    g = compile(lambda x: x * t.a + t.b[0])
    yield g(ramp(3))
    t.b[0] = 5.0
    yield g(ramp(3))
    t = T(3.0, [1.0])
    yield g(ramp(3))


@hazard
def attribute_that_appears(compile):
    m = tg.nn.Linear(3, 3)
    g = compile(lambda x: m(x) if not hasattr(m, "extra") else m(x) * m.extra)
    yield g(ramp(2, 3))
    m.extra = 5.0
    yield g(ramp(2, 3))
    del m.extra
    yield g(ramp(2, 3))


@hazard
def loss_object_changed(compile):
    crit = tg.nn.CrossEntropyLoss(label_smoothing=0.1)
    g = compile(lambda o, y: crit(o, y))
    yield g(ramp(4, 3), tg.arange(4) % 3)
    crit.label_smoothing = 0.3
    yield g(ramp(4, 3), tg.arange(4) % 3)


@hazard
def attributes_of_tensors(compile):
    w = tg.nn.Parameter(ramp(3))
    w.scale = 2.0
    g = compile(lambda x: w * x * w.scale)
    yield g(ramp(3))
    w.scale = 5.0
    yield g(ramp(3))


@hazard
def attribute_stored_on_an_argument(compile):
    class M(tg.nn.Module):
        def __init__(s):
            super().__init__()
            s.seen = None

        def forward(s, x):
            s.seen = x.mean()
            return x

    a, b = M(), M()
    g = compile(lambda m, x: m(x))
    for k in range(2):
        yield g(a, ramp(3, start=float(k))), a.seen
        yield g(b, ramp(3, start=float(k))), b.seen


@hazard
def one_name_on_two_objects(compile):
    a, b = Plain(1.0), Plain(2.0)

    def f(x):
        a.last, b.last = x * a.width, x * b.width
        return x

    g = compile(f)
    for k in range(3):
        yield g(ramp(3, start=float(k))), a.last, b.last
