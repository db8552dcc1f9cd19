"""Learning-rate schedules against torch.optim.lr_scheduler, step by step."""

import pytest
import torch

import tracegrad as tg
from tracegrad import nn, optim

# PyTorch warns of steps without an optimiser step, and of explicit epochs; both are meant here.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Detected call of"),
    pytest.mark.filterwarnings("ignore:The epoch parameter"),
]

CASES = {
    "step": lambda L, o: L.StepLR(o, 3, gamma=0.5),
    "multi": lambda L, o: L.MultiStepLR(o, [2, 5, 5, 9], gamma=0.5),
    "exponential": lambda L, o: L.ExponentialLR(o, 0.9),
    "constant": lambda L, o: L.ConstantLR(o, factor=0.5, total_iters=4),
    "linear": lambda L, o: L.LinearLR(o, start_factor=0.2, end_factor=0.9, total_iters=6),
    "polynomial": lambda L, o: L.PolynomialLR(o, total_iters=8, power=2.0),
    "cosine": lambda L, o: L.CosineAnnealingLR(o, 6, eta_min=0.01),
    "warm": lambda L, o: L.CosineAnnealingWarmRestarts(o, 3, T_mult=2, eta_min=0.01),
    "lambda": lambda L, o: L.LambdaLR(o, lambda epoch: 0.9**epoch),
    "lambdas": lambda L, o: L.LambdaLR(o, [lambda e: 1 / (1 + e), lambda e: 0.5]),
    "multiplicative": lambda L, o: L.MultiplicativeLR(o, lambda epoch: 0.95),
    "one-cycle": lambda L, o: L.OneCycleLR(o, 0.5, total_steps=21),
    "one-cycle-3": lambda L, o: L.OneCycleLR(
        o, [0.5, 0.3], epochs=3, steps_per_epoch=7, three_phase=True, anneal_strategy="linear"
    ),
    "sequential": lambda L, o: L.SequentialLR(
        o,
        [L.LinearLR(o, 0.1, total_iters=4), L.CosineAnnealingLR(o, 10), L.ExponentialLR(o, 0.8)],
        [4, 12],
    ),
    "sequential-warm": lambda L, o: L.SequentialLR(
        o, [L.ConstantLR(o, 0.1, 3), L.CosineAnnealingWarmRestarts(o, 4)], [3]
    ),
    "chained": lambda L, o: L.ChainedScheduler(
        [L.ConstantLR(o, 0.1, 4), L.ExponentialLR(o, 0.9)], optimizer=o
    ),
}


def optimisers(name="SGD"):
    """One optimiser of two groups in each library."""
    options = {"momentum": 0.9} if name == "SGD" else {}
    ours = [nn.Parameter(tg.ones(1)), nn.Parameter(tg.ones(1))]
    theirs = [torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))]

    def groups(p):
        return [{"params": [p[0]]}, {"params": [p[1]], "lr": 0.3}]

    return (
        getattr(optim, name)(groups(ours), lr=0.1, **options),
        getattr(torch.optim, name)(groups(theirs), lr=0.1, **options),
    )


def hyper(opt):
    keys = ("lr", "initial_lr", "momentum", "betas", "max_momentum", "base_momentum")
    return [
        x
        for g in opt.param_groups
        for key in keys
        if g.get(key) is not None
        for x in (g[key] if isinstance(g[key], tuple) else (g[key],))
    ]


@pytest.mark.parametrize("name", ["SGD", "Adam"])
@pytest.mark.parametrize("case", CASES)
def test_twenty_steps(case, name):
    a, b = optimisers(name)
    ours, theirs = CASES[case](optim.lr_scheduler, a), CASES[case](torch.optim.lr_scheduler, b)
    for _ in range(20):
        assert hyper(a) == pytest.approx(hyper(b), rel=1e-12)
        assert list(ours.get_last_lr()) == pytest.approx(list(theirs.get_last_lr()), rel=1e-12)
        a.step()
        b.step()
        ours.step()
        theirs.step()


@pytest.mark.parametrize("case", [c for c in CASES if "lambda" not in c and "multip" not in c])
def test_state_dict_resumes(case):
    a, b = optimisers()[0], optimisers()[0]
    first = CASES[case](optim.lr_scheduler, a)
    for _ in range(7):
        first.step()
    second = CASES[case](optim.lr_scheduler, b)
    second.load_state_dict(first.state_dict())
    b.load_state_dict(a.state_dict())
    for _ in range(8):
        first.step()
        second.step()
        assert hyper(a) == hyper(b)


@pytest.mark.parametrize(
    "case",
    ["step", "multi", "exponential", "constant", "linear", "polynomial", "cosine", "warm"],
)
def test_explicit_epoch(case):
    a, b = optimisers()
    ours, theirs = CASES[case](optim.lr_scheduler, a), CASES[case](torch.optim.lr_scheduler, b)
    for epoch in (4, 2, 7):
        ours.step(epoch)
        theirs.step(epoch)
        assert hyper(a) == pytest.approx(hyper(b), rel=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mode": "max", "patience": 1, "cooldown": 2},
        {"threshold_mode": "abs", "threshold": 0.3, "patience": 0, "min_lr": [0.05, 0.2]},
    ],
    ids=str,
)
def test_reduce_on_plateau(options):
    a, b = optimisers()
    ours = optim.lr_scheduler.ReduceLROnPlateau(a, **{"patience": 2, **options})
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(b, **{"patience": 2, **options})
    metrics = [3.0, 2.0, 2.0, 2.0, 2.0, 1.9, 2.5, 2.5, 2.5, 2.5, 2.5, 0.1, 0.1, 0.1, 0.1]
    for value in metrics:
        ours.step(tg.tensor(value))
        theirs.step(value)
        assert hyper(a) == pytest.approx(hyper(b), rel=1e-12)
    assert ours.num_bad_epochs == theirs.num_bad_epochs


