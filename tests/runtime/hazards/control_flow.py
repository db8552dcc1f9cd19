"""Branches, loops and exceptions in Python, on values of tensors."""

import tracegrad as tg
from tests.runtime.hazards.registry import hazard, linear
from tests.runtime.programs import ramp


@hazard
def python_bool_argument(compile):
    g = compile(lambda x, flip: -x if flip else x)
    for flip in (True, False, True, 1, 0, None):
        yield g(ramp(3), flip)


@hazard
def one_and_true_and_one_point_zero(compile):
    g = compile(lambda x, k: (x * k, type(k).__name__))
    for k in (1, True, 1.0, 0.0, -0.0, float("nan"), 2):
        yield g(ramp(3) + 1, k)


@hazard
def branch_on_a_tensor(compile):
    g = compile(lambda x: x * 2 if x.sum() > 0 else x - 1)
    for sign in (1, -1, 1, -1, 0):
        yield g(ramp(3) * sign)


@hazard
def tensor_or_default(compile):
    g = compile(lambda x: x or tg.full((), 5.0))
    for value in (1.0, 0.0, 2.0, -0.0):
        yield g(tg.tensor(value))


@hazard
def min_max_sorted_on_tensors(compile):
    g = compile(lambda a, b, c: (min(a, b), max(a, b, c), sorted([a, b, c])))
    for values in ((1.0, 2.0, 3.0), (3.0, 2.0, 1.0), (2.0, 2.0, 0.0), (1.0, 5.0, 3.0)):
        yield g(*map(tg.tensor, values))


@hazard
def loop_count_from_item(compile):
    def f(x, n):
        for _ in range(int(n.item())):
            x = x * 2
        return x

    g = compile(f)
    for n in (3, 1, 0, 3, 2):
        yield g(ramp(3), tg.tensor(n))


@hazard
def early_return(compile):
    def f(x):
        if x.max() > 10:
            return x, "large"
        y = x + 1
        if y.min() < 0:
            return y, "negative"
        return y * 2, "plain"

    g = compile(f)
    for start in (0.0, 20.0, -30.0, 0.5, 20.0):
        yield g(ramp(3, start=start))


@hazard
def assertion_on_a_tensor(compile):
    def f(x):
        assert (x >= 0).all(), "negative"
        return x.sqrt()

    g = compile(f)
    for start in (0.0, -1.0, 1.0, -2.0, 0.0):
        try:
            yield g(ramp(3, start=start))
        except AssertionError as error:
            yield error


@hazard
def branch_on_a_shape(compile):
    g = compile(lambda x: x.sum() if x.shape[0] > 2 else x.mean())
    for n in (3, 2, 1, 5):
        yield g(ramp(n))


@hazard
def swallowed_exception(compile):
    def f(x, w):
        try:
            return x @ w
        except RuntimeError:
            return x.sum()

    g = compile(f)
    yield g(ramp(2, 3), ramp(3, 2))
    yield g(ramp(2, 3), ramp(2, 2))
    yield g(ramp(2, 3), ramp(3, 2))


@hazard
def swallowed_exception_that_depends_on_values(compile):
    def f(x):
        try:
            if x.sum() > 1:
                raise KeyError("large")
            return x
        except KeyError:
            return -x

    g = compile(f)
    for start in (0.0, 5.0, 0.0, 6.0):
        yield g(ramp(3, start=start))


@hazard
def while_with_a_counter(compile):
    def f(x, limit):
        k = 0
        while k < limit and x.abs().max() > 0.1:
            x = x * 0.5
            k += 1
        return x, k

    g = compile(f)
    for l in (3, 10, 3):
        yield g(ramp(3), l)


@hazard
def try_and_finally(compile):
    log = tg.zeros(())

    def f(x):
        try:
            if x.sum() < 0:
                raise ValueError
            return x
        except ValueError:
            return -x
        finally:
            log.add_(1)

    g = compile(f)
    for s in (1, -1, 1):
        yield g((ramp(3) + 1) * s), log


@hazard
def any_and_all_of_python(compile):
    g = compile(lambda xs: any(x.sum() > 1 for x in xs))
    yield g([ramp(3), ramp(3)])
    yield g([ramp(3), ramp(3) + 1])
    yield g([ramp(3), ramp(3)])


@hazard
def exception_at_some_shapes(compile):
    def f(x):
        if x.shape[0] == 2:
            raise ValueError("two")
        return x

    g = compile(f)
    for n in (3, 2, 3, 2):
        try:
            yield g(ramp(n))
        except ValueError as e:
            yield e


@hazard
def state_written_before_an_exception(compile):
    c = tg.zeros(2)

    def f(x):
        c.add_(1)
        if x.sum() > 3:
            raise ValueError("big")
        return x

    g = compile(f)
    for k in (0, 5, 0, 5, 0):
        try:
            yield g(ramp(2, start=float(k)))
        except ValueError as e:
            yield e


@hazard
def length_of_nonzero(compile):
    g = compile(lambda x: x * len([v for v in x.tolist() if v > 0.5]))
    for k in range(3):
        yield g(ramp(3, start=k * 0.3))


@hazard
def branch_on_state_changed_between_calls(compile):
    s = tg.tensor(1.0)
    g = compile(lambda x: x if s > 0 else -x)
    yield g(ramp(3))
    s.neg_()
    yield g(ramp(3))
    s.neg_()
    yield g(ramp(3))


@hazard
def range_of_a_counter(compile):
    n = tg.tensor(2)

    def f(x):
        for _ in range(n.item()):
            x = x + 1
        return x

    g = compile(f)
    yield g(ramp(2))
    n.add_(1)
    yield g(ramp(2))
    n.fill_(2)
    yield g(ramp(2))


@hazard
def state_written_in_branches(compile):
    c = tg.zeros(3)
    n = tg.zeros((), dtype=tg.int64)

    def f(x):
        c.add_(x)
        if c.sum() > 3:
            c.zero_()
            n.add_(1)
            return c.clone()
        c.mul_(1.5)
        return c * 2

    g = compile(f)
    for _ in range(8):
        yield g(ramp(3, start=0.2)), c, n


@hazard
def attribute_set_in_a_branch(compile):
    class Box:
        flag = "none"

    o = Box()

    def f(x):
        if x.sum() > 0:
            o.flag = "pos"
            o.val = x * 2
        else:
            o.flag = "neg"
        return x

    g = compile(f)
    for s in (1, -1, 1, -1):
        g((ramp(3) + 1) * s)
        yield o.flag, o.val


@hazard
def attribute_read_in_one_branch_only(compile):
    m = tg.nn.Linear(3, 3)
    m.a = 2.0
    m.b = 3.0
    g = compile(lambda x: m(x) * m.a if x.sum() > 0 else m(x) * m.b)
    for s in (1, -1, 1, -1):
        yield g((ramp(2, 3) + 1) * s)
    m.b = 7.0
    for s in (1, -1):
        yield g((ramp(2, 3) + 1) * s)
    m.a = 9.0
    for s in (-1, 1):
        yield g((ramp(2, 3) + 1) * s)


@hazard
def parameters_used_in_one_branch_only(compile):
    a, b = linear(), linear()
    oa = tg.optim.SGD([*a.parameters(), *b.parameters()], lr=0.1)

    def f(x):
        oa.zero_grad()
        l = (a(x) if x.sum() > 0 else b(x)).square().sum()
        l.backward()
        oa.step()
        return l

    g = compile(f)
    for s in (1, -1, 1, -1):
        yield (
            g((ramp(2, 3) + 1) * s),
            a.weight,
            b.weight,
        )
