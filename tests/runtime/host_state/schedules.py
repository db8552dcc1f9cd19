"""Schedules stepped, asked and changed inside a step."""

from tests.runtime.host_state.registry import falls_back, halving, program, setting, train


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
