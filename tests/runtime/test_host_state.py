"""Parameter groups and schedules written and asked inside a step: as in PyTorch, at every call."""

import math
import warnings

import numpy as np
import pytest
import torch

import tracegrad as tg
from tests.runtime.programs import BACKENDS
from tracegrad.tracer.errors import GraphBreakError

PROGRAMS = {}
FALLS_BACK = {}  # these run eagerly, and say so


def program(function):
    PROGRAMS[function.__name__] = function
    return function


def falls_back(function):
    FALLS_BACK[function.__name__] = PROGRAMS[function.__name__] = function
    return function


def report(value):
    if isinstance(value, (tg.Tensor, torch.Tensor)):
        return np.array(value.detach().numpy(), np.float64)
    if isinstance(value, (list, tuple)):
        return [report(item) for item in value]
    return value


def reports(program, T, compile):
    return [report(value) for value in program(T, compile)]


def compare(found, wanted):
    assert len(found) == len(wanted)
    for mine, theirs in zip(found, wanted):
        if isinstance(theirs, list):
            compare(mine, theirs)
        elif isinstance(theirs, str) or theirs is None:
            assert mine == theirs
        else:
            np.testing.assert_allclose(mine, theirs, rtol=1e-5)


@pytest.mark.parametrize("backend", ["eager", *BACKENDS])
@pytest.mark.parametrize("name", PROGRAMS)
def test_as_in_pytorch(name, backend):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler")
        wanted = reports(PROGRAMS[name], torch, lambda f: f)
    if name in FALLS_BACK and backend != "eager":
        with pytest.warns(UserWarning, match="runs eagerly from now on"):
            found = reports(PROGRAMS[name], tg, lambda f: tg.compile(f, backend=backend))
    else:
        found = reports(PROGRAMS[name], tg, lambda f: tg.compile(f, backend=backend))
    compare(found, wanted)


def setting(T, kind="SGD", **options):
    w = T.nn.Parameter(T.ones(2))
    optimizer = getattr(T.optim, kind)([w], **{"lr": 0.1, **options})
    return w, optimizer, optimizer.param_groups[0]


def halving(T, optimizer):
    return T.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)


def train(w, optimizer, x):
    optimizer.zero_grad()
    loss = (w * x).sum()
    loss.backward()
    optimizer.step()
    return loss


@program
def rate_from_an_argument(T, compile):
    w, optimizer, group = setting(T)

    def step(x, lr):
        for g in optimizer.param_groups:
            g["lr"] = lr
        return train(w, optimizer, x)

    g = compile(step)
    for lr in (0.1, 0.2, 0.1, 0.1, 0.2):
        yield g(T.ones(2), lr), group["lr"], w
    if compile(step) is not step and hasattr(g, "stats"):
        assert g.stats()["compiles"] == 1


@program
def cosine_with_warm_up_by_hand(T, compile):
    w, optimizer, group = setting(T, "AdamW")

    def rate(iteration):
        if iteration < 3:
            return 0.1 * (iteration + 1) / 4
        return 0.05 * (1 + math.cos(iteration / 10))

    def step(x, iteration):
        lr = rate(iteration)
        for g in optimizer.param_groups:
            g["lr"] = lr
        return train(w, optimizer, x)

    g = compile(step)
    for iteration in range(12):
        yield g(T.ones(2), iteration), group["lr"], w


@program
def rate_written_after_the_step(T, compile):
    w, optimizer, group = setting(T)

    def step(x, lr):
        loss = train(w, optimizer, x)
        group["lr"] = lr
        return loss

    g = compile(step)
    for lr in (0.1, 0.2, 0.1, 0.2):
        yield g(T.ones(2), lr), group["lr"], w


@program
def rate_halved(T, compile):
    w, optimizer, group = setting(T, momentum=0.5)

    def step(x):
        group["lr"] *= 0.5
        group["momentum"] = max(group["momentum"] * 0.9, 0.4)
        return train(w, optimizer, x), group["lr"]

    g = compile(step)
    for _ in range(6):
        yield g(T.ones(2)), group["lr"], group["momentum"], w


@program
def betas_written(T, compile):
    w, optimizer, group = setting(T, "Adam")

    def step(x):
        first, second = group["betas"]
        group["betas"] = (first * 0.9, second)
        return train(w, optimizer, x)

    g = compile(step)
    for _ in range(4):
        yield g(T.ones(2)), group["betas"], w