def test_lambda_state_skips_functions_and_keeps_objects():
    class Decay:
        def __init__(self):
            self.rate = 0.5

        def __call__(self, epoch):
            return self.rate**epoch

    a = optimisers()[0]
    first = optim.lr_scheduler.LambdaLR(a, [Decay(), lambda e: 1.0])
    state = first.state_dict()
    assert state["lr_lambdas"] == [{"rate": 0.5}, None]
    second = optim.lr_scheduler.LambdaLR(optimisers()[0], [Decay(), lambda e: 1.0])
    second.lr_lambdas[0].rate = 0.1
    second.load_state_dict(state)
    assert second.lr_lambdas[0].rate == 0.5


@pytest.mark.parametrize(
    "make, error",
    [
        (lambda L, o: L.OneCycleLR(o, 0.1), ValueError),
        (lambda L, o: L.OneCycleLR(o, 0.1, total_steps=0), ValueError),
        (lambda L, o: L.LinearLR(o, start_factor=0.0), ValueError),
        (lambda L, o: L.ConstantLR(o, factor=2.0), ValueError),
        (lambda L, o: L.CosineAnnealingWarmRestarts(o, 0), ValueError),
        (lambda L, o: L.LambdaLR(o, [abs]), ValueError),
        (lambda L, o: L.SequentialLR(o, [], []), ValueError),
        (lambda L, o: L.SequentialLR(o, [L.StepLR(o, 1)], [3]), ValueError),
        (lambda L, o: L.SequentialLR(o, [L.ReduceLROnPlateau(o)], []), ValueError),
        (lambda L, o: L.ReduceLROnPlateau(o, factor=1.0), ValueError),
        (lambda L, o: L.StepLR(3, 1), TypeError),
        (lambda L, o: L.StepLR(o, 1, last_epoch=3), KeyError),
    ],
)
def test_errors(make, error):
    with pytest.raises(error):
        make(optim.lr_scheduler, optimisers()[0])


def test_one_cycle_refuses_to_run_past_its_end():
    scheduler = optim.lr_scheduler.OneCycleLR(optimisers()[0], 0.1, total_steps=2)
    scheduler.step()
    scheduler.step()
    with pytest.raises(ValueError, match="Tried to step 3 times"):
        scheduler.step()


@pytest.mark.parametrize("case", [c for c in CASES if "one-cycle" not in c and c != "lambdas"])
def test_a_rate_that_is_a_tensor_is_written_in_place(case):
    ours, theirs = tg.tensor(0.1), torch.tensor(0.1)
    a = optim.SGD([{"params": [nn.Parameter(tg.ones(1))]}], lr=ours)
    b = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.ones(1))]}], lr=theirs)
    first, second = CASES[case](optim.lr_scheduler, a), CASES[case](torch.optim.lr_scheduler, b)
    for _ in range(8):
        assert a.param_groups[0]["lr"] is ours
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
        assert float(first.get_last_lr()[0]) == pytest.approx(float(second.get_last_lr()[0]), 1e-5)
        for step in (a, b, first, second):
            step.step()


@pytest.mark.parametrize(
    "kind, options", [("ReduceLROnPlateau", {}), ("StepLR", {"step_size": 1})], ids=str
)
def test_a_step_by_a_value_of_the_graph_is_refused_by_its_public_name(kind, options):
    weight = tg.ones(2, requires_grad=True)
    optimizer = tg.optim.SGD([weight], lr=0.1)
    schedule = getattr(tg.optim.lr_scheduler, kind)(optimizer, **options)

    def step(x):
        loss = (weight * x).sum()
        schedule.step(loss.detach())
        return loss

    with pytest.raises(tg.errors.GraphBreakError, match=rf"{kind}\.step\(\) with a value"):
        tg.compile(step, fullgraph=True)(tg.ones(2))


@pytest.mark.parametrize("case", ["step", "warm", "lambda", "multiplicative", "one-cycle"])
def test_a_group_that_is_added_later(case):
    """Taken along by schedules that read the groups; an error where they know fewer of them."""

    def rates(T, nn, optim):
        optimizer = optim.SGD([nn.Parameter(T.ones(2))], lr=0.5, momentum=0.9)
        schedule = CASES[case](optim.lr_scheduler, optimizer)
        initial = {"initial_lr": 0.3, "max_lr": 0.4, "min_lr": 0.1, "max_momentum": 0.9}
        added = {"params": [nn.Parameter(T.ones(1))], "lr": 0.3, "base_momentum": 0.8, **initial}
        optimizer.add_param_group(added)
        optimizer.step()
        try:
            schedule.step()
        except ValueError:
            return "refused"
        return [pytest.approx(group["lr"]) for group in optimizer.param_groups]

    ours = rates(tg, nn, optim)
    assert ours == rates(torch, torch.nn, torch.optim)
    assert (ours == "refused") == (case in ("warm", "lambda", "multiplicative"))


def test_a_class_of_the_users():
    def rates(L, o):
        class Warmup(L._LRScheduler):
            def __init__(self, optimizer, steps, last_epoch=-1):
                self.steps = steps
                super().__init__(optimizer, last_epoch)

            def get_lr(self):
                part = min(1.0, (self.last_epoch + 1) / self.steps)
                return [base * part for base in self.base_lrs]

        schedule = Warmup(o, 4)
        found = [schedule.get_last_lr()]
        for _ in range(6):
            o.step()
            schedule.step()
            found.append(schedule.get_last_lr())
        return found

    ours, theirs = optimisers("SGD")
    assert rates(optim.lr_scheduler, ours) == rates(torch.optim.lr_scheduler, theirs)
