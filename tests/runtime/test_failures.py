"""A call that fails leaves everything as it was, and tensors of its trace say where they come from."""

import collections
import contextvars

import numpy as np
import pytest

import tracegrad as tg
from tests.runtime.programs import BACKENDS, ramp


def leaks(*objects):
    return [o for o in objects if isinstance(o, tg.Tensor) and o._traced is not None]


class Trainer:
    def __init__(self, fail_at=None):
        self.model = tg.nn.Sequential(tg.nn.Embedding(5, 3), tg.nn.Linear(3, 1))
        self.optimiser = tg.optim.Adam(self.model.parameters(), lr=0.1)
        self.fail = False
        self.last = None

    def step(self, index):
        self.optimiser.zero_grad()
        y = self.model(index)
        self.last = y
        loss = y.square().mean()
        loss.backward()
        self.optimiser.step()
        if self.fail:
            raise KeyError("stop")
        return loss

    def state(self):
        slots = {
            k: {n: v.clone() for n, v in s.items()}
            for k, s in self.optimiser.state_dict()["state"].items()
        }
        return [p.detach().clone() for p in self.model.parameters()], slots


def equal_states(a, b):
    assert len(a[0]) == len(b[0]) and a[1].keys() == b[1].keys()
    for x, y in zip(a[0], b[0]):
        np.testing.assert_array_equal(x.numpy(), y.numpy())
    for k in a[1]:
        for n in a[1][k]:
            np.testing.assert_array_equal(a[1][k][n].numpy(), b[1][k][n].numpy())