@program
def all_ways_to_write(T, compile):
    w, optimizer, group = setting(T, momentum=0.5)

    def step(x):
        group.update(lr=group["lr"] * 0.5, momentum=0.25)
        group.update({"weight_decay": 0.1})
        loss = train(w, optimizer, x)
        group.setdefault("mine", group["lr"] * 2)
        mine = group.pop("mine")
        nothing = group.pop("mine", None)
        del group["nesterov"]
        group["nesterov"] = False
        group["last"] = 3
        return loss, mine, nothing, group.popitem(), "mine" in group

    g = compile(step)
    for _ in range(4):
        yield g(T.ones(2)), group["lr"], group["momentum"], list(group)[-1], w


@program
def all_ways_to_read(T, compile):
    w, optimizer, group = setting(T)

    def step(x):
        rates = [value for name, value in group.items() if name == "lr"]
        rates += [dict(group)["lr"], {**group}["lr"], group.copy()["lr"], (group | {})["lr"]]
        rates += [group[name] for name in group if name == "lr"]
        rates += [group[name] for name in group.keys() if name == "lr"]
        rates += [v for v in group.values() if isinstance(v, float) or v is rates[0]][:1]
        more = len(group) + (100 if "mine" in group else 0) + group.get("mine", 0)
        return [x * rate for rate in rates], x * more

    g = compile(step)
    yield g(T.ones(2))
    group["lr"] = 9.0
    yield g(T.ones(2))
    group["mine"] = 1000
    yield g(T.ones(2))
    group["mine"] = 2000
    yield g(T.ones(2))
    del group["mine"]
    yield g(T.ones(2))


@program
def written_on_one_path(T, compile):
    w, optimizer, group = setting(T)

    def step(x, lr):
        group["lr"] = lr
        loss = train(w, optimizer, x)
        if loss > 1:
            group["lr"] *= 0.1
            train(w, optimizer, x)
        return loss

    g = compile(step)
    for k in range(8):
        yield g(T.ones(2), 0.1 * (k % 3 + 1)), group["lr"], w


@program
def last_rate_asked_after_a_step(T, compile):
    w, optimizer, _ = setting(T)
    schedule = halving(T, optimizer)

    def step(x):
        loss = train(w, optimizer, x)
        schedule.step()
        return loss * 0 - 1 if schedule.get_last_lr()[0] < 0.03 else loss

    g = compile(step)
    for _ in range(6):
        yield g(T.ones(2))


@program
def epoch_asked_after_a_step(T, compile):
    w, optimizer, _ = setting(T)
    schedule = halving(T, optimizer)

    def step(x):
        loss = train(w, optimizer, x)
        schedule.step()
        return loss * 0 - 1 if schedule.last_epoch >= 3 else loss

    g = compile(step)
    for _ in range(6):
        yield g(T.ones(2))


@program
def rate_asked_after_a_step(T, compile):
    w, optimizer, group = setting(T)
    schedule = halving(T, optimizer)

    def step(x):
        before = group["lr"]
        loss = train(w, optimizer, x)
        schedule.step()
        if group["lr"] < 0.02:
            return loss * 0 - before
        return loss * before if before < 0.06 else loss

    g = compile(step)
    for _ in range(6):
        yield g(T.ones(2))


@program
def bad_epochs_asked_after_a_step(T, compile):
    w, optimizer, group = setting(T)
    schedule = T.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=2)

    def step(x):
        loss = train(w, optimizer, x)
        schedule.step(1.0)
        return loss * 0 - 1 if schedule.num_bad_epochs > 1 else loss

    g = compile(step)
    for _ in range(8):
        yield g(T.ones(2)), group["lr"]


@program
def schedule_begun_again(T, compile):
    w, optimizer, group = setting(T)
    schedule = halving(T, optimizer)

    def step(x, again):
        loss = train(w, optimizer, x)
        if again:
            schedule.last_epoch = -1
        schedule.step()
        return loss, schedule.last_epoch

    g = compile(step)
    for k in range(6):
        yield g(T.ones(2), k % 3 == 2), group["lr"], schedule.last_epoch


@program
def epochs_left_out(T, compile):
    w, optimizer, group = setting(T)
    schedule = halving(T, optimizer)

    def step(x):
        loss = train(w, optimizer, x)
        schedule.last_epoch += 2
        schedule.step()
        return loss, schedule.last_epoch

    g = compile(step)
    for _ in range(4):
        yield g(T.ones(2)), group["lr"], schedule.last_epoch


@falls_back
def number_of_another_kind_at_every_call(T, compile):
    w, optimizer, group = setting(T)
    schedule = halving(T, optimizer)

    def step(x):
        train(w, optimizer, x)
        schedule.step()
        return x * max(float(group["lr"]), 0.001)

    g = compile(step)
    for _ in range(6):
        yield g(T.ones(2))


