"""Ordinary scripts about habits of training: frozen layers, hooks, averages of weights, checkpoints.

Each is a function of the library it imports (`torch` or tracegrad), of what is compiled (`wrap`
takes a step or a model) and of the number of steps.
"""

import copy
import io

import numpy as np
from scripts_images import fill, numbers, weights


def fine_tuning(torch, wrap, steps=6):
    """A frozen backbone, a fresh head, groups with own rates, unfreezing in the middle, an EMA."""
    nn, F = torch.nn, torch.nn.functional

    class EMA:
        def __init__(self, model, decay):
            self.decay = decay
            self.shadow = {n: p.data.clone() for n, p in model.named_parameters()}

        @torch.no_grad()
        def update(self, model):
            for name, param in model.named_parameters():
                self.shadow[name].mul_(self.decay).add_(param.data, alpha=1.0 - self.decay)

    backbone = nn.Sequential(
        nn.Conv1d(2, 4, 3, padding=1), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten(1)
    )
    model = nn.Sequential()
    model.add_module("backbone", backbone)
    model.add_module("head", nn.Linear(4 * 6, 7))
    fill(torch, model)
    state = copy.deepcopy(model.state_dict())
    model.head = fill(torch, nn.Linear(model.head.in_features, 3), 5)
    missing = model.load_state_dict(
        {k: v for k, v in state.items() if not k.startswith("head")}, strict=False
    )
    for param in model.backbone.parameters():
        param.requires_grad_(False)
    net = wrap(model)
    ema = EMA(model, 0.9)
    optimizer = torch.optim.AdamW(
        filter(lambda p: p.requires_grad, model.parameters()), lr=1e-2, weight_decay=0.01
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda e: min(1.0, (e + 1) / 3))

    def train_step(x, y):
        model.backbone.eval()
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        ema.update(model)
        return loss

    train_step = wrap(train_step)
    losses = []
    for i in range(steps):
        if i == steps // 2:
            for param in model.backbone.parameters():
                param.requires_grad = True
            optimizer.add_param_group({"params": list(model.backbone.parameters()), "lr": 1e-3})
            scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)
        y = torch.tensor([0, 1, 2, 1])
        losses.append(train_step(torch.tensor(numbers(i % 3, 4, 2, 6)), y).item())
        scheduler.step()
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    return {
        "losses": losses,
        "missing": len(missing.missing_keys),
        "frozen": frozen,
        "rates": [group["lr"] for group in optimizer.param_groups],
        **{f"ema.{k}": v.numpy() for k, v in ema.shadow.items()},
        **weights(model),
    }


def hooks_and_containers(torch, wrap, steps=3):
    """Forward hooks that note and change, a gradient hook, ModuleDict, ParameterDict, apply."""
    nn, F = torch.nn, torch.nn.functional

    class Router(nn.Module):
        def __init__(self):
            super().__init__()
            self.branches = nn.ModuleDict(
                {"conv": nn.Linear(4, 4), "skip": nn.Identity(), "deep": nn.Sequential()}
            )
            for _ in range(2):
                self.branches["deep"].append(nn.Linear(4, 4))
                self.branches["deep"].append(nn.SELU())
            self.scales = nn.ParameterDict(
                {name: nn.Parameter(torch.ones(4)) for name in self.branches}
            )
            self.gains = nn.ParameterList([nn.Parameter(torch.tensor(1.0)) for _ in range(3)])
            self.act = {"relu": F.relu, "gelu": F.gelu}["gelu"]

        def forward(self, x, route=("conv", "skip", "deep")):
            outs = [self.scales[name] * self.branches[name](x) for name in route]
            total = sum(gain * out for gain, out in zip(self.gains, outs))
            return self.act(total)

    model = nn.Sequential(Router(), Router(), nn.Linear(4, 2))
    fill(torch, model)

    def init_weights(m):
        if type(m) is nn.Linear:
            m.bias.data.fill_(0.01)

    model.apply(init_weights)

    def amplified(factor):
        def hook(module, inputs, output):
            module.calls = output.shape[0]
            return output * factor

        return hook

    model[0].branches["conv"].register_forward_hook(amplified(1.5))
    handle = model[1].register_forward_pre_hook(lambda module, args: (args[0] * 0.5,))
    model[2].weight.register_hook(lambda grad: grad.clamp(-0.1, 0.1))
    net = wrap(model)
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.05)

    def train_step(x, y):
        optimizer.zero_grad()
        loss = F.mse_loss(net(x), y)
        loss.backward()
        optimizer.step()
        return loss

    train_step = wrap(train_step)
    losses = []
    for i in range(steps):
        x, y = torch.tensor(numbers(i % 3, 5, 4)), torch.tensor(numbers(i % 3 + 9, 5, 2))
        losses.append(train_step(x, y).item())
    handle.remove()
    model.eval()
    with torch.no_grad():
        out = model(torch.tensor(numbers(50, 2, 4)))
    return {
        "losses": losses,
        "calls": model[0].branches["conv"].calls,
        "out": out.numpy(),
        **weights(model),
    }


