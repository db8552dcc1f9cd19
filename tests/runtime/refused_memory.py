"""Programs that change in place what has no items to put back one by one: each change is made once."""

import array
import collections
import contextlib
import contextvars
import ctypes
import queue
import sqlite3
import struct

import numpy as np

import tracegrad as tg
from tests.runtime.hazards.registry import falls_back
from tests.runtime.programs import ramp


@falls_back("is changed")
def order_of_an_ordered_dict(compile):
    recent = collections.OrderedDict(a=1.0, b=2.0, c=3.0)

    def f(x):
        recent.move_to_end(next(iter(recent)))
        return x * next(iter(recent.values()))

    g = compile(f)
    for _ in range(4):
        yield g(ramp(3)), list(recent)


@falls_back("is changed")
def order_of_a_dict(compile):
    recent = dict(a=1.0, b=2.0, c=3.0)

    def f(x):
        first = next(iter(recent))
        recent[first] = recent.pop(first)
        return x * recent[first]

    g = compile(f)
    for _ in range(4):
        yield g(ramp(3)), list(recent)


@falls_back("is changed")
def items_of_an_ordered_dict_dropped(compile):
    cache = collections.OrderedDict((k, float(k)) for k in range(5))

    def f(x):
        return x * cache.popitem(last=False)[1]

    g = compile(f)
    for _ in range(3):
        yield g(ramp(3)), list(cache), list(reversed(cache))


@falls_back("is changed")
def context_variable(compile):
    depth = contextvars.ContextVar("depth")
    depth.set(0)

    def f(x):
        depth.set(depth.get() + 1)
        return x * depth.get()

    g = compile(f)
    for _ in range(3):
        yield g(ramp(3)), depth.get()


@falls_back("is changed")
def bytes_counted(compile):
    counts = bytearray(4)

    def f(x):
        counts[1] += 1
        counts.append(7)
        return x * counts[1]

    g = compile(f)
    for _ in range(3):
        yield g(ramp(3)), list(counts)


@falls_back("is changed")
def numbers_packed(compile):
    header = bytearray(8)

    def f(x):
        (count,) = struct.unpack_from("i", header)
        struct.pack_into("i", header, 0, count + 1)
        return x * count

    g = compile(f)
    for _ in range(3):
        yield g(ramp(3)), bytes(header)


@falls_back("is changed")
def array_of_numbers(compile):
    seen = array.array("d", [1.0])

    def f(x):
        seen.append(seen[-1] * 2)
        return x * seen[-1]

    g = compile(f)
    for _ in range(3):
        yield g(ramp(3)), list(seen)


@falls_back("is changed")
def memory_seen_in_steps(compile):
    memory = bytearray(6)
    every_other = memoryview(memory)[::2]

    def f(x):
        every_other[1] += 1
        return x * every_other[1]

    g = compile(f)
    for _ in range(3):
        yield g(ramp(3)), list(memory)


@falls_back("is changed")
def shape_of_an_array_with_gaps(compile):
    numbers = np.arange(12, dtype=np.float32)[::2]

    def f(x):
        numbers.shape = (2, 3) if numbers.ndim == 1 else (6,)
        return x * float(numbers.flat[1]) * numbers.ndim

    g = compile(f)
    for _ in range(3):
        yield g(ramp(3)), numbers.shape


@falls_back("is changed")
def structure_of_ctypes(compile):
    class Header(ctypes.Structure):
        _fields_ = (("count", ctypes.c_int), ("scale", ctypes.c_double))

    header = Header(0, 1.5)

    def f(x):
        header.count += 1
        return x * header.count * header.scale

    g = compile(f)
    for _ in range(3):
        yield g(ramp(3)), header.count


@falls_back("a queue.SimpleQueue from outside is used")
def simple_queue(compile):
    numbers = queue.SimpleQueue()
    for k in range(5):
        numbers.put(float(k))

    g = compile(lambda x: x * numbers.get())
    for _ in range(3):
        yield g(ramp(3)), numbers.qsize()


@falls_back("a sqlite3.Connection from outside is used")
def database(compile):
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("create table scales (value real)")
        connection.execute("insert into scales values (1.0)")

        def f(x):
            connection.execute("update scales set value = value + 1")
            return x * connection.execute("select value from scales").fetchone()[0]

        g = compile(f)
        for _ in range(3):
            yield g(ramp(3))


@falls_back("argument")
def memory_of_an_argument(compile):
    def f(x, counts):
        counts[0] += 1
        return x * counts[0]

    g = compile(f)
    counts = bytearray(2)
    for _ in range(3):
        yield g(ramp(3), counts), counts[0], tg.tensor(counts[0])
