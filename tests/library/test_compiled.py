"""Library code inside compiled steps: equal to eager, one recording, state updated in place."""

import numpy as np
import pytest

import tracegrad as tg
from tracegrad import nn, optim

RNG = np.random.default_rng(0)
X = RNG.standard_normal((6, 5)).astype(np.float32)
Y = RNG.integers(0, 3, 6)


def small_net():
    return nn.Sequential(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Dropout(0.2), nn.Linear(8, 3)
    )


def training(make_optimizer, make_schedule=None, clip=None):
    """A fresh model with its step function; everything seeded."""
    tg.manual_seed(1)
    model = small_net()
    opt = make_optimizer(model.parameters())
    schedule = make_schedule(opt) if make_schedule else None

    def step(x, y):
        opt.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        opt.step()
        if schedule:
            schedule.step()
        return loss

    return model, opt, schedule, step


def run(pieces, compiled, steps=5):
    model, opt, schedule, step = pieces
    call = tg.compile(step, backend="numpy", fullgraph=True) if compiled else step
    x, y = tg.tensor(X), tg.tensor(Y)
    tg.manual_seed(2)  # both runs draw the same dropout masks
    losses = [call(x, y).item() for _ in range(steps)]
    return losses, call


def assert_same_state(a, b):
    for (name, mine), (_, other) in zip(a.state_dict().items(), b.state_dict().items()):
        np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=2e-4, atol=2e-6, err_msg=name)


OPTIMISERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "dampening": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5),
    "adam": lambda p: optim.Adam(p, lr=0.01, weight_decay=0.01),
    "amsgrad": lambda p: optim.Adam(p, lr=0.01, amsgrad=True),
    "adamw": lambda p: optim.AdamW(p, lr=0.01),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.1, lr_decay=0.1),
}
SCHEDULES = {
    "cosine": lambda o: optim.lr_scheduler.CosineAnnealingLR(o, 5),
    "one-cycle": lambda o: optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=10),
    "sequential": lambda o: optim.lr_scheduler.SequentialLR(
        o,
        [optim.lr_scheduler.LinearLR(o, total_iters=2), optim.lr_scheduler.ExponentialLR(o, 0.9)],
        [2],
    ),
    "chained": lambda o: optim.lr_scheduler.ChainedScheduler(
        [optim.lr_scheduler.ConstantLR(o, 0.5, 2), optim.lr_scheduler.ExponentialLR(o, 0.9)]
    ),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser(name):
    eager, compiled = training(OPTIMISERS[name]), training(OPTIMISERS[name])
    expected, _ = run(eager, False)
    losses, call = run(compiled, True)
    assert losses == pytest.approx(expected, rel=1e-4)
    assert call.stats()["compiles"] == 1 and call.stats()["recordings"] == 1, call.why()
    assert_same_state(compiled[0], eager[0])
    a, b = compiled[1].state_dict(), eager[1].state_dict()
    assert a["state"].keys() == b["state"].keys()
    for key, slots in b["state"].items():
        for slot, value in slots.items():
            mine = a["state"][key][slot].numpy()
            np.testing.assert_allclose(mine, value.numpy(), rtol=1e-3, atol=1e-6, err_msg=slot)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("kind", ["momentum", "adam"])
def test_schedules_never_recompile(name, kind):
    eager = training(OPTIMISERS[kind], SCHEDULES[name], clip=0.5)
    compiled = training(OPTIMISERS[kind], SCHEDULES[name], clip=0.5)
    expected, _ = run(eager, False)
    losses, call = run(compiled, True)
    assert losses == pytest.approx(expected, rel=1e-4)
    assert call.stats()["compiles"] == 1, call.why()
    assert compiled[2].get_last_lr() == eager[2].get_last_lr()
    assert compiled[2].state_dict() == eager[2].state_dict()


def test_changing_an_option_is_noticed():
    pieces = training(OPTIMISERS["momentum"])
    other = training(OPTIMISERS["momentum"])
    _, call = run(pieces, True, 2)
    run(other, False, 2)
    for opt in (pieces[1], other[1]):
        opt.param_groups[0]["lr"] = 0.5
        opt.param_groups[0]["nesterov"] = False
    x, y = tg.tensor(X), tg.tensor(Y)
    for seed in (3, 4):
        tg.manual_seed(seed)
        mine = call(x, y).item()
        tg.manual_seed(seed)
        assert mine == pytest.approx(other[3](x, y).item(), rel=1e-4)
    assert_same_state(pieces[0], other[0])


def test_loading_a_checkpoint_reaches_the_compiled_step():
    pieces, other = training(OPTIMISERS["adam"]), training(OPTIMISERS["adam"])
    _, call = run(pieces, True, 3)
    run(other, False, 1)
    pieces[0].load_state_dict(other[0].state_dict())
    pieces[1].load_state_dict(other[1].state_dict())
    x, y = tg.tensor(X), tg.tensor(Y)
    pieces[0].eval()
    other[0].eval()
    for _ in range(3):
        assert call(x, y).item() == pytest.approx(other[3](x, y).item(), rel=1e-4)
    assert_same_state(pieces[0], other[0])


@pytest.mark.parametrize("name", ["dampening", "adam"])
def test_replaced_slots_are_noticed(name):
    pieces, other = training(OPTIMISERS[name]), training(OPTIMISERS[name])
    pieces[0].eval()
    other[0].eval()
    _, call = run(pieces, True, 3)
    run(other, False, 3)
    x, y = tg.tensor(X), tg.tensor(Y)
    for opt in (pieces[1], other[1]):
        slots = opt.state[opt.param_groups[0]["params"][0]]
        for key in slots:
            slots[key] = slots[key] * 0.5
    assert call(x, y).item() == pytest.approx(other[3](x, y).item(), rel=1e-4)
    for opt in (pieces[1], other[1]):  # a usual way to forget all momentum
        opt.state = type(opt.state)(dict)
    for _ in range(3):
        assert call(x, y).item() == pytest.approx(other[3](x, y).item(), rel=1e-4)
    assert_same_state(pieces[0], other[0])


