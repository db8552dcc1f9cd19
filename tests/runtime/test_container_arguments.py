"""Batches in containers of the user's: known by their content, unless the function needs the object."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import types
import warnings
from typing import Any

import pytest

import tracegrad as tg
from tests.runtime.programs import BACKENDS, agree, ramp


@dataclasses.dataclass
class Data:
    x: Any
    y: Any
    scale: Any = 1.0


@dataclasses.dataclass(frozen=True)
class FrozenData:
    x: Any
    y: Any
    scale: Any = 1.0


@dataclasses.dataclass(slots=True)
class SlottedData:
    x: Any
    y: Any
    scale: Any = 1.0


class Batch:
    """As a collate function makes it."""

    def __init__(self, x, y, scale=1.0):
        self.x, self.y, self.scale = x, y, scale
        self.lengths = [1, 2]

    def total(self):
        return self.x.sum() + self.lengths[0]


class Table(dict):
    def __init__(self, x, y, scale=1.0):
        super().__init__(x=x, y=y, scale=scale)

    def __getattr__(self, name):
        return self[name]


class Ordered(collections.OrderedDict):
    def __init__(self, x, y, scale=1.0):
        super().__init__(x=x, y=y, scale=scale)

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Encoding(collections.UserDict):
    def __init__(self, x, y, scale=1.0):
        super().__init__({"x": x, "y": y, "scale": scale})

    def __getattr__(self, name):
        try:
            return self.data[name]
        except KeyError:
            raise AttributeError(name) from None


def namespace(x, y, scale=1.0):
    return types.SimpleNamespace(x=x, y=y, scale=scale)


def options(x, y, scale=1.0):
    return argparse.Namespace(x=x, y=y, scale=scale)


KINDS = [Data, FrozenData, SlottedData, Batch, Table, Ordered, Encoding, namespace, options]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", KINDS)
def test_a_new_batch_for_each_call(make, backend):
    model = tg.nn.Linear(3, 1)

    def program(compile):
        g = compile(lambda b: (model(b.x) * b.y).sum() * b.scale)
        for k in range(6):
            model.weight.grad = None
            loss = g(make(ramp(2, 3, start=float(k)), ramp(2, 1)))
            loss.backward()
            yield loss, model.weight.grad
        for scale in (2.0, 2, 2.0):
            yield g(make(ramp(2, 3), ramp(2, 1), scale))

    (compiled,) = agree(program, backend)
    assert compiled.stats()["recordings"] == 3
    assert "scale" in compiled.why() and ": 1.0 -> 2.0" in compiled.why()


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_the_key_tells_apart(backend):
    class Other(Data):
        def __repr__(self):
            return "other"

    def f(b):
        total = b.x.sum() * (2 if b.y is None else 3) * (5 if type(b) is Other else 7)
        for name, value in sorted(vars(b).items()):
            total = total + len(name) * (value if isinstance(value, int) else 0)
        return total * (11 if b.x is b.y else 13)

    def program(compile):
        g = compile(f)
        for _ in range(2):
            x = ramp(3)
            yield g(Data(x, ramp(3))), g(Data(ramp(3), None)), g(Other(ramp(3), None))
            yield g(Data(x, x)), g(Data(ramp(3), [ramp(2), 4])), g(Data(ramp(3), 1, True))
            more = Data(ramp(3), 1, 1)
            more.further = 2
            yield g(more), g(Data(ramp(3), 1, 1)), g(Data(ramp(4), None))

    (compiled,) = agree(program, backend)
    assert compiled.stats()["recordings"] == 9


def changed(b):
    b.x = b.x * 2
    return b.x.sum()


def kept(b):
    kept.last = b
    return b.x * 2


def returned(b):
    return b, b.x * 2


def returned_inside(b):
    return {"batch": [b], "x": b.x * 2}


def deleted(b):
    x = b.x
    del b.x
    return x * 2


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("function", [changed, kept, returned, returned_inside, deleted])
@pytest.mark.parametrize("make", [Data, SlottedData, Batch, namespace])
def test_where_the_object_itself_matters(make, function, backend):
    kept.last = None

    def program(compile):
        g = compile(function)
        for k in range(3):
            b = make(ramp(3, start=float(k)), ramp(2))
            result = g(b)
            yield hasattr(b, "x") and b.x, kept.last is b
            if function is returned:
                yield result[0] is b, result[1]
            elif function is returned_inside:
                yield result["batch"][0] is b, result["x"]
            else:
                yield result

    with warnings.catch_warnings():
        if make is namespace:  # its attributes cannot be watched
            warnings.filterwarnings("ignore", message="(.|\n)*an argument .* is changed")
        agree(program, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_that_the_function_reaches_by_itself(backend):
    batches = [Data(ramp(3, start=float(k)), ramp(3)) for k in range(3)]

    def program(compile):
        g = compile(lambda b: b.x * (2 if b is batches[0] else 3) + batches[0].x)
        for b in batches:
            yield g(b), g(Data(ramp(3), ramp(3)))

    agree(program, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_containers_in_containers(backend):
    def f(pair):
        inner = pair["b"].x
        return inner.x.sum() * inner.scale + pair["b"].y[0] + sum(pair["b"].scale.widths)

    def program(compile):
        g = compile(f)
        for k in range(4):
            config = types.SimpleNamespace(widths=[1, 2])
            inner = FrozenData(ramp(3, start=float(k)), None, 2.0)
            yield g({"b": Data(inner, [ramp(1), "text"], config)})

    (compiled,) = agree(program, backend)
    assert compiled.stats()["recordings"] == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_methods_and_class_attributes_of_a_batch(backend):
    def program(compile):
        class Scaled(Batch):
            factor = 2.0

            def total(self):
                return super().total() * self.factor

        g = compile(lambda b: b.total())
        yield g(Scaled(ramp(3), None)), g(Scaled(ramp(3) * 2, None))
        Scaled.factor = 5.0
        yield g(Scaled(ramp(3), None)), g(Scaled(ramp(3) * 2, None))
        Scaled.total = lambda self: self.x
        yield g(Scaled(ramp(3), None)), g(Scaled(ramp(3) * 2, None))

    (compiled,) = agree(program, backend)
    assert compiled.stats()["recordings"] == 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_method_whose_self_holds_tensors(backend):
    def program(compile):
        class Ema:
            def __init__(self):
                self.mean, self.count = tg.zeros(3), 0

            def update(self, x):
                self.mean = self.mean * 0.9 + x * 0.1
                return self.mean.sum()

        Ema.update = compile(Ema.update)
        a, b = Ema(), Ema()
        for k in range(4):
            yield a.update(ramp(3) * k), b.update(ramp(3)), a.mean, b.mean

    (compiled,) = agree(program, backend)
    assert compiled.stats()["recordings"] <= 4


def test_an_argument_that_holds_itself():
    batch = types.SimpleNamespace(x=ramp(3))
    batch.me = batch
    g = tg.compile(lambda b: b.me.me.x * 2)
    assert g(batch).tolist() == g(batch).tolist() == (ramp(3) * 2).tolist()
