"""Parameter groups read and written inside a step."""

import math

from tests.runtime.host_state.registry import falls_back, program, setting, train


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
    if hasattr(g, "stats"):
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
        rates += [float(str(group).split("'lr': ")[1].split(",")[0]), float(repr(group["lr"]))]
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
