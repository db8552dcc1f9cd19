"""A compiled function keeps a bounded number of executables; one that was dropped is made again."""

import tracegrad as tg
from tracegrad.runtime.paths import lowering
from tracegrad.tracer.eager.program import LRU


def test_what_was_dropped_is_compiled_anew(backend, monkeypatch):
    f = tg.compile(lambda x: (x * 2 + x.shape[0]).tanh().sum(), backend=backend)
    monkeypatch.setattr(f._compiler, "_cache", LRU(2))
    sizes = list(range(1, 9))
    for _ in range(2):
        for size in sizes:
            x = tg.ones(size, requires_grad=True)
            expected = (x * 2 + size).tanh().sum()
            found = f(x)
            found.backward()
            assert tg.allclose(found, expected)
            assert x.grad.shape == (size,)
    assert len(f._compiler._cache) + len(f._compiler._cache.old) <= 4
    assert f.stats()["recordings"] == len(sizes)  # each recording holds what it runs


def test_the_bound_is_of_executables():
    assert lowering.Compiler("numpy", {})._cache.size == lowering.CACHE_SIZE