@pytest.mark.parametrize("backend", BACKENDS)
def test_exception_while_recording_leaves_everything_as_it_was(backend):
    trainer = Trainer()
    step = tg.compile(trainer.step, backend=backend)
    index = tg.tensor([0, 1, 4])
    before = trainer.state()
    trainer.fail = True
    for _ in range(2):
        with pytest.raises(KeyError, match="stop"):
            step(index)
        equal_states(before, trainer.state())
        assert trainer.last is None
        assert all(p.grad is None for p in trainer.model.parameters())
        assert not leaks(*trainer.model.parameters())
    trainer.fail = False
    first = step(index)
    other = Trainer()
    other.model.load_state_dict({k: v for k, v in zip(other.model.state_dict(), before[0])})
    np.testing.assert_allclose(first.item(), other.step(index).item(), rtol=1e-5)
    equal = zip(trainer.model.parameters(), other.model.parameters())
    for a, b in equal:
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("limits", [(5.0, 5.0, 0.0, 5.0), (0.0, 5.0, 0.0)])
def test_an_error_of_the_users_leaves_no_half_of_a_step(limits, backend):
    """What Python alone keeps is undone with the tensors, whether the call before was recorded or not."""

    class Trainer:
        def __init__(self):
            self.model = tg.nn.Linear(2, 1)
            self.optimiser = tg.optim.SGD(self.model.parameters(), 0.1)
            self.schedule = tg.optim.lr_scheduler.ExponentialLR(self.optimiser, 0.5)
            self.count, self.log, self.total, self.mean = (
                0,
                {"seen": 0.0},
                tg.zeros(()),
                tg.zeros(()),
            )

        def step(self, x, limit):
            self.count += 1
            self.log["seen"] += 1.0
            self.log["last"] = x.sum()
            self.total.add_(1)
            self.mean = self.mean * 0.5 + 1
            self.optimiser.zero_grad()
            loss = self.model(x).square().mean()
            loss.backward()
            self.optimiser.step()
            self.schedule.step()
            if loss.detach() > limit:
                raise FloatingPointError("diverged")
            return loss

        def state(self):
            log = {k: float(v) for k, v in self.log.items()}
            tensors = [t.tolist() for t in (self.total, self.mean, self.model.weight)]
            return self.count, log, self.schedule.last_epoch, tensors

    trainer, eager = Trainer(), Trainer()
    eager.model.load_state_dict(trainer.model.state_dict())
    step = tg.compile(trainer.step, backend=backend, fullgraph=True)
    for limit in limits:
        x = tg.full((3, 2), 1.0)
        before = trainer.state()
        if limit:
            step(x, tg.tensor(limit))
            eager.step(x, limit)
            after, expected = trainer.state(), eager.state()
            assert after[:1] + after[2:3] == expected[:1] + expected[2:3]
            assert after[1] == pytest.approx(expected[1])
        else:
            with pytest.raises(FloatingPointError):
                step(x, tg.tensor(-1.0))
            assert trainer.state() == before


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_list_that_has_grown_before_an_error_is_kept(backend):
    """Such a function runs eagerly, so nothing that it notes is lost."""
    failures = []

    @tg.compile(backend=backend)
    def checked(x):
        if x.sum() > 1:
            failures.append("too large")
            raise ValueError
        return x

    assert checked(tg.zeros(1)).item() == 0.0
    with pytest.warns(UserWarning, match="runs eagerly"), pytest.raises(ValueError):
        checked(tg.full((1,), 2.0))
    with pytest.raises(ValueError):
        checked(tg.full((1,), 3.0))
    assert failures == ["too large"] * 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_exception_at_run_time_leaves_everything_as_it_was(backend):
    trainer = Trainer()
    step = tg.compile(trainer.step, backend=backend)
    step(tg.tensor([0, 1, 4]))
    step(tg.tensor([0, 1, 4]))
    before, last = trainer.state(), trainer.last.detach().clone()
    for bad in ([0, 5, 1], [0, 1, -7]):
        with pytest.raises((IndexError, RuntimeError, ValueError)) as caught:
            step(tg.tensor(bad)).item()
        assert "test_failures.py" in str(caught.value)
        equal_states(before, trainer.state())
        np.testing.assert_array_equal(trainer.last.detach().numpy(), last.numpy())
    step(tg.tensor([0, 1, 4]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_exception_after_an_update_in_the_same_graph(backend):
    """The write of `w` does not depend on the look-up that fails, and must not happen either."""
    w = tg.zeros(3)
    table = tg.arange(4.0)

    def f(index):
        w.add_(1)
        w.mul_(2)
        return table[index] * w

    g = tg.compile(f, backend=backend)
    g(tg.tensor([0, 1, 2]))
    before = w.clone()
    for _ in range(3):
        with pytest.raises((IndexError, RuntimeError, ValueError)):
            g(tg.tensor([0, 9, 2])).numpy()
        np.testing.assert_array_equal(w.numpy(), before.numpy())


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_what_they_were_when_the_run_fails(backend):
    table = tg.ones(4, 2, requires_grad=True)

    def step(index):
        loss = table[index].sum()
        loss.backward()
        return loss

    call = tg.compile(step, backend=backend)
    call(tg.tensor([1]))
    for kept in (None, ramp(4, 2)):
        table.grad = None if kept is None else kept.clone()
        for _ in range(2):
            with pytest.raises(IndexError):
                call(tg.tensor([9])).item()
        assert (None if table.grad is None else table.grad.tolist()) == (
            None if kept is None else kept.tolist()
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_names_are_not_bound_when_the_run_fails(backend):
    class Local:
        def __init__(self):
            self.h = tg.zeros(3)

    o, rows, kept = Local(), ramp(4, 2), {"sum": tg.zeros(3)}

    def step(index):
        o.h = o.h + 1
        kept["sum"] = kept["sum"] + o.h
        return rows[index]

    g = tg.compile(step, backend=backend)
    g(tg.tensor([1]))
    before = o.h, kept["sum"]
    with pytest.raises(tg.errors.IndexOutOfRange):
        g(tg.tensor([9])).numpy()
    assert o.h is before[0] and kept["sum"] is before[1]
    g(tg.tensor([2]))
    assert o.h.tolist() == [2.0] * 3 and kept["sum"].tolist() == [3.0] * 3
    assert g.stats()["recordings"] == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_with_a_schedule_is_taken_back_whole_when_the_run_fails(backend):
    """Such a step waits for XLA: the random stream and the names it binds are as they were, too."""
    w = tg.nn.Parameter(tg.ones(3))
    optimiser = tg.optim.SGD([w], lr=0.1, momentum=0.9)
    schedule = tg.optim.lr_scheduler.StepLR(optimiser, step_size=1, gamma=0.5)
    table = tg.arange(4.0)
    kept = None

    def f(index):
        nonlocal kept
        optimiser.zero_grad()
        loss = (tg.nn.functional.dropout(w, 0.5) * table[index]).sum()
        loss.backward()
        optimiser.step()
        schedule.step()
        kept = loss.detach()

    g = tg.compile(f, backend=backend)
    for _ in range(3):
        g(tg.tensor([0, 1, 2]))
    for _ in range(2):
        rate, weight, random = 0.1 * 0.5**3, w.detach().clone(), tg.get_rng_state()
        loss, momentum = kept, optimiser.state[w]["momentum_buffer"].clone()
        with pytest.raises((IndexError, RuntimeError)) as caught:
            g(tg.tensor([0, 9, 2]))
        assert "test_failures.py" in str(caught.value)
        assert optimiser.param_groups[0]["lr"] == pytest.approx(rate) and schedule.last_epoch == 3
        assert kept is loss
        np.testing.assert_array_equal(tg.get_rng_state().numpy(), random.numpy())
        np.testing.assert_array_equal(w.detach().numpy(), weight.numpy())
        after = optimiser.state[w]["momentum_buffer"]
        np.testing.assert_array_equal(after.numpy(), momentum.numpy())
    g(tg.tensor([0, 1, 2]))
    assert schedule.last_epoch == 4 and kept is not loss


@pytest.mark.parametrize("backend", BACKENDS)
def test_leaked_tensors_say_where_they_come_from(backend):
    leaked = []

    class Sink:
        """Not observed: an object with its own way of setting attributes, made of C."""

        def __call__(self, value):
            leaked.append(value)

    sink = collections.deque.append

    def f(x):
        y = x * 2
        sink(hidden, y)
        sink(hidden, y.sum().item())
        return y

    hidden = collections.deque()
    g = tg.compile(f, backend=backend, fullgraph=False)
    with pytest.warns(UserWarning, match="hidden"):
        g(ramp(3))
    assert len(hidden) == 2 and isinstance(hidden[1], float)  # put back, then run eagerly


def test_leaked_tensor_error():
    class Opaque:
        __slots__ = ("n", "y")

    opaque = Opaque()

    def f(x):
        y = x * 2
        object.__setattr__(opaque, "y", y)  # past the hooks, and in no dict that is looked at
        object.__setattr__(opaque, "n", y.sum().item())
        return y

    g = tg.compile(f)
    g(ramp(3))
    with pytest.raises(tg.errors.LeakedTensorError) as caught:
        opaque.y + 1
    assert "test_failures.py" in str(caught.value) and "return it" in str(caught.value)
    with pytest.raises(tg.errors.LeakedTensorError):
        opaque.y.numpy()
    with pytest.raises(tg.errors.LeakedTensorError):
        opaque.n + 1
    with pytest.raises(tg.errors.LeakedTensorError):
        tg.compile(lambda x: x + opaque.y)(ramp(3))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_schedule_of_a_tensor_inside_says_what_to_do(backend):
    weight, rate = tg.nn.Parameter(tg.ones(2)), tg.tensor(0.5)
    optimizer = tg.optim.SGD([weight], lr=rate)
    schedule = tg.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

    def step():
        optimizer.zero_grad()
        weight.sum().backward()
        optimizer.step()
        schedule.step()

    with pytest.raises(tg.errors.GraphBreakError, match="give the learning rate as a number"):
        tg.compile(step, backend=backend, fullgraph=True)()
    assert rate.item() == 0.5
    assert weight.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_slots_of_an_own_optimiser_do_not_outlive_a_failed_recording(backend):
    class Momentum(tg.optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {"lr": 0.1})

        @tg.no_grad()
        def step(self):
            for p in self.param_groups[0]["params"]:
                slots = self.state[p]
                if not slots:
                    slots["m"] = tg.zeros_like(p)
                slots["m"].add_(p.grad)

    w = tg.nn.Parameter(tg.ones(2))
    opt = Momentum([w])

    def step(fail):
        w.square().sum().backward()
        opt.step()
        if fail:
            raise ValueError("the user's own")

    compiled = tg.compile(step, backend=backend)
    with pytest.raises(ValueError, match="the user's own"):
        compiled(True)
    assert not opt.state[w] and w.grad is None
    compiled(False)
    assert opt.state[w]["m"].tolist() == [2.0, 2.0]


def drawn(step):
    return lambda: step(tg.ones(2))


def changing(step):
    def calls():
        for k in range(10):
            step(tg.ones(2), k + 0.5)

    return calls


def branching(step):
    def calls():
        for k in range(4):
            step(tg.ones(2) * k)

    return calls


def of_a_draw(x):
    return x * np.random.rand()


def of_a_number(x, number):
    return x * number


def of_paths(x):
    return x if x.sum() > 3 else x * 2 if x.sum() > 1 else x * 3


@pytest.mark.parametrize(
    "calls, function", [(drawn, of_a_draw), (changing, of_a_number), (branching, of_paths)]
)
def test_the_warning_of_the_way_to_eager_stands_at_the_users_line(calls, function, backend):
    run = calls(tg.compile(function, backend=backend, max_paths=1))
    with pytest.warns(UserWarning, match="runs eagerly from now on") as warned:
        run()
    assert [warning.filename for warning in warned] == [__file__]


def test_an_error_of_the_eager_run_is_the_users_alone(backend):
    def step(x):
        if x.unique().numel() > 1:  # cannot be recorded
            raise KeyError("mine")

    with pytest.warns(UserWarning), pytest.raises(KeyError, match="mine") as caught:
        tg.compile(step, backend=backend)(tg.arange(3))
    assert caught.value.__context__ is None


def test_warnings_of_layers_stand_at_the_users_line():
    mse = tg.nn.MSELoss()
    with pytest.warns(UserWarning) as warned:
        mse(tg.ones(2), tg.ones(2, 1))
        tg.nn.LSTM(2, 2, dropout=0.5)
        tg.autocast("cuda")
    assert [warning.filename for warning in warned] == [__file__] * 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_branch_on_what_lies_out_of_range_is_not_taken(backend):
    state = tg.zeros(2)

    def branch(x, index):
        state.add_(1.0)
        if x[index].sum() > 0:
            state.mul_(2.0)
            return x.sum()
        while x[index].max() < 0:
            x = x + 1.0
        state.mul_(3.0)
        return -x.sum()

    compiled = tg.compile(branch, backend=backend, fullgraph=True)
    for sign in (1.0, -1.0):
        compiled(sign * tg.ones(3), tg.tensor([0, 1]))
    assert state.tolist() == [9.0, 9.0]
    recordings = compiled.stats()["recordings"]
    for sign in (1.0, -1.0, 0.0):
        with pytest.raises(IndexError, match="test_failures.py"):
            compiled(sign * tg.ones(3), tg.tensor([0, 7])).item()
        assert state.tolist() == [9.0, 9.0]
    assert compiled.stats()["recordings"] == recordings
    compiled(tg.ones(3), tg.tensor([2, 1]))
    assert state.tolist() == [20.0, 20.0]


def test_arguments_of_numpy_are_as_they_were():
    """Masked ones too, and one whose shape was set before the error."""
    masked, plain = np.ma.masked_array([1.0, 2.0, 3.0], [0, 1, 0]), np.ma.masked_array([1.0, 2.0])
    f = tg.compile(lambda x, m: x + float(m.sum()))
    assert f(tg.ones(1), masked).tolist() == [5.0] and f(tg.ones(1), plain).tolist() == [4.0]
    assert masked.data.tolist() == [1.0, 2.0, 3.0] and masked.mask.tolist() == [False, True, False]

    @tg.compile
    def reshaped(x, array):
        array.resize((3, 2), refcheck=False)
        array[0] = 7.0
        raise KeyError("stop")

    array = np.zeros((2, 3))
    with pytest.warns(UserWarning, match="runs eagerly"), pytest.raises(KeyError):
        reshaped(tg.ones(1), array)
    assert array.tolist() == [[7.0, 7.0], [0.0, 0.0], [0.0, 0.0]]  # by the eager call


def test_a_context_variable_that_had_no_value_gets_none_of_ours():
    variable = contextvars.ContextVar("variable")

    @tg.compile
    def f(x):
        factor = variable.get(1.0)
        variable.set(5.0)
        return x * factor

    with pytest.warns(UserWarning, match="runs eagerly"):
        f(tg.ones(1))
    assert variable.get() == 5.0
