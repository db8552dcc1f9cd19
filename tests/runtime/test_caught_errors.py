"""A `try` around what may fail for its values: compiled functions go on where eager mode does."""

import contextlib
import dis
import threading

import numpy as np
import pytest

import tracegrad as tg
from tests.runtime.programs import BACKENDS
from tracegrad.tracer.bytecode import exception_table, may_catch


def jitter(matrix):
    """As Gaussian processes do it."""
    for k in range(6):
        try:
            return tg.linalg.cholesky(matrix + (k > 0) * 10.0 ** (k - 3) * tg.eye(2))
        except np.linalg.LinAlgError:
            pass
    raise RuntimeError("no factor is large enough")


def by_type(x, place):
    try:
        return x[place] * 2
    except IndexError:
        return x * 0 - 1


def of_a_function_called(x, place):
    def inner():
        return x[place]

    try:
        with tg.no_grad():
            found = inner()
    except (KeyError, IndexError):
        found = tg.zeros(1)
    return found + 1


def suppressed(x, place):
    found = tg.zeros(1)
    with contextlib.suppress(IndexError):
        found = x[place]
    return found + 1


def every_error(x, place):
    try:
        found = x[place]
    except:  # noqa: E722  (even what is no Exception)
        found = tg.zeros(1)
    return found + 1


def not_caught(x, place):
    try:
        found = x[place]
    finally:
        one = 1
    return found + one


def of_another_type(x, place):
    try:
        return x[place]
    except KeyError:
        return x


def written(x, place):
    found = x.clone()
    try:
        found[place] = 5.0
    except IndexError:
        found[0] = 7.0
    return found


def before_a_branch(x, place):
    try:
        found = x[place]
    except IndexError:
        found = tg.zeros(1)
    return found * 2 if found.sum() > 1 else found - 1


def divided(x, place):
    try:
        return x.sum() + 6 // place
    except ZeroDivisionError:
        return x.sum()


def in_a_branch_of_the_graph(x, place):
    try:
        return tg.cond(x.sum() > 0, lambda: x[place] + 1, lambda: x[:1])
    except IndexError:
        return x


class Skipping(contextlib.ContextDecorator):
    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        return kind is not None and issubclass(kind, IndexError)


@contextlib.contextmanager
def skipping():
    try:
        yield
    except IndexError:
        pass


def by_a_manager(x, place):
    found = tg.zeros(1)
    with Skipping(), tg.no_grad():
        found = x[place]
    return found


def by_a_generator(x, place):
    found = tg.zeros(1)
    with skipping():
        found = x[place]
    return found


def by_a_decorator(x, place):
    found = [tg.zeros(1)]

    @Skipping()
    def look_up():
        found.append(x[place])

    look_up()
    return found[-1]


def by_a_stack(x, place):
    found = tg.zeros(1)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.suppress(IndexError))
        found = x[place]
    return found


def by_returning(x, place):
    found = tg.zeros(1)
    try:
        found = x[place]
    finally:
        return found  # noqa: B012  (that is the case)


def by_group(x, place):
    found = tg.zeros(1)
    try:
        found = x[place]
    except* IndexError:
        pass
    return found


def by_a_type_that_is_chosen(x, place):
    try:
        return x[place]
    except KeyError if x.ndim == 0 else IndexError:  # noqa: B030
        return tg.zeros(1)


def with_a_lock_in_the_handler(x, place):
    try:
        return x[place]
    except:  # noqa: E722
        with threading.Lock():
            found = x[:1] - 1
        return found


def with_a_finally_in_the_handler(x, place):
    try:
        return x[place]
    except:  # noqa: E722
        try:
            found = x[:1] - 1
        finally:
            found = x[:1] - 2
        return found


def with_a_loop_in_the_handler(x, place):
    try:
        return x[place]
    except:  # noqa: E722
        for k in range(3):
            if k:
                break
        return x[: sum([1 for _ in range(1)])]


def beside_our_own(x, place):
    found = tg.zeros(1)
    with tg.no_grad(), contextlib.suppress(IndexError):
        found = x[place]
    return found


@contextlib.contextmanager
def forgiving(inner):
    try:
        with inner:
            yield
    except IndexError:
        pass


def around_our_own(x, place):
    found = tg.zeros(1)
    with forgiving(tg.no_grad()):
        found = x[place]
    return found


