"""Optimisers as users write them: slots made, filled and counted in `step`, on plain `self.state`."""

import tracegrad as tg
from tests.runtime.hazards.registry import hazard, linear, train_step
from tests.runtime.programs import ramp


def _filled(slots, wanted, p):
    if wanted:
        slots["m"] = tg.zeros_like(p)
    return slots


def _made(table, p):
    if p not in table:
        table[p] = {"m": tg.zeros_like(p)}
    return table[p]


class OwnMomentum(tg.optim.Optimizer):
    """An optimiser as users write them: slots made in `step`, on plain `self.state`."""

    def __init__(self, params, form):
        super().__init__(params, {"lr": 0.1})
        self.form = form

    @tg.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                slots = self.form(self.state, p)
                slots["m"].mul_(0.9).add_(p.grad)
                p.add_(slots["m"], alpha=-group["lr"])


def _own_momentum(compile, form):
    m = linear()
    opt = OwnMomentum(m.parameters(), form)
    step = train_step(compile, m, opt)
    for _ in range(4):
        yield step(ramp(2, 3)), m.weight, opt.state[m.weight]["m"]
    opt.state.clear()
    for _ in range(2):
        yield step(ramp(2, 3)), m.weight, opt.state[m.weight]["m"]


@hazard
def own_optimiser_filling_empty_slots(compile):
    yield from _own_momentum(compile, lambda t, p: _filled(t[p], not t[p], p))


@hazard
def own_optimiser_filling_slots_of_length_zero(compile):
    yield from _own_momentum(compile, lambda t, p: _filled(t[p], len(t[p]) == 0, p))


@hazard
def own_optimiser_filling_a_missing_slot(compile):
    yield from _own_momentum(compile, lambda t, p: _filled(t[p], "m" not in t[p], p))


@hazard
def own_optimiser_making_slots_for_a_missing_parameter(compile):
    yield from _own_momentum(compile, _made)


class OwnAdam(tg.optim.Optimizer):
    """Adam as one finds it in repositories: a Python count of steps among the slots."""

    def __init__(self, params, lr=0.1, betas=(0.9, 0.999), eps=1e-8):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @tg.no_grad()
    def step(self):
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                state = self.state[p]
                if len(state) == 0:
                    state["step"] = 0
                    state["exp_avg"] = tg.zeros_like(p)
                    state["exp_avg_sq"] = tg.zeros_like(p)
                state["step"] += 1
                m, v = state["exp_avg"], state["exp_avg_sq"]
                m.mul_(beta1).add_(p.grad, alpha=1 - beta1)
                v.mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
                size = group["lr"] / (1 - beta1 ** state["step"])
                scale = (1 - beta2 ** state["step"]) ** 0.5
                p.addcdiv_(m, v.sqrt().div_(scale).add_(group["eps"]), value=-size)


@hazard
def own_adam_that_counts_its_steps(compile):
    m = linear()
    opt = OwnAdam(m.parameters())
    step = train_step(compile, m, opt)
    for k in range(5):
        yield step(ramp(2, 3)), m.weight, opt.state[m.weight]["step"]
        opt.param_groups[0]["lr"] = 0.1 / (k + 2)
    opt.state[m.weight]["step"] = 1
    yield step(ramp(2, 3)), m.weight, {k: v for k, v in opt.state[m.weight].items()}
