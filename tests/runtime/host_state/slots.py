"""Slots and parameters made inside a step, and optimizers written by hand."""

import copy

from tests.runtime.host_state.registry import falls_back, program, setting, train


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


@program
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


@program
def slots_held_under_another_name(T, compile):
    w, optimizer = written_by_hand(T, None)
    state = optimizer.state[w]
    state.update(step=0, buffer=T.zeros(2))

    def step(x):
        state["step"] += 1
        with T.no_grad():
            w.sub_(state["buffer"].mul_(0.5).add_(x) * state["step"])
        return x * 1

    g = compile(step)
    for k in range(6):
        yield g(T.ones(2) + k), w, list(state.values())
        if k == 2:
            state["buffer"] = T.ones(2)
        if k == 4:
            state["step"] = 10
    if hasattr(g, "stats"):
        assert g.stats()["recordings"] == 2  # the buffer is another one


@program
def slots_shown_copied_and_merged(T, compile):
    def update(state, p, lr):
        if not state:
            state["step"] = 0
        state |= {"step": state["step"] + 1}
        copied = copy.deepcopy(state)
        if "2" in repr(state):
            p.sub_(p.grad)
        p.sub_(p.grad * copied["step"] * copy.deepcopy(lr))

    w, optimizer = written_by_hand(T, update)
    g = compile(lambda x: train(w, optimizer, x))
    for _ in range(3):
        yield g(T.ones(2)), w, list(optimizer.state[w].values())


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