def ours_or_another(x, place):
    found = tg.zeros(1)
    with tg.no_grad() if x.ndim > 1 else contextlib.suppress(IndexError):
        found = x[place]
    return found


class Window:
    """The old way of iteration: until an IndexError."""

    def __init__(self, values, place):
        self.values, self.place = values, place

    def __getitem__(self, k):
        return self.values[self.place + k]


def by_iteration(x, place):
    return sum(Window(x, place), tg.zeros(1))


FUNCTIONS = [
    by_type, of_a_function_called, suppressed, every_error, not_caught, of_another_type, written,
    before_a_branch, divided, in_a_branch_of_the_graph, by_a_manager, by_a_generator,
    by_a_decorator, by_a_stack, with_a_lock_in_the_handler, with_a_finally_in_the_handler,
    with_a_loop_in_the_handler, beside_our_own, around_our_own, ours_or_another,
    by_returning, by_group, by_a_type_that_is_chosen,
]  # fmt: skip
PLACES = {"found first": (1, 2, 9, 0, 9, 3, 8), "not found first": (8, 9, 0, 9, 1, 0)}


def outcome(function, *arguments):
    try:
        return function(*arguments).tolist()
    except Exception as error:
        return type(error)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_goes_on_as_in_eager_mode(function, places, backend):
    compiled = tg.compile(function, backend=backend, fullgraph=True)
    x = tg.arange(8.0) + 1
    for place in places:
        place = tg.tensor([place])
        assert outcome(compiled, x, place) == outcome(function, x, place)
    assert compiled.stats()["compiles"] in (1, 3)


def quotient(x):
    try:
        return tg.ones(1) * (10 / x.item())
    except ZeroDivisionError:
        return tg.zeros(1)


