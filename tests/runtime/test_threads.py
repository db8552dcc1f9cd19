"""Compiled functions called from several threads."""

import threading

import numpy as np
import pytest

import tracegrad as tg
from tests.runtime.programs import BACKENDS
from tracegrad.runtime.watch import attributes
from tracegrad.tracer.observed import Observed
from tracegrad.tracer.trace.recording import Trace


def in_four_threads(work):
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_that_update_one_state(backend):
    total = tg.zeros(1000)

    def f(x):
        total.add_(x)
        return total.sum()

    g = tg.compile(f, backend=backend)
    g(tg.zeros(1000))

    def work():
        for _ in range(50):
            g(tg.ones(1000))

    in_four_threads(work)
    assert (total == 200).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_that_branch_on_what_they_update_and_draw(backend):
    """A segment runs before the last program writes: between the two no other thread may."""
    total = tg.zeros(1000)

    def f(x):
        total.add_(x)
        noise = tg.rand(4)
        while noise.sum() > 1.5:
            noise = tg.rand(4)
        return noise if total.sum() > 0 else noise + 1

    g = tg.compile(f, backend=backend, max_paths=64)
    for _ in range(40):
        g(tg.zeros(1000))
    total.zero_()
    drawn = []

    def work():
        for _ in range(50):
            drawn.append(tuple(g(tg.ones(1000)).tolist()))

    in_four_threads(work)
    assert (total == 200).all()
    assert len(set(drawn)) == 200


def test_threads_record_different_functions_at_once():
    """Attribute hooks are for recording threads only; eager code in others is not disturbed."""
    model = tg.nn.Linear(4, 4)
    x = tg.ones(2, 4)
    expected = model(x).detach().numpy()
    failures = []

    def record(k):
        try:
            for n in range(5):
                f = tg.compile(lambda x, k=k, n=n: model(x) * (k + n))
                np.testing.assert_allclose(
                    f(x).detach().numpy(), expected * (k + n), rtol=1e-5, atol=1e-6
                )
        except BaseException as error:
            failures.append(error)

    def eager():
        try:
            for _ in range(100):
                np.testing.assert_array_equal(model(x).detach().numpy(), expected)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=record, args=(k,)) for k in (1, 2, 3)]
    threads.append(threading.Thread(target=eager))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    assert "__getattribute__" not in vars(tg.tracer.Observed)


def test_threads_that_meet_at_the_first_call_record_once():
    g = tg.compile(lambda x: x * 2)
    together = threading.Barrier(4)
    arrived = threading.local()

    class AllHere:
        """The lock of recordings, which nobody gets before every thread has looked in vain."""

        lock = g._lock

        def __enter__(self):
            if not hasattr(arrived, "once"):
                arrived.once = True
                together.wait()
            self.lock.acquire()

        def __exit__(self, *error):
            self.lock.release()

    g._lock = AllHere()
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(g(tg.ones(2)).tolist())) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[2.0, 2.0]] * 4
    assert g.stats()["recordings"] == 1


def test_threads_that_meet_at_a_call_that_cannot_be_recorded_warn_once():
    seen = []

    def f(x):
        seen.append(1)
        return x * 2

    g = tg.compile(f)
    ready = threading.Barrier(3)
    found = []

    def work():
        ready.wait()
        found.append(g(tg.ones(2)).tolist())

    with pytest.warns(UserWarning, match="runs eagerly") as warned:
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [[2.0, 2.0]] * 3 and len(warned) == 1


def test_hooks_are_not_taken_away_between_two_steps_of_another_recording(monkeypatch):
    """One recording ends while another puts its hooks in."""
    first = attributes.AttributeWatch(Trace())
    first.install()
    inside, gone = threading.Event(), threading.Event()

    class Slow(list):
        def __contains__(self, watch):
            if threading.current_thread() is threading.main_thread() and not inside.is_set():
                inside.set()
                gone.wait(0.3)
            return super().__contains__(watch)

    users = {cls: Slow(users) for cls, users in attributes._hooked.items()}
    monkeypatch.setattr(attributes, "_hooked", users)

    def end():
        inside.wait()
        first.uninstall()
        gone.set()

    ending = threading.Thread(target=end)
    ending.start()
    second = attributes.AttributeWatch(Trace())
    second.install()
    ending.join()
    assert attributes._hooked[Observed] == [second]
    assert "__getattribute__" in vars(Observed)
    second.uninstall()
    assert "__getattribute__" not in vars(Observed)
