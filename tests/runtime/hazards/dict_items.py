"""Items of dicts from outside: bound anew, read before that or not, in dicts that are replaced."""

import tracegrad as tg
from tests.runtime.hazards.registry import hazard, linear
from tests.runtime.programs import ramp


class Holder:
    """An object of the user's, with attributes only."""

    def __init__(self, **fields):
        vars(self).update(fields)


@hazard
def averages_in_a_dict(compile):
    m = linear()
    average = Holder(shadow={name: p.detach().clone() for name, p in m.named_parameters()})

    def step(x):
        m(x).square().mean().backward()
        with tg.no_grad():
            for name, p in m.named_parameters():
                p -= 0.1 * p.grad
                p.grad = None
                average.shadow[name] = average.shadow[name] * 0.9 + p * 0.1
        return x.sum()

    g = compile(step)
    for k in range(7):
        if k == 3:
            before = dict(average.shadow)
            average.shadow["weight"] = tg.zeros(1, 3)
        if k == 5:
            average.shadow = before  # another dict, with tensors like those
        g(ramp(2, 3))
        yield list(average.shadow.values()), list(before.values()) if k > 2 else []


@hazard
def losses_kept_in_a_dict(compile):
    losses = {}

    def f(x):
        losses["last"] = x.sum()
        return losses["last"] * 2

    g = compile(f)
    for k in range(4):
        yield g(ramp(3, start=float(k))), losses


@hazard
def results_logged_in_a_dict(compile):
    log = {"runs": [{}]}

    def f(x):
        log["runs"][0]["mean"] = x.mean()
        log["name"] = "f"
        return x * 2

    g = compile(f)
    for k in range(6):
        if k == 4:
            log["runs"][0] = {"mean": tg.ones(())}
        if k == 5:
            log["name"] = "g"
        g(ramp(3, start=float(k)))
        yield log["runs"][0]["mean"], log["name"]


@hazard
def the_item_that_was_there_is_handed_out(compile):
    state = {"h": tg.zeros(3)}

    def f(x):
        before = state["h"]
        state["h"] = x + 1
        return before

    g = compile(f)
    for k in range(5):
        yield g(ramp(3, start=float(k))), state["h"]


@hazard
def a_filled_cache_is_replaced(compile):
    o = Holder(cache={})

    def f(x):
        if "k" not in o.cache:
            o.cache["k"] = x * 2
        return o.cache["k"] + x

    g = compile(f)
    for k in range(6):
        if k in (1, 3):
            o.cache = {}
        yield g(ramp(3, start=float(k))), list(o.cache)


@hazard
def a_name_bound_anew_and_a_list_begin_with_one_tensor(compile):
    o = Holder(h=tg.zeros(3))
    seen, named = [o.h], {"first": o.h}

    def f(x):
        o.h = o.h + x
        return o.h, seen[0] * 1, named["first"] + 0

    g = compile(f)
    for k in range(4):
        yield g(ramp(3, start=float(k)))


@hazard
def two_items_begin_with_one_tensor(compile):
    start = tg.zeros(3)
    state = {"a": start, "b": start}

    def f(x):
        state["a"] = state["a"] + x
        state["b"] = state["b"] - x
        return state["a"] * state["b"]

    g = compile(f)
    for k in range(5):
        yield g(ramp(3, start=float(k))), state["a"], state["b"]


@hazard
def an_item_is_an_argument_too(compile):
    state = {"h": tg.zeros(3)}

    def f(x):
        state["h"] = state["h"] + x
        return state["h"] * 2

    g = compile(f)
    for k in range(6):
        yield g(state["h"] if k in (2, 3) else ramp(3, start=float(k))), state["h"]