def remainder(x):
    try:
        return tg.ones(1) * (7.0 % x.item() + 9 // x.item())
    except ZeroDivisionError:
        return tg.zeros(1)


def power(x):
    try:
        return tg.ones(1) * (10.0 ** (x.item() * 300))
    except OverflowError:
        return tg.zeros(1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("function", [quotient, remainder, power])
def test_numbers_of_tensors_raise_as_pythons_do(function, backend):
    compiled = tg.compile(function, backend=backend, fullgraph=True)
    for value in (2.0, 0.0, 0.125, 0.0, 2.0):
        np.testing.assert_allclose(
            compiled(tg.tensor(value)).tolist(), function(tg.tensor(value)).tolist(), rtol=1e-5
        )
    assert compiled.stats()["recordings"] <= 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_number_divided_by_zero_is_an_error_of_the_run(backend):
    """Without a `try` there is one graph, which checks the divisor."""
    weight = tg.nn.Parameter(tg.ones(2))
    opt = tg.optim.SGD([weight], 0.5)

    @tg.compile(backend=backend, fullgraph=True)
    def step(x, count):
        opt.zero_grad()
        loss = (
            (weight * x).sum() * (1 / count.sum().item())
            + 6.0 % count[0].item()
            + 6 // count[0].item()
        )
        loss.backward()
        opt.step()
        return loss

    step(tg.ones(2), tg.ones(2))
    before = weight.tolist()
    with pytest.raises(ZeroDivisionError, match="test_caught_errors.py"):
        step(tg.ones(2), tg.zeros(2)).item()
        weight.tolist()
    assert weight.tolist() == before == [0.75, 0.75]
    step(tg.ones(2), tg.full((2,), 2.0))
    assert weight.tolist() == [0.625, 0.625]
    assert step.stats()["compiles"] == 1

    @tg.compile(backend=backend)
    def by_a_constant(x):
        return x.item() / 0

    with pytest.raises(ZeroDivisionError):
        by_a_constant(tg.ones(()))


def test_an_error_of_an_earlier_call_is_not_swallowed():
    """XLA tells late; no `try` of the second function is around the first."""
    first = tg.compile(lambda x, place: x[place] * 2, backend="jax")
    second = tg.compile(by_type, backend="jax")
    x, good = tg.arange(8.0), tg.tensor([1])
    first(x, good)
    second(x, good)
    first(x, tg.tensor([9]))
    with pytest.raises(IndexError):
        second(x, good)
    assert second(x, good).tolist() == [2.0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_numbers_in_a_branch_of_the_graph_raise_none_while_recording(backend):
    def branch(x):
        try:
            return x * (1.0 / x.sum().item())
        except ZeroDivisionError:
            return x

    compiled = tg.compile(
        lambda x: tg.cond(x.sum() > -1, lambda: branch(x), lambda: x),
        backend=backend,
        fullgraph=True,
    )
    for value in (2.0, 4.0):
        assert compiled(tg.full((1,), value)).tolist() == branch(tg.full((1,), value)).tolist()


@pytest.mark.parametrize("backend", BACKENDS)
def test_failures_now_and_then_leave_a_function_compiled(backend):
    compiled = tg.compile(by_type, backend=backend)
    good, bad = tg.tensor([1]), tg.tensor([9])
    for k in range(12):
        for _ in range(2):
            assert compiled(tg.arange(8.0), good).tolist() == [2.0]
        assert compiled(tg.arange(4.0 + k % 2), bad).tolist() == [-1.0] * (4 + k % 2)
    assert not compiled.stats()["eager"]
    assert compiled.stats()["python_calls"] == 12
    assert "ran as Python: 12 calls" in compiled.why()


def test_what_stands_around_the_compiled_function_is_no_concern_of_it():
    around = Skipping()(tg.compile(lambda x, place: x[place], backend="jax"))
    around(tg.arange(8.0), tg.tensor([1]))
    compiled = around.__wrapped__
    ((tree,),) = compiled._forest.trees.values()
    assert not tree.tried


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_fails_at_every_call_ends_in_eager_calls(backend):
    compiled = tg.compile(by_iteration, backend=backend)
    x = tg.arange(8.0)
    with pytest.warns(UserWarning, match="runs eagerly from now on"):
        for k in range(12):
            place = tg.tensor([k])
            assert compiled(x, place).tolist() == by_iteration(x, place).tolist()
    assert compiled.stats()["eager"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_factor_that_is_large_enough(backend):
    compiled = tg.compile(jitter, backend=backend, fullgraph=True)
    for ones in ([1.0, 0.0], [1.0, 1.0], [1.0, 2.0], [3.0, 1.0], [1.0, 1.0]):
        matrix = tg.tensor([ones, ones[::-1]])
        found, expected = compiled(matrix).tolist(), jitter(matrix).tolist()
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert compiled.stats()["compiles"] == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_training_step_is_made_once_on_either_way(backend):
    def run(compile):
        weight = tg.nn.Parameter(tg.ones(8))
        opt = tg.optim.Adam([weight], 0.1)
        drawn = tg.Generator().manual_seed(0)

        @compile
        def step(x, place):
            opt.zero_grad()
            noise = tg.rand(1, generator=drawn)
            try:
                loss = (weight[place] * x[place] * noise).sum()
            except IndexError:
                loss = weight.sum() * 0.5 * noise.sum()
            loss.backward()
            opt.step()
            return loss

        x = tg.arange(8.0)
        losses = [step(x, tg.tensor([place])).item() for place in (1, 9, 2, 8, 8, 0)]
        return losses, weight.tolist(), opt.state[weight]["step"]

    losses, weight, count = run(lambda f: f)
    found = run(tg.compile(backend=backend, fullgraph=True))
    np.testing.assert_allclose(found[0], losses, rtol=1e-6)
    np.testing.assert_allclose(found[1], weight, rtol=1e-6)
    assert float(found[2]) == float(count) == 6


def test_who_catches_is_read_from_the_instructions():
    """The exception table as Python's `dis` reads it; a `with` or a `finally` alone catches nothing."""
    codes = [f.__code__ for f in (*FUNCTIONS, jitter, outcome)]
    for code in codes:
        entries = [(e.start, e.end, e.target) for e in dis.Bytecode(code).exception_entries]
        assert list(exception_table(code)) == entries

    def with_only(x):
        with tg.no_grad():
            return x[0]

    for function, catches in ((by_type, True), (suppressed, True), (every_error, True),
                              (not_caught, False), (with_only, False)):  # fmt: skip
        found = [i.offset for i in dis.get_instructions(function) if i.opname == "BINARY_SUBSCR"]
        assert found and all(may_catch(function.__code__, at) is catches for at in found)