def epochs_and_checkpoints(torch, wrap, steps=4):
    """A loader whose last batch is smaller, gradient accumulation, a checkpoint, the best model kept."""
    nn, F = torch.nn, torch.nn.functional
    data = torch.utils.data

    class Pairs(data.Dataset):
        def __init__(self, n):
            self.x, self.y = numbers(3, n, 5), np.random.RandomState(4).randint(0, 3, n)

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return {"x": self.x[index], "y": int(self.y[index])}

    dataset = Pairs(22)
    loader = data.DataLoader(data.Subset(dataset, range(14)), batch_size=4, shuffle=False)
    valid = data.DataLoader(data.Subset(dataset, range(14, 22)), batch_size=3)
    model = fill(
        torch,
        nn.Sequential(nn.Linear(5, 6, bias=False), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)),
    )
    net = wrap(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.02, total_steps=200)
    accumulation = 2

    def train_step(batch, update):
        loss = F.cross_entropy(net(batch["x"]), batch["y"])
        (loss / accumulation).backward()
        if update:
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
        return loss

    train_step = wrap(train_step)
    history, best, best_model, file = [], float("inf"), None, io.BytesIO()
    for epoch in range(max(1, steps // 2)):
        model.train()
        for i, batch in enumerate(loader):
            update = (i + 1) % accumulation == 0 or i + 1 == len(loader)
            history.append(train_step(batch, update).item())
        model.eval()
        total, right = 0.0, 0
        with torch.no_grad():
            for batch in valid:
                logits = model(batch["x"])
                total += F.cross_entropy(logits, batch["y"], reduction="sum").item()
                right += (logits.argmax(dim=1) == batch["y"]).sum().item()
        history += [total / 8, right / 8]
        if total < best:
            best, best_model = total, copy.deepcopy(model)
        if epoch == 0:
            torch.save({"model": model.state_dict(), "optim": optimizer.state_dict()}, file)
            file.seek(0)
            saved = torch.load(file)
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optim"])
    return {
        "history": history,
        "lr": scheduler.get_last_lr(),
        **weights(model),
        **{f"best.{k}": v for k, v in weights(best_model).items()},
    }


def minibatches_by_slicing(torch, wrap, steps=6):
    """Whole data in one tensor, batches cut by slices and by a permutation, weights updated by hand."""
    F = torch.nn.functional
    X, Y = torch.tensor(numbers(0, 20, 4)), torch.tensor(numbers(1, 20, 1))
    w1 = torch.tensor(numbers(2, 4, 6, scale=0.5), requires_grad=True)
    b1 = torch.zeros(6, requires_grad=True)
    w2 = torch.tensor(numbers(3, 6, 1, scale=0.5)).requires_grad_()
    params = [w1, b1, w2]

    def train_step(xb, yb, lr):
        pred = (xb @ w1 + b1).clamp(min=0) @ w2
        loss = F.mse_loss(pred, yb)
        loss.backward()
        with torch.no_grad():
            for p in params:
                p -= lr * p.grad
                p.grad.zero_()
        return loss

    train_step = wrap(train_step)
    losses, bs = [], 5
    order = torch.from_numpy(np.random.RandomState(0).permutation(20))
    for i in range(steps):
        start = (i * bs) % 20
        if i % 2:
            index = order[start : start + bs]
            xb, yb = X[index], Y[index]
        else:
            xb, yb = X[start : start + bs], Y[start : start + bs]
        losses.append(train_step(xb, yb, 0.05).item())
    return {"losses": losses, **{f"p{k}": p.detach().numpy() for k, p in enumerate(params)}}


SCRIPTS = [fine_tuning, hooks_and_containers, epochs_and_checkpoints, minibatches_by_slicing]
