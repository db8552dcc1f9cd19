"""Programs that draw from streams and iterators that no replay can advance: each ends up eager."""

import datetime
import functools
import os
import pathlib
import random
import tempfile

import numpy as np

import tracegrad as tg
from tests.runtime.hazards.registry import falls_back
from tests.runtime.programs import ramp, three_calls


@falls_back("np.random")
def numpy_random(compile):
    yield from three_calls(compile(lambda x: x * float(np.random.rand())))


@falls_back("random")
def python_random(compile):
    random.seed(3)
    yield from three_calls(compile(lambda x: x * random.random()))


@falls_back("random generator")
def numpy_generator(compile):
    rng = np.random.default_rng(5)
    yield from three_calls(compile(lambda x: x * float(rng.normal())))


@falls_back("random generator is made")
def own_generator_made(compile):
    def f(x):
        generator = tg.Generator().manual_seed(3)
        return x + tg.rand(3, generator=generator)

    yield from three_calls(compile(f))


@falls_back("random stream is seeded")
def own_generator_seeded(compile):
    generator = tg.Generator()

    def f(x):
        generator.manual_seed(3)
        return x + tg.rand(3, generator=generator)

    yield from three_calls(compile(f))


@falls_back("state of a random stream is asked for")
def random_state_put_back(compile):
    def f(x):
        with tg.random.fork_rng():
            x = x + tg.rand(3)
        return x - tg.rand(3)

    yield from three_calls(compile(f))


@falls_back("state of a random stream is set")
def random_state_set(compile):
    state = tg.get_rng_state()

    def f(x):
        tg.set_rng_state(state)
        return x - tg.rand(3)

    yield from three_calls(compile(f))


@falls_back("seed of a random stream is asked for")
def seed_asked_for(compile):
    g = compile(lambda x: x + tg.initial_seed())
    for seed in range(3):
        tg.manual_seed(seed)
        yield g(ramp(3))


@falls_back("iterator")
def iterator_consumed(compile):
    numbers = iter([1.0, 2.0, 3.0])
    yield from three_calls(compile(lambda x: x * next(numbers)))


@falls_back("iterator")
def generator_consumed(compile):
    def batches():
        yield from (ramp(3), ramp(3) * 2, ramp(3) * 3)

    source = batches()
    g = compile(lambda: next(source) + 1)
    for _ in range(3):
        yield g()


@falls_back("lru_cache draws random")
def numbers_drawn_into_a_cache_out_of_turn(compile):
    @functools.cache
    def noise(n):
        return tg.rand(n)

    yield from three_calls(compile(lambda x: x * tg.rand(3) + noise(3)))


@falls_back("now")
def date_and_time(compile):
    yield from three_calls(compile(lambda x: x * (datetime.datetime.now().year > 0)))


@falls_back("file system is asked: open")
def contents_of_a_file(compile):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "scale")
        path.write_text("1")
        g = compile(lambda x: x * float(path.read_text()))
        for k in range(3):
            path.write_text(str(k))
            yield g(ramp(3))


@falls_back("file system is asked: stat")
def whether_a_file_is_there(compile):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "flag")
        g = compile(lambda x: x * (2 if os.path.exists(path) else 1))
        yield g(ramp(3))
        pathlib.Path(path).touch()
        yield g(ramp(3))


@falls_back("an open file is used")
def file_that_is_written(compile):
    with tempfile.TemporaryFile("w+") as file, open(os.devnull, "w") as log:
        files = [log]

        def f(x):
            files[0].write("a step")
            return x

        yield from three_calls(compile(f))
        yield file.read()


@falls_back("file system is asked: open")
def weights_that_are_loaded(compile):
    model = tg.nn.Linear(3, 3)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.pt")

        @compile
        def f(x):
            model.load_state_dict(tg.load(path))
            return model(x)

        for k in range(3):
            with tg.no_grad():
                model.weight.fill_(k)
            tg.save(model.state_dict(), path)
            yield f(ramp(3))
