"""What functions given to `cond`, `while_loop` and `vmap` may not do says so, in eager too."""

import pytest

import tracegrad as tg


def branch(then):
    return tg.cond(tg.ones(1).sum() > 0, then, lambda: tg.zeros(()))


@pytest.fixture
def layer():
    return tg.nn.Linear(2, 2)


def refused(body, what):
    with pytest.raises(tg.errors.UnsupportedError, match=what) as error:
        branch(lambda: body() or tg.ones(()))
    assert "test_nested_functions.py" in str(error.value)


def test_the_step_of_a_schedule(layer):
    opt = tg.optim.SGD(layer.parameters(), lr=1.0)
    sched = tg.optim.lr_scheduler.StepLR(opt, 1)
    refused(sched.step, "a step of StepLR inside cond")
    assert opt.param_groups[0]["lr"] == 1.0 and sched.last_epoch == 0


def test_a_write_to_param_groups(layer):
    opt = tg.optim.SGD(layer.parameters(), lr=1.0)
    group = opt.param_groups[0]
    refused(lambda: group.update(lr=2.0), "a write to param_groups inside cond")
    assert group["lr"] == 1.0


def test_backward_to_an_outside_tensor(layer):
    refused(lambda: layer(tg.ones(1, 2)).sum().backward(), r"backward\(\) to an outside tensor")
    assert layer.weight.grad is None


def test_requires_grad_of_an_outside_tensor(layer):
    refused(lambda: layer.weight.requires_grad_(False).sum(), "requires_grad_.* of an outside")
    assert layer.weight.requires_grad


def test_a_write_to_the_gradient_of_an_outside_tensor(layer):
    refused(layer.zero_grad, "a write to .grad of an outside tensor")


@pytest.mark.parametrize(
    "call",
    [
        lambda x: tg.vmap(lambda row: row.mul_(2))(x),
        lambda x: tg.cond(x.sum() > 0, lambda x: x[0].mul_(2), lambda x: x[0], (x,)),
        lambda x: tg.cond(x.sum() > 0, lambda: x[0].mul_(2), lambda: x[0]),
        lambda x: tg.while_loop(lambda x: x.sum() < 9, lambda x: (x.mul_(2),), (x,)),
    ],
)
def test_a_write_that_the_caller_would_not_see(call):
    x = tg.ones(2, 2)
    with pytest.raises(tg.errors.UnsupportedError, match="in-place write on an argument") as error:
        call(x)
    assert "test_nested_functions.py" in str(error.value)


def test_a_tensor_that_got_out_tells_the_way_out():
    kept = []
    branch(lambda: kept.append(tg.ones(2) * 2) or tg.ones(()))
    with pytest.raises(tg.errors.LeakedTensorError, match="from the function given to cond"):
        kept[0].sum()
