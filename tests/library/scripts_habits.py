"""Ordinary scripts about habits of training (schedules, hooks, averages of weights, checkpoints), as
functions of the library they import, of what is compiled (`wrap` takes a step or a model) and of the
number of steps.
"""

import copy
import io

import numpy as np
from scripts_images import fill, numbers, weights


def mixture_of_experts(torch, wrap, steps=4):
    """Top-k gating with a load-balancing loss; tokens gathered, experts' outputs added by index."""
    nn, F = torch.nn, torch.nn.functional

    class Expert(nn.Module):
        def __init__(self, n_embd):
            super().__init__()
            self.net = nn.Sequential(
                nn.Linear(n_embd, 2 * n_embd), nn.ReLU(), nn.Linear(2 * n_embd, n_embd)
            )

        def forward(self, x):
            return self.net(x)

    class SparseMoE(nn.Module):
        def __init__(self, n_embd, num_experts, top_k):
            super().__init__()
            self.gate = nn.Linear(n_embd, num_experts, bias=False)
            self.experts = nn.ModuleList([Expert(n_embd) for _ in range(num_experts)])
            self.top_k, self.num_experts = top_k, num_experts

        def forward(self, x):
            B, T, C = x.shape
            flat = x.view(-1, C)
            logits = self.gate(flat)
            top, indices = logits.topk(self.top_k, dim=-1)
            zeros = torch.full_like(logits, float("-inf"))
            gates = F.softmax(zeros.scatter(-1, indices, top), dim=-1)
            out = torch.zeros_like(flat)
            for i, expert in enumerate(self.experts):
                weight = gates[:, i].unsqueeze(-1)
                out = out + weight * expert(flat)
            chosen = F.one_hot(indices, self.num_experts).sum(1).float()
            density = chosen.mean(0)
            proxy = F.softmax(logits, dim=-1).mean(0)
            aux = (density * proxy).sum() * self.num_experts
            picked = torch.zeros_like(flat)
            picked.index_add_(0, indices[:, 0] % flat.shape[0], flat * 0.1)
            return (out + picked).view(B, T, C), aux

    model = nn.ModuleDict(dict(moe=SparseMoE(6, 4, 2), ln=nn.LayerNorm(6), head=nn.Linear(6, 3)))
    fill(torch, model)
    moe = wrap(model["moe"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)

    def train_step(x, y):
        h, aux = moe(x)
        logits = model["head"](model["ln"](x + h))
        loss = F.cross_entropy(logits.view(-1, 3), y.view(-1)) + 0.01 * aux
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss, aux

    train_step = wrap(train_step)
    log = []
    for i in range(steps):
        y = torch.tensor(np.random.RandomState(i % 3).randint(0, 3, (2, 5)))
        log += [v.item() for v in train_step(torch.tensor(numbers(i % 3, 2, 5, 6)), y)]
    return {"log": log, **weights(model)}


def graph_network(torch, wrap, steps=4):
    """A graph convolution by a normalised adjacency matrix, attention over edges by scatter, masks."""
    nn, F = torch.nn, torch.nn.functional
    n = 7
    edges = np.array([[0, 1, 2, 3, 4, 5, 0, 6], [1, 2, 3, 4, 5, 6, 3, 2]])

    class GraphConvolution(nn.Module):
        def __init__(self, in_features, out_features, bias=True):
            super().__init__()
            self.weight = nn.Parameter(torch.FloatTensor(in_features, out_features))
            if bias:
                self.bias = nn.Parameter(torch.FloatTensor(out_features))
            else:
                self.register_parameter("bias", None)
            self.reset_parameters()

        def reset_parameters(self):
            stdv = 1.0 / np.sqrt(self.weight.size(1))
            self.weight.data.uniform_(-stdv, stdv)
            if self.bias is not None:
                self.bias.data.uniform_(-stdv, stdv)

        def forward(self, input, adj):
            output = torch.mm(adj, torch.mm(input, self.weight))
            return output + self.bias if self.bias is not None else output

    class GCN(nn.Module):
        def __init__(self):
            super().__init__()
            self.gc1 = GraphConvolution(5, 6)
            self.gc2 = GraphConvolution(6, 3, bias=False)
            self.att = nn.Parameter(torch.empty(size=(12, 1)))
            nn.init.xavier_uniform_(self.att.data, gain=1.414)

        def forward(self, x, adj, edge_index):
            h = F.relu(self.gc1(x, adj))
            src, dst = edge_index
            e = F.leaky_relu(torch.cat([h[src], h[dst]], dim=1) @ self.att, 0.2).squeeze(1).exp()
            total = torch.zeros(h.size(0)).index_add(0, dst, e)
            alpha = e / (total[dst] + 1e-9)
            message = torch.zeros_like(h).scatter_add(
                0, dst.unsqueeze(1).expand(-1, h.size(1)), h[src] * alpha.unsqueeze(1)
            )
            return F.log_softmax(self.gc2(h + message, adj), dim=1)

    adj = torch.eye(n)
    adj[edges[0], edges[1]] = 1
    adj[torch.from_numpy(edges[1]), torch.from_numpy(edges[0])] = 1
    degree = adj.sum(1).pow(-0.5)
    adj = degree.view(-1, 1) * adj * degree.view(1, -1)
    model = fill(torch, GCN())
    net = wrap(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
    features, target = torch.tensor(numbers(1, n, 5)), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    idx_train, idx_val = torch.arange(5), torch.LongTensor(range(5, n))
    edge_index = torch.from_numpy(edges)

    def train_step():
        model.train()
        optimizer.zero_grad()
        output = net(features, adj, edge_index)
        loss = F.nll_loss(output[idx_train], target[idx_train])
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            val = F.nll_loss(output[idx_val], target[idx_val])
            preds = output[idx_val].max(1)[1].type_as(target)
            correct = preds.eq(target[idx_val]).double().sum() / len(idx_val)
        return loss, val, correct

    train_step = wrap(train_step)
    log = [v.item() for _ in range(steps) for v in train_step()]
    return {"log": log, **weights(model)}


def many_losses(torch, wrap, steps=4):
    """Focal, smoothed, weighted, Huber, soft margin, Poisson and Gaussian losses of one network."""
    nn, F = torch.nn, torch.nn.functional

    class FocalLoss(nn.Module):
        def __init__(self, alpha=0.25, gamma=2.0, reduction="mean"):
            super().__init__()
            self.alpha, self.gamma, self.reduction = alpha, gamma, reduction

        def forward(self, inputs, targets):
            ce = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
            p_t = torch.exp(-ce)
            alpha_t = self.alpha * targets + (1 - self.alpha) * (1 - targets)
            loss = alpha_t * (1 - p_t) ** self.gamma * ce
            return getattr(loss, self.reduction)()

    class LabelSmoothing(nn.Module):
        def __init__(self, classes, smoothing=0.1):
            super().__init__()
            self.confidence, self.smoothing, self.cls = 1.0 - smoothing, smoothing, classes

        def forward(self, pred, target):
            pred = pred.log_softmax(dim=-1)
            with torch.no_grad():
                true = torch.zeros_like(pred)
                true.fill_(self.smoothing / (self.cls - 1))
                true.scatter_(1, target.data.unsqueeze(1), self.confidence)
            return torch.mean(torch.sum(-true * pred, dim=-1))

    class Uncertainty(nn.Module):
        def __init__(self, n):
            super().__init__()
            self.log_vars = nn.Parameter(torch.zeros(n))

        def forward(self, *losses):
            total = 0
            for i, loss in enumerate(losses):
                total = total + torch.exp(-self.log_vars[i]) * loss + self.log_vars[i]
            return total

    model = nn.Sequential(nn.Linear(5, 8), nn.Mish(), nn.Linear(8, 4))
    combine = Uncertainty(9)
    fill(torch, model)
    net = wrap(model)
    criteria = [
        FocalLoss(),
        nn.BCEWithLogitsLoss(pos_weight=torch.full([4], 2.5)),
        nn.HuberLoss(delta=0.5),
        nn.SmoothL1Loss(beta=0.3),
        F.poisson_nll_loss,
    ]
    smooth, ce = LabelSmoothing(4), nn.CrossEntropyLoss(reduction="sum", ignore_index=2)
    gauss = nn.GaussianNLLLoss()
    optimizer = torch.optim.SGD(
        list(model.parameters()) + list(combine.parameters()), lr=0.05, momentum=0.9
    )

    def train_step(x, multi, target):
        out = net(x)
        losses = [criterion(out, multi) for criterion in criteria]
        losses.append(smooth(out, target))
        losses.append(ce(out, target) / x.size(0))
        losses.append(gauss(out, multi, F.softplus(out) + 0.1))
        soft = F.softmax(multi / 0.5, dim=1)
        losses.append(F.kl_div(F.log_softmax(out / 0.5, dim=1), soft, reduction="batchmean"))
        loss = combine(*losses)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss, torch.stack([v.detach() for v in losses])

    train_step = wrap(train_step)
    log = []
    for i in range(steps):
        random = np.random.RandomState(i % 4)
        multi = torch.tensor((random.rand(6, 4) > 0.5).astype("float32"))
        target = torch.tensor(random.randint(0, 4, 6))
        loss, parts = train_step(torch.tensor(numbers(i % 4, 6, 5)), multi, target)
        log.append([loss.item(), *parts.tolist()])
    return {"log": log, **weights(model), **weights(combine)}


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


SCRIPTS = [
    mixture_of_experts,
    graph_network,
    many_losses,
    fine_tuning,
    hooks_and_containers,
    epochs_and_checkpoints,
    minibatches_by_slicing,
]
