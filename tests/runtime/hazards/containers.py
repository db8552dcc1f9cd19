"""Lists, dicts, sets and NumPy arrays that change between calls."""

import numpy as np

import tracegrad as tg
from tests.runtime.hazards.registry import Scaled, hazard, linear
from tests.runtime.programs import ramp


@hazard
def list_attribute_mutated(compile):
    m = Scaled()
    g = compile(m)
    x = ramp(2, 3)
    yield g(x)
    m.steps.append(5.0)
    yield g(x)
    m.steps[0] = -1.0
    yield g(x)
    m.steps.clear()
    yield g(x)


@hazard
def dict_attribute_mutated(compile):
    m = Scaled()
    g = compile(m)
    x = ramp(2, 3)
    yield g(x)
    m.options["shift"] = 2.5
    yield g(x)
    m.options = {"shift": 1.5}
    yield g(x)


@hazard
def set_attribute_mutated(compile):
    class Local:
        enabled = {"shift"}

    o = Local()
    g = compile(lambda x: x + 1 if "shift" in o.enabled else x)
    yield g(ramp(3))
    o.enabled.discard("shift")
    yield g(ramp(3))


@hazard
def deep_containers_mutated(compile):
    tree = {"a": [{"b": [{"c": [1.0]}]}]}
    g = compile(lambda x: x * tree["a"][0]["b"][0]["c"][0])
    yield g(ramp(3))
    tree["a"][0]["b"][0]["c"][0] = 4.0
    yield g(ramp(3))


@hazard
def long_list_mutated(compile):
    values = [1.0] * 3000
    g = compile(lambda x: x * values[2500])
    yield g(ramp(3))
    values[2500] = 4.0
    yield g(ramp(3))


@hazard
def numpy_constant_mutated(compile):
    constant = np.ones(3, np.float32)
    g = compile(lambda x: x * constant)
    yield g(ramp(3))
    constant[1] = 5
    yield g(ramp(3))
    constant *= 2
    yield g(ramp(3))


@hazard
def large_numpy_constant_mutated(compile):
    constant = np.ones(40_000, np.float32)
    g = compile(lambda x: (x * constant).sum())
    yield g(ramp(40_000))
    constant[100:] = 5
    yield g(ramp(40_000))
    constant = np.zeros(40_000, np.float32)
    yield g(ramp(40_000))


@hazard
def large_numpy_argument_mutated(compile):
    weights = np.ones(40_000, np.float32)
    g = compile(lambda x, w: (x * w).sum())
    yield g(ramp(40_000), weights)
    weights[7:] = 3
    yield g(ramp(40_000), weights)


@hazard
def numpy_constant_in_an_attribute_mutated(compile):
    m = Scaled()
    m.table = np.ones(3, np.float32)
    g = compile(lambda x: m(x) * m.table)
    yield g(ramp(2, 3))
    m.table[0] = 9
    yield g(ramp(2, 3))


@hazard
def numpy_scalar_read_from_an_array(compile):
    schedule = np.linspace(0, 1, 5)
    at = 0
    g = compile(lambda x: x * float(schedule[at]))
    for at in range(3):  # noqa: B007
        yield g(ramp(3))
    schedule[2] = 11.0
    yield g(ramp(3))


@hazard
def tensor_constant_mutated(compile):
    constant = tg.ones(3)
    g = compile(lambda x: x * constant)
    yield g(ramp(3))
    constant[1] = 5
    yield g(ramp(3))
    constant.numpy()[2] = 7
    yield g(ramp(3))
    constant = tg.zeros(3)
    yield g(ramp(3))


@hazard
def subclass_of_dict(compile):
    class D(dict):
        def __getattr__(self, k):
            return self[k]

    d = D(a=2.0)
    g = compile(lambda x: x * d.a)
    yield g(ramp(3))
    d["a"] = 5.0
    yield g(ramp(3))


@hazard
def tensors_as_dictionary_keys(compile):
    w = tg.nn.Parameter(ramp(3))
    table = {w: 2.0}
    g = compile(lambda x: x * table[w])
    yield g(ramp(3))
    table[w] = 5.0
    yield g(ramp(3))


@hazard
def set_of_parameters(compile):
    a, b = linear(), linear()
    ps = set(a.parameters())
    g = compile(lambda x: sum(p.sum() for p in ps) * 0 + len(ps) + x)
    yield g(ramp(2))
    ps.update(b.parameters())
    yield g(ramp(2))


@hazard
def table_with_tensors_as_keys(compile):
    ws = [tg.nn.Parameter(ramp(3)) for _ in range(3)]
    lr = {w: float(k) for k, w in enumerate(ws)}
    g = compile(lambda x: sum(w * x * lr[w] for w in ws))
    yield g(ramp(3))
    lr[ws[0]] = 5.0
    yield g(ramp(3))
    ws.append(tg.nn.Parameter(ramp(3)))
    lr[ws[3]] = 2.0
    yield g(ramp(3))


@hazard
def tensor_as_a_dictionary_key_by_value(compile):
    table = {0: 10.0, 1: 20.0}
    g = compile(lambda x, k: x * table[k.item()])
    yield g(ramp(3), tg.tensor(0))
    yield g(ramp(3), tg.tensor(1))
    table[1] = 30.0
    yield g(ramp(3), tg.tensor(1))


@hazard
def membership_in_a_list(compile):
    a, b = ramp(3), ramp(3)
    g = compile(lambda x: (0.0 in x, any(x is t for t in (a, b))))
    yield g(a)
    yield g(b + 1)
    yield g(b)


@hazard
def equal_numbers_of_other_types_as_keys_and_items(compile):
    numbers = (1, True, 1.0, 0.0, -0.0, 0, False)
    table, items, pairs = {}, set(), set()
    by_key = compile(lambda x: (x * next(iter(table)), 1 / (tg.ones(1) * next(iter(table)))))
    by_item = compile(lambda x: x * next(iter(items)))
    by_pair = compile(lambda x: x * next(iter(pairs))[0])
    for number in numbers:
        table.clear(), items.clear(), pairs.clear()
        table[number] = None
        items.add(number)
        pairs.add((number,))
        x = tg.arange(3)
        for _ in range(2):
            yield by_key(x), by_item(x), by_pair(x)
