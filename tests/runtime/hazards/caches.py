"""Caches that a function fills at its first call: functools.lru_cache, and dicts by hand."""

import functools

import tracegrad as tg
from tests.runtime.hazards.registry import hazard
from tests.runtime.programs import ramp


@hazard
def mask_under_lru_cache(compile):
    @functools.lru_cache
    def mask(n, *, dtype=tg.float32):
        return tg.tril(tg.ones(n, n, dtype=dtype))

    def attend(x):
        return (x @ x.T * mask(x.shape[0], dtype=x.dtype)).sum()

    g = compile(attend)
    yield g(ramp(4, 2)), attend(ramp(4, 2)), g(ramp(4, 2))
    yield g(ramp(4, 3)), g(ramp(3, 3)), attend(ramp(3, 3))
    mask(4, dtype=tg.float32).mul_(3)
    yield g(ramp(4, 2)), attend(ramp(4, 2))
    mask.cache_clear()
    yield g(ramp(4, 2)), attend(ramp(4, 2)), mask.cache_info().currsize
    mask.cache_clear()
    yield attend(ramp(4, 2)), g(ramp(4, 2))


@hazard
def mask_cached_before_the_first_call(compile):
    @functools.cache
    def mask(n):
        return tg.ones(n) * 2

    g = compile(lambda x: x * mask(3))
    kept = mask(3).mul_(5)
    yield g(ramp(3))
    mask.cache_clear()
    yield g(ramp(3)), kept


@hazard
def tables_under_lru_cache_in_a_model(compile):
    class Rotary(tg.nn.Module):
        def __init__(self, width):
            super().__init__()
            self.width = width
            self.norm = tg.nn.BatchNorm1d(width)  # writes its statistics before the table is made

        @functools.lru_cache(maxsize=4)  # noqa: B019
        @tg.no_grad()
        def table(self, n):
            return tg.stack([frequency(k, self.width) for k in range(n)])

        def forward(self, x):
            return self.norm(x) * self.table(x.shape[0])

    @functools.cache
    def frequency(k, width):
        return tg.cos(k / 10.0 ** (tg.arange(width) / width))

    m = Rotary(4)
    g = compile(m)
    for n in (2, 3, 2, 5, 3):
        yield g(ramp(n, 4)), m.norm.running_mean, m(ramp(n, 4))
    m.width = 2
    m.table.cache_clear()
    yield m.table(2)


@hazard
def cached_values_of_a_weight(compile):
    """As without compiling, the cache keeps what the weight was."""
    w = tg.nn.Parameter(ramp(3))

    @functools.cache
    def scale():
        return w.detach().sum().item()

    def f(x):
        y = x * scale()
        with tg.no_grad():
            w.add_(1)
        return y

    g = compile(f)
    for _ in range(3):
        yield g(ramp(3)), w


@hazard
def numbers_drawn_into_a_cache_first(compile):
    @functools.cache
    def noise(n):
        return tg.rand(n)

    g = compile(lambda x: x * noise(3) + tg.rand(3))
    for _ in range(3):
        yield g(ramp(3)), tg.rand(2)


@hazard
def cache_in_a_dict(compile):
    cache = {}

    def table(n):
        if n not in cache:
            cache[n] = tg.arange(n) * 2.0
        return cache[n]

    def f(x):
        return x + table(x.shape[0])

    g = compile(f)
    yield g(ramp(3)), g(ramp(3)), g(ramp(4)), f(ramp(3)), list(cache)
    cache[3] = tg.zeros(3)
    yield g(ramp(3)), f(ramp(3))
    cache.clear()
    yield f(ramp(4)), g(ramp(3)), g(ramp(4)), list(cache), cache[3]


@hazard
def cache_in_a_module(compile):
    class Positions(tg.nn.Module):
        shared = {}

        def __init__(self):
            super().__init__()
            self.tables = {"sin": {}, "cos": {}}

        def forward(self, x):
            n = x.shape[1]
            for name, table in self.tables.items():
                if (n, x.dtype) not in table:
                    table[n, x.dtype] = getattr(tg, name)(tg.arange(n, dtype=x.dtype))
                x = x + table[n, x.dtype]
            self.shared.setdefault(n, []).append(1) if n not in self.shared else None
            return x * len(self.shared)

    m = Positions()
    g = compile(m)
    for _ in range(3):
        for n in range(1, 7):
            yield g(ramp(2, n)), m(ramp(2, n)), sorted(m.shared)
    m.tables["sin"][3, tg.float32] = tg.zeros(3)
    yield g(ramp(2, 3))


@hazard
def first_call_that_differs(compile):
    """What fills the cache also computes: the first call is no other than without compiling."""
    seen = {}

    def f(x):
        if "warm" not in seen:
            seen["warm"] = x * 1
            x = x + 100
        return x + seen["warm"]

    g = compile(f)
    yield g(ramp(3)), g(ramp(3) * 2), seen["warm"]
    seen.clear()
    yield g(ramp(3) * 3), g(ramp(3) * 2), seen["warm"]


@hazard
def cache_of_what_requires_grad(compile):
    w = tg.nn.Parameter(ramp(3))
    cache = {}

    def f(x):
        if "w" not in cache:
            cache["w"] = (w * 2).detach()
        return (x * w * cache["w"]).sum()

    g = compile(f)
    for _ in range(3):
        w.grad = None
        g(ramp(3)).backward()
        yield w.grad, cache["w"]