@program
def formula_asked_after_a_step(T, compile):
    w, optimizer, group = setting(T)
    schedule = halving(T, optimizer)

    def step(x):
        loss = train(w, optimizer, x)
        schedule.step()
        return loss if group["lr"] * 2 > 0.03 else loss * 0 - 1

    g = compile(step)
    for _ in range(5):
        yield g(T.ones(2))


@falls_back
def branch_on_a_tensor_and_a_changed_rate(T, compile):
    w, optimizer, group = setting(T)
    schedule = halving(T, optimizer)

    def step(x):
        loss = train(w, optimizer, x)
        schedule.step()
        return loss if loss * group["lr"] > 0.04 else loss * 0 - 1

    g = compile(step)
    for _ in range(5):
        yield g(T.ones(2))


@falls_back
def rate_from_a_tensor(T, compile):
    w, optimizer, group = setting(T)

    def step(x, lr):
        group["lr"] = lr.item()
        return train(w, optimizer, x)

    g = compile(step)
    for lr in (0.1, 0.2, 0.1):
        yield g(T.ones(2), T.tensor(lr)), w


@falls_back
def tensor_as_the_rate(T, compile):
    w, optimizer, group = setting(T)

    def step(x, lr):
        group["lr"] = lr
        return train(w, optimizer, x)

    g = compile(step)
    for lr in (0.1, 0.2, 0.1):
        yield g(T.ones(2), T.tensor(lr)), w


@program
def state_dicts_made_inside(T, compile):
    w, optimizer, group = setting(T)
    schedule = halving(T, optimizer)

    def step(x):
        before = optimizer.state_dict()["param_groups"][0]["lr"]
        loss = train(w, optimizer, x)
        schedule.step()
        state = schedule.state_dict()
        return loss, before, state["last_epoch"], state["base_lrs"], state["_last_lr"]

    g = compile(step)
    for _ in range(4):
        yield g(T.ones(2))
        group["lr"] *= 0.9


@program
def schedule_loaded_inside(T, compile):
    w, optimizer, group = setting(T)
    schedule = T.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1 / (1 + epoch))
    start = schedule.state_dict()

    def step(x, again):
        loss = train(w, optimizer, x)
        schedule.step()
        if again:
            schedule.load_state_dict(start)
        return loss, schedule.last_epoch

    g = compile(step)
    for k in range(8):
        yield g(T.ones(2), k % 4 == 3), group["lr"], schedule.last_epoch


def written_by_hand(T, update):
    """An optimizer of the user's: `update(state, parameter, lr)` for each parameter."""

    class ByHand(T.optim.Optimizer):
        def __init__(self, params, lr):
            super().__init__(params, {"lr": lr})

        @T.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        update(self.state[p], p, group["lr"])

    w = T.nn.Parameter(T.ones(2))
    return w, ByHand([w], 0.1)


@program
def momentum_by_hand(T, compile):
    def update(state, p, lr):
        if len(state) == 0:
            state["buffer"] = T.zeros_like(p)
        state["buffer"].mul_(0.9).add_(p.grad)
        p.add_(state["buffer"], alpha=-lr)

    w, optimizer = written_by_hand(T, update)
    g = compile(lambda x: train(w, optimizer, x))
    for k in range(6):
        yield g(T.ones(2)), w, optimizer.state[w]["buffer"]
        if k == 3:
            optimizer.state.clear()
        if k == 4:
            optimizer.state[w]["buffer"] = T.zeros(2)


@program
def first_step_of_its_own(T, compile):
    def update(state, p, lr):
        if "buffer" not in state:
            buffer = state["buffer"] = p.grad.clone() * 2
        else:
            buffer = state["buffer"]
            buffer.mul_(0.9).add_(p.grad)
        p.add_(buffer, alpha=-lr)

    w, optimizer = written_by_hand(T, update)
    g = compile(lambda x: train(w, optimizer, x))
    for k in range(6):
        yield g(T.ones(2) + k), w, optimizer.state[w]["buffer"]


@program
def slots_bound_anew(T, compile):
    def update(state, p, lr):
        old = state.get("average")
        state["average"] = p.grad if old is None else old * 0.9 + p.grad * 0.1
        state.setdefault("count", T.zeros(())).add_(1)
        p.sub_(state["average"] * lr / state["count"])

    w, optimizer = written_by_hand(T, update)
    g = compile(lambda x: train(w, optimizer, x))
    for k in range(6):
        yield g(T.ones(2) + k), w, list(optimizer.state[w].values())


