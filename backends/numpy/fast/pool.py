"""A small pool of persistent threads with a cheap hand-off (two lock operations a worker).

    run_parallel(fn, n)        # fn(0), ..., fn(n - 1), spread over the caller and the workers

Threads help where chunks spend their time in NumPy loops or BLAS, which release the interpreter
lock. A hand-off costs about ten microseconds: give it no work below a hundred.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import numpy as np

Task = Callable[[int], object]


def cpu_count() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Worker:
    """One daemon thread that sleeps on a lock until a job is posted."""

    def __init__(self, index: int):
        self.start, self.done = threading.Lock(), threading.Lock()
        self.start.acquire()
        self.done.acquire()
        self.job: Callable[[], None] = _nothing
        threading.Thread(target=self._run, name=f"tracegrad-{index}", daemon=True).start()

    def _run(self) -> None:
        # error state is per thread: without this a worker would warn where the caller does not
        np.seterr(all="ignore")
        while True:
            self.start.acquire()
            job, self.job = self.job, _nothing
            job()
            del job  # its buffers must not outlive the call
            self.done.release()


def _nothing() -> None:
    return None


class Pool:
    """`threads` counts the calling thread: a pool of 1 runs everything in the caller."""

    def __init__(self, threads: int):
        if threads < 1:
            raise ValueError(f"a pool needs at least one thread, {threads} were asked for")
        self.threads = threads
        self._workers = [_Worker(index) for index in range(threads - 1)]
        self._busy = threading.Lock()

    def run(self, fn: Task, n_chunks: int) -> None:
        """Call fn(k) for every k below n_chunks, in no order; return when all have returned.

        The first exception is raised again in the caller, after every thread has stopped; chunks
        not yet begun are dropped. A call from inside a chunk, or while another thread has the pool,
        runs alone.
        """
        helpers = min(len(self._workers), n_chunks - 1)
        if helpers <= 0 or not self._busy.acquire(blocking=False):
            for chunk in range(n_chunks):
                fn(chunk)
            return
        try:
            self._share(fn, n_chunks, helpers)
        finally:
            self._busy.release()

    def _share(self, fn: Task, n_chunks: int, helpers: int) -> None:
        remaining = iter(range(n_chunks))  # next() on it is atomic under the interpreter lock
        errors: list[BaseException] = []

        def work() -> None:
            try:
                for chunk in remaining:
                    if errors:
                        return
                    fn(chunk)
            except BaseException as error:  # handed to the caller below
                errors.append(error)

        workers = self._workers[:helpers]
        for worker in workers:
            worker.job = work
            worker.start.release()
        try:
            work()
            for worker in workers:
                worker.done.acquire()
        except BaseException as error:
            # Ctrl-C while waiting: who is done is no longer known, so these workers are abandoned
            errors.append(error)
            self._workers = [_Worker(index) for index in range(self.threads - 1)]
            raise
        if errors:
            raise errors[0]


_pool: Pool | None = None
_threads: int | None = None  # what was asked for
_making = threading.Lock()


def _forget() -> None:
    """In a forked child the workers do not exist; the next call makes new ones, as many."""
    global _pool, _making
    _pool, _making = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def default_pool() -> Pool:
    """The process's pool, made at the first call."""
    global _pool
    if _pool is None:
        with _making:
            if _pool is None:
                _pool = Pool(thread_count())
    return _pool


def thread_count() -> int:
    """Threads of the process's pool, made or not yet."""
    return _threads or cpu_count()


def set_thread_count(threads: int) -> None:
    """A pool of `threads` from now on; the workers of an old one sleep for good."""
    global _pool, _threads
    with _making:
        if threads != thread_count():
            _pool, _threads = None, threads


def run_parallel(fn: Task, n_chunks: int) -> None:
    """`Pool.run` on the process's pool."""
    default_pool().run(fn, n_chunks)