def test_train_and_eval_are_separate_graphs():
    tg.manual_seed(0)
    model = small_net()
    call = tg.compile(lambda x: model(x), backend="numpy")
    x = tg.tensor(X)
    first, second = call(x).detach().numpy(), call(x).detach().numpy()
    assert (first != second).any()  # dropout draws anew
    model.eval()
    a, b, c = call(x).detach().numpy(), call(x).detach().numpy(), model(x).detach().numpy()
    np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(a, c, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "build, shape",
    [
        (lambda: nn.LSTM(4, 3, 2, bidirectional=True, batch_first=True), (2, 5, 4)),
        (lambda: nn.GRU(4, 3), (5, 2, 4)),
        (lambda: nn.RNN(4, 3), (5, 2, 4)),
        (lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True), (2, 5, 4)),
        (lambda: nn.MultiheadAttention(4, 2, batch_first=True), (2, 5, 4)),
        (lambda: nn.BatchNorm1d(4, momentum=None), (5, 4)),
        (lambda: nn.Conv2d(4, 3, 3, padding=1, padding_mode="circular"), (2, 4, 5, 5)),
        (lambda: nn.ConvTranspose2d(4, 3, 3, stride=2), (2, 4, 5, 5)),
        (lambda: nn.GroupNorm(2, 4), (2, 4, 5)),
        (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), (2, 4, 3, 3)),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_layers_forward_and_backward(build, shape):
    x = RNG.standard_normal(shape).astype(np.float32)

    def outcome(compiled):
        tg.manual_seed(0)
        layer = build()

        def step(x):
            args = (x, x, x) if isinstance(layer, nn.MultiheadAttention) else (x,)
            out = layer(*args)
            out = out[0] if isinstance(out, tuple) else out
            (out * out).sum().backward()
            return out

        call = tg.compile(step, backend="numpy", keep_grads=True) if compiled else step
        given = tg.tensor(x, requires_grad=True)
        outs = [call(given).detach().numpy() for _ in range(3)]
        grads = [p.grad.numpy() for p in (given, *layer.parameters())]
        return outs + grads + [b.numpy() for b in layer.buffers()]

    for mine, expected in zip(outcome(True), outcome(False)):
        np.testing.assert_allclose(mine, expected, rtol=2e-4, atol=2e-5)


class Stack(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(5, 5), nn.Tanh()])
        self.table = nn.ModuleDict({"a": nn.Linear(5, 5)})
        self.scales = nn.ParameterList([tg.ones(5)])
        self.body = nn.Sequential(nn.Linear(5, 5))
        self.lstm = nn.LSTM(5, 5)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.lstm(self.body(self.table["a"](x) * self.scales[0]))[0]


CHANGES = {
    "list item": lambda m: m.layers.__setitem__(0, nn.Linear(5, 5)),
    "list append": lambda m: m.layers.append(nn.ReLU()),
    "list deletion": lambda m: m.layers.__delitem__(1),
    "dict item": lambda m: m.table.__setitem__("a", nn.Linear(5, 5)),
    "parameter in a list": lambda m: m.scales.__setitem__(0, tg.zeros(5)),
    "sequential item": lambda m: m.body.__setitem__(0, nn.Linear(5, 5)),
    "sequential append": lambda m: m.body.append(nn.Sigmoid()),
    "recurrent weight": lambda m: setattr(m.lstm, "weight_ih_l0", nn.Parameter(tg.ones(20, 5))),
    "a hook": lambda m: m.body.register_forward_hook(lambda module, args, out: out * 2),
    "eval mode": lambda m: m.layers.append(nn.Dropout(0.9)) and m.eval(),
    "a dtype": lambda m: m.half() and m.float(),
    "a buffer": lambda m: m.layers.append(nn.BatchNorm1d(5).eval()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changes_of_a_model_are_noticed(name):
    tg.manual_seed(0)
    model = Stack()
    call = tg.compile(lambda x: model(x), backend="numpy")
    x = tg.tensor(X)
    before = call(x).detach().numpy().copy()
    np.testing.assert_allclose(before, model(x).detach().numpy(), rtol=1e-5, atol=1e-6)
    CHANGES[name](model)
    tg.manual_seed(1)
    mine = call(x).detach().numpy()
    tg.manual_seed(1)
    np.testing.assert_allclose(mine, model(x).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_gradients_that_a_step_did_not_keep():
    model, opt, _, step = training(OPTIMISERS["adam"])
    call = tg.compile(step, backend="numpy")
    x, y = tg.tensor(X), tg.tensor(Y)
    call(x, y)
    with pytest.raises(RuntimeError, match="keep_grads=True"):
        model[0].weight.grad  # noqa: B018
    opt.zero_grad(set_to_none=False)  # nothing to set to zero, and no error
    model.double()
    model.float()
    call(x, y)
    opt.zero_grad()
    assert model[0].weight.grad is None
    call(x, y)
    model.zero_grad()
    assert model[0].weight.grad is None


def test_source_locations_carry_the_module_path():
    model = nn.Sequential(nn.ModuleList([nn.Linear(5, 3)])[0])
    call = tg.compile(lambda x: model(x), backend="numpy")
    call(tg.tensor(X))
    assert "Sequential.0" in str(call.graph)
