"""What a function makes and returns or keeps is new at every call; what it was given is this call's."""

import collections
import dataclasses
import functools
import types
from typing import Any

import numpy as np

import tracegrad as tg
from tests.runtime.hazards.registry import hazard
from tests.runtime.programs import ramp


@dataclasses.dataclass
class Output:
    value: Any
    extra: Any = None


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    value: Any
    extra: Any = None


class Holder:
    last = None


class Labelled(collections.OrderedDict):
    """As the outputs of large libraries: items are attributes too."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.label = "made"

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Pair(tuple):
    def total(self):
        return self[0] + self[1]


class Items(list):
    pass


class Table(dict):
    pass


class Window(collections.deque):
    pass


@hazard
def new_object_that_holds_an_argument(compile):
    g = compile(lambda x: Output(x))
    h = compile(lambda x: (Output(x, [x]), x * 2))
    for k in range(3):
        x = ramp(3, start=float(k))
        alone, (beside, double) = g(x), h(x)
        yield alone.value is x, beside.value is x, beside.extra[0] is x, double


@hazard
def new_set_and_keys_that_are_an_argument(compile):
    g = compile(lambda x: ({x}, frozenset([x]), {x: "x"}, {x * 2}))
    for k in range(3):
        x = ramp(3, start=float(k))
        one, frozen, keys, (double,) = g(x)
        yield x in one, x in frozen, keys[x], len(one), double


@hazard
def new_object_kept_under_a_name(compile):
    holder = Holder()

    def f(x):
        holder.last = Output(x, x * 2)
        return x + 1

    g = compile(f)
    for k in range(3):
        x = ramp(3, start=float(k))
        g(x)
        yield holder.last.value is x, holder.last.extra


@hazard
def new_partial_and_method_that_hold_an_argument(compile):
    class Adder:
        def __init__(self, x):
            self.x = x

        def add(self, y):
            return self.x + y

    g = compile(lambda x: functools.partial(tg.add, x))
    h = compile(lambda x: Adder(x).add)
    i = compile(lambda x: Adder(x * 2).add)
    for k in range(3):
        x = ramp(3, start=float(k))
        yield g(x)(tg.ones(3)), h(x)(1), i(x)(1)


@hazard
def new_mutable_results_are_nobody_elses(compile):
    def f(x):
        table = np.zeros((2, 2))
        return x, Output([], {}), {1, 2}, table, bytearray(b"ab"), np.arange(6).reshape(2, 3)

    g = compile(f)
    for k in range(3):
        _, made, numbers, array, text, view = g(ramp(3))
        made.value.append(k)
        made.extra[k] = 1
        numbers.add(k + 5)
        array += k
        view[0] = k
        text.append(k)
        yield made.value, made.extra, sorted(numbers), array.tolist(), bytes(text), view.tolist()


@hazard
def new_objects_that_hold_themselves_or_each_other(compile):
    def f(x):
        node = Output(x * 2)
        node.extra = [node, Holder()]
        node.extra[1].last = node.extra
        ring = [x]
        ring.append(ring)
        pair = [x * 3]
        return node, ring, pair, {"pair": pair}

    g = compile(f)
    for k in range(3):
        x = ramp(3, start=float(k))
        node, ring, pair, named = g(x)
        yield node.extra[0] is node, node.extra[1].last is node.extra, node.value
        yield ring[1] is ring, ring[0] is x, named["pair"] is pair, pair


@hazard
def a_new_container_returned_and_kept_is_one(compile):
    holder = Holder()

    def f(x):
        holder.last = log = [x * 2]
        return log, Output(log)

    g = compile(f)
    for k in range(3):
        log, made = g(ramp(3, start=float(k)))
        log.append(k)
        yield holder.last is log is made.value, log


@hazard
def classes_of_containers_and_slots(compile):
    def f(x):
        y = x * 2
        table, items = Table(y=y), Items([y])
        table.note = "of a dict"
        items.note = x
        named = collections.defaultdict(list)
        named["y"].append(y)
        window = Window([x, y, x], 2)
        return (
            Labelled(loss=y.sum(), logits=y), table, items, Pair((x, y)), window, Frozen(y, [x]),
            types.SimpleNamespace(y=y, x=x), collections.Counter(a=2, y=y), named, collections.UserDict(y=y),
        )  # fmt: skip

    g = compile(f)
    for k in range(3):
        x = ramp(3, start=float(k))
        labelled, table, items, pair, window, frozen, space, counter, named, wrapped = found = g(x)
        yield [type(each).__name__ for each in found], list(labelled), labelled.label
        yield labelled.loss, labelled["logits"], table["y"], table.note, items[0], items.note is x
        yield pair.total(), list(window), window.maxlen, frozen.value, frozen.extra[0] is x
        yield space.y, space.x is x, counter["y"], counter["none"], named["y"], named["new"]
        yield wrapped["y"], wrapped.data is not g(x)[9].data


@hazard
def containers_from_outside_are_returned_as_they_are(compile):
    layers, config = [ramp(3), ramp(3) * 2], {"scale": 1.0, "names": ["a"]}
    holder = Holder()

    def f(x):
        holder.last = config["names"]
        return x * config["scale"], layers, config

    g = compile(f)
    for k in range(4):
        y, returned, settings = g(ramp(3))
        yield y, returned is layers, settings is config, holder.last is config["names"]
        if k == 1:
            settings["scale"] = 2.0
            returned.append(ramp(2))
    config = dict(config)  # equal content, another object
    yield g(ramp(3))[2] is config


@hazard
def arguments_are_returned_and_kept_as_they_are(compile):
    holder = Holder()

    def f(batch, array, frozen):
        holder.last = batch
        return batch, batch["rows"], Output(batch["rows"], array), frozen

    g = compile(f)
    for k in range(3):
        batch = {"x": ramp(3), "rows": [ramp(2), k > 5]}
        array, frozen = np.arange(3), Frozen(1.0, "a")
        same, rows, made, settings = g(batch, array, frozen)
        yield same is batch is holder.last, rows is batch["rows"] is made.value
        yield made.extra is array, settings is frozen


@hazard
def gradient_in_a_new_object_is_the_one_of_the_parameter(compile):
    w, holder = ramp(3).requires_grad_(), Holder()

    def f(x):
        (w * x).sum().backward()
        holder.last = w.grad
        return Output(w.grad)

    g = compile(f)
    for k in range(3):
        w.grad = None
        made = g(ramp(3, start=float(k)))
        yield made.value is w.grad is holder.last, w.grad.tolist()


@hazard
def what_a_partial_holds_is_returned_as_it_is(compile):
    holder, scales = Holder(), [1.0]
    holder.last = 2.0
    g = compile(functools.partial(lambda o, s, x: (x * o.last * s[0], o, s), holder, scales))
    for k in range(3):
        y, same, found = g(ramp(3))
        yield y, same is holder, found is scales
        if k == 1:
            holder.last, scales[0] = 3.0, 5.0


@hazard
def leaf_made_inside_and_returned(compile):
    w = tg.nn.Parameter(ramp(3, start=0.5))

    def attack(image):
        image = image.detach().clone().requires_grad_()
        (w * image).square().sum().backward()
        fresh = tg.ones(3, requires_grad=True)
        return image, image.grad, fresh

    g = compile(attack)
    for _ in range(2):
        image, gradient, fresh = g(ramp(3))
        yield image, gradient, image.is_leaf, image.requires_grad, fresh.is_leaf
        (fresh * image).sum().backward()
        yield fresh.grad, image.grad, w.grad