@falls_back
def steps_counted_by_hand(T, compile):
    def update(state, p, lr):
        if not state:
            state.update(step=0, buffer=T.zeros_like(p))
        state["step"] += 1
        state["buffer"].mul_(0.9).add_(p.grad, alpha=0.1)
        p.sub_(state["buffer"] * (lr / (1 - 0.9 ** state["step"])))

    w, optimizer = written_by_hand(T, update)
    g = compile(lambda x: train(w, optimizer, x))
    for k in range(8):
        yield g(T.ones(2) + k), w, list(optimizer.state[w].values())


@falls_back
def slots_dropped(T, compile):
    w, optimizer, _ = setting(T, momentum=0.9)

    def step(x, again):
        if again:
            optimizer.state.clear()
        return train(w, optimizer, x)

    g = compile(step)
    for k in range(8):
        yield g(T.ones(2), k % 3 == 2), w


@falls_back
def slots_of_one_parameter_dropped(T, compile):
    w, optimizer, _ = setting(T, "Adam")

    def step(x, again):
        if again:
            optimizer.state[w] = {}
        loss = train(w, optimizer, x)
        if again:
            del optimizer.state[w]
        return loss

    g = compile(step)
    for k in range(8):
        yield g(T.ones(2), k % 3 == 2), w


@falls_back
def parameter_replaced(T, compile):
    model = T.nn.Linear(2, 1, bias=False)
    with T.no_grad():
        model.weight.fill_(1.0)

    def step(x):
        model.weight = T.nn.Parameter(model.weight.detach() * 2)
        return model(x)

    g = compile(step)
    for _ in range(4):
        yield g(T.ones(1, 2)), type(model.weight).__name__, len(list(model.parameters()))


@falls_back
def parameter_returned(T, compile):
    def step(x):
        return T.nn.Parameter(x * 2)

    g = compile(step)
    for k in range(3):
        made = g(T.ones(2) * k)
        yield made, type(made).__name__, made.is_leaf, made.requires_grad


@program
def schedules_resumed(T, compile):
    for make in (
        lambda o, e: T.optim.lr_scheduler.StepLR(o, 2, 0.5, last_epoch=e),
        lambda o, e: T.optim.lr_scheduler.MultiStepLR(o, [0, 2, 4], 0.5, last_epoch=e),
    ):
        for epoch in (-1, 0, 1, 2):
            _, optimizer, group = setting(T)
            group["initial_lr"] = 0.1
            schedule = make(optimizer, epoch)
            for _ in range(4):
                yield group["lr"], schedule.last_epoch
                schedule.step()


def test_the_way_out_is_named():
    w, optimizer, group = setting(tg)

    def step(x, lr):
        group["lr"] = lr.item()
        return train(w, optimizer, x)

    with pytest.raises(GraphBreakError, match=r"param_groups.*\n(.*\n)*.*lr\.item\(\)"):
        tg.compile(step, fullgraph=True)(tg.ones(2), tg.tensor(0.5))
    assert group["lr"] == 0.1


def test_a_failed_step_leaves_the_group_as_it_was(backend):
    table = tg.nn.Embedding(3, 1)
    optimizer = tg.optim.SGD(table.parameters(), lr=1.0)
    (group,) = optimizer.param_groups

    def step(index):
        group["lr"] *= 0.5
        optimizer.zero_grad()
        loss = table(index).sum()
        loss.backward()
        optimizer.step()
        return loss

    g = tg.compile(step, backend=backend)
    g(tg.tensor([0]))
    with pytest.raises(IndexError):
        g(tg.tensor([7]))
    assert group["lr"] == 0.5
    g(tg.tensor([2]))
    assert group["lr"] == 0.25 and g.stats()["recordings"] == 1


def test_a_recording_thrown_away_leaves_the_group_as_it_was():
    w, optimizer, group = setting(tg)

    def step(x):
        group["lr"] = 0.5
        group["mine"] = 1
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        tg.compile(step)(tg.ones(2))
    assert group["lr"] == 0.1 and "mine" not in group


def test_a_write_in_a_branch_of_a_graph_is_refused():
    w, optimizer, group = setting(tg)

    def halve(x):
        group["lr"] = 0.5
        return x

    with pytest.raises(GraphBreakError, match="ParamGroup.* inside"):
        tg.compile(lambda x: tg.cond(x.sum() > 0, halve, lambda x: x, (x,)), fullgraph=True)(
            tg.ones(2)
        )
