"""Ordinary scripts about training itself: accumulation, checkpoints, custom modules, and many
functions at once.
"""

import io

from scripts_images import fill, numbers, weights


def accumulation(torch, wrap):
    """Gradients of several batches added up before a step, clipped by hand; a lambda schedule."""
    nn = torch.nn
    model = fill(torch, nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.9**epoch)
    mse = nn.MSELoss()
    accumulate = 2

    def micro(x, y):
        loss = mse(model(x).squeeze(-1), y) / accumulate
        loss.backward()
        return loss.detach()

    def update():
        total = torch.sqrt(sum(p.grad.pow(2).sum() for p in model.parameters()))
        for p in model.parameters():
            p.grad.data.mul_(torch.clamp(0.5 / (total + 1e-6), max=1.0))
        optimizer.step()
        optimizer.zero_grad()
        return total

    micro, update = wrap(micro), wrap(update)
    optimizer.zero_grad()
    log = []
    for i in range(4):
        log.append(float(micro(torch.tensor(numbers(i, 6, 5)), torch.tensor(numbers(i + 30, 6)))))
        if (i + 1) % accumulate == 0:
            log.append(update().item())
            scheduler.step()
    return {"log": log, "lr": scheduler.get_last_lr()[0], **weights(model)}


def custom_module(torch, wrap):
    """ParameterList, buffers, a running mean written in forward, weight tying, control flow."""
    nn, F = torch.nn, torch.nn.functional

    class Mixer(nn.Module):
        def __init__(self, dim, depth):
            super().__init__()
            self.weights = nn.ParameterList(
                [nn.Parameter(torch.randn(dim, dim) * 0.1) for _ in range(depth)]
            )
            self.scale = nn.Parameter(torch.ones(1))
            self.register_parameter("shift", nn.Parameter(torch.zeros(dim)))
            self.register_buffer("mean", torch.zeros(dim))
            self.register_buffer("count", torch.tensor(0), persistent=False)
            self.encoder = nn.Linear(dim, dim)
            self.decoder = nn.Linear(dim, dim, bias=False)
            self.decoder.weight = self.encoder.weight
            self.skip = True

        def forward(self, x, steps=2):
            if self.training:
                with torch.no_grad():
                    self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
                    self.count += 1
            x = x - self.mean
            for i in range(steps):
                for k, w in enumerate(self.weights):
                    y = torch.tanh(x @ w) * self.scale + self.shift
                    x = x + y if self.skip and (i + k) % 2 == 0 else y
            x = self.decoder(F.leaky_relu(self.encoder(x), 0.1))
            if x.shape[0] > 4:
                x = x[:4]
            return x

        def extra_repr(self):
            return f"depth={len(self.weights)}"

    model = fill(torch, Mixer(4, 3))
    assert "depth=3" in repr(model)
    optimizer = torch.optim.Adagrad(
        [{"params": [*model.weights]}, {"params": model.encoder.parameters(), "lr": 0.05}], lr=0.1
    )

    def step(x):
        optimizer.zero_grad()
        out = model(x)
        loss = (out**2).sum() / out.numel() + 1e-3 * sum(w.abs().sum() for w in model.weights)
        if loss > 0.5:
            loss = loss * 2
        loss.backward()
        optimizer.step()
        return loss

    step = wrap(step)
    losses = [step(torch.tensor(numbers(i, 6, 4))).item() for i in range(3)]
    names = [name for name, _ in model.named_parameters()]
    model.eval()
    model.skip = False
    with torch.no_grad():
        out = model(torch.tensor(numbers(9, 3, 4)), steps=1)
    return {
        "losses": losses,
        "out": out.numpy(),
        "names": len(names),
        "count": model.count.item(),
        **weights(model),
    }


def early_stopping(torch, wrap):
    """A train/validation split, a plateau schedule, early stopping with the best weights kept."""
    nn = torch.nn
    X, w = torch.tensor(numbers(0, 40, 3)), torch.tensor([[1.0], [-2.0], [0.5]])
    Y = X @ w + 0.1 * torch.tensor(numbers(1, 40, 1))
    data = torch.utils.data
    train = data.DataLoader(data.TensorDataset(X[:30], Y[:30]), batch_size=10)
    valid = data.DataLoader(data.TensorDataset(X[30:], Y[30:]), batch_size=5, drop_last=True)
    model = fill(torch, nn.Linear(3, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.3)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="min", factor=0.5, patience=0
    )
    criterion = nn.HuberLoss()

    def step(x, y):
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    step = wrap(step)
    best, best_state, bad, history = float("inf"), None, 0, []
    for _epoch in range(12):
        model.train()
        running = 0.0
        for x, y in train:
            running += step(x, y).item() * x.size(0)
        model.eval()
        with torch.no_grad():
            score = sum(criterion(model(x), y).item() for x, y in valid) / len(valid)
        scheduler.step(score)
        history.append(score)
        if score < best - 1e-3:
            best, bad = score, 0
            best_state = {k: v.clone() for k, v in model.state_dict().items()}
        else:
            bad += 1
            if bad >= 3:
                break
    model.load_state_dict(best_state)
    return {"history": history, "lr": optimizer.param_groups[0]["lr"], **weights(model)}


def checkpoint(torch, wrap):
    """Training interrupted by torch.save and torch.load goes on as if it had not been."""
    nn, F = torch.nn, torch.nn.functional

    def make():
        model = fill(
            torch,
            nn.Sequential(
                nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.SiLU(), nn.Linear(6, 3)
            ),
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6)

        def step(x, y):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            scheduler.step()
            return loss

        return model, optimizer, scheduler, wrap(step)

    batches = [(torch.tensor(numbers(i, 5, 4)), torch.tensor([0, 1, 2, 1, 0])) for i in range(5)]
    model, optimizer, scheduler, step = make()
    losses = [step(*batch).item() for batch in batches[:3]]
    file = io.BytesIO()
    torch.save(
        {
            "epoch": 3,
            "model_state_dict": model.state_dict(),
            "optimizer_state_dict": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
        },
        file,
    )
    model, optimizer, scheduler, step = make()
    file.seek(0)
    saved = torch.load(file, map_location="cpu", weights_only=True)
    model.load_state_dict(saved["model_state_dict"])
    optimizer.load_state_dict(saved["optimizer_state_dict"])
    scheduler.load_state_dict(saved["scheduler"])
    losses += [step(*batch).item() for batch in batches[saved["epoch"] :]]
    return {"losses": losses, "lr": scheduler.get_last_lr()[0], **weights(model)}


def many_functions(torch, wrap):
    """A differentiated function that uses many calls, with its gradients."""
    F = torch.nn.functional
    a = torch.tensor(numbers(0, 3, 4), requires_grad=True)
    b = torch.tensor(numbers(1, 4, 5), requires_grad=True)
    index = torch.tensor([[0, 2, 1], [3, 0, 0], [1, 1, 3]])

    def step(a, b):
        x = torch.einsum("ij,jk->ik", a, b)
        terms = [
            F.one_hot(torch.tensor([0, 2, 4]), num_classes=5).float() * x,
            F.pad(x, (1, 2), value=0.5)[:, 1:-2],
            torch.cumsum(x, dim=-1),
            x.cumprod(1).tanh(),
            torch.where(x > 0, x, 0.1 * x),
            x.masked_fill(x < 0, 2.0),
            x / x.norm(dim=1, keepdim=True),
            (x - x.mean(-1, keepdim=True)) / x.std(-1, unbiased=False, keepdim=True),
            torch.cat([x[:, :2], x[:, 2:]], dim=1),
            torch.stack(x.split([2, 3], dim=1)[1].unbind(1), 1).sum() * x,
            x.sort(dim=-1, descending=True).values,
            x.topk(5, dim=-1)[0],
            x.roll(1, dims=1),
            x.flip(0),
            torch.zeros_like(x).scatter_(1, torch.tensor([[0], [1], [4]]), 3.0) * x,
            x.t().reshape(3, 5),
            x.permute(1, 0).contiguous().view(3, 5),
            x.clamp(min=-1, max=1),
            torch.maximum(x, torch.zeros(())),
            x.logsumexp(1, keepdim=True) + x,
            torch.tril(x),
            x.exp().log1p(),
        ]
        total = sum(t.sum() * (i + 1) for i, t in enumerate(terms))
        total = (
            total
            + a.gather(1, index).prod()
            + torch.var(a, dim=0).sum()
            + a.chunk(2, dim=1)[1].abs().max()
        )
        total = (
            total + torch.bmm(a[None], b[None]).squeeze(0).diagonal().sum() + torch.linalg.norm(b)
        )
        total = (
            total
            + torch.baddbmm(x[None], a[None], b[None]).mean()
            + torch.outer(a[0], b[:, 0]).trace()
        )
        total.backward()
        return total, torch.stack([t.sum() for t in terms])

    total, terms = wrap(step)(a, b)
    return {
        "total": total.item(),
        "terms": terms.detach().numpy(),
        "a": a.grad.numpy(),
        "b": b.grad.numpy(),
    }


def transformer_classifier(torch, wrap):
    """nn.TransformerEncoder with a padding mask, a learnt class token, OneCycleLR."""
    nn, F = torch.nn, torch.nn.functional

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(9, 8, padding_idx=0)
            self.cls = nn.Parameter(torch.zeros(1, 1, 8))
            layer = nn.TransformerEncoderLayer(
                d_model=8, nhead=2, dim_feedforward=16, dropout=0.0, batch_first=True
            )
            self.encoder = nn.TransformerEncoder(layer, num_layers=1)
            self.head = nn.Linear(8, 3)

        def forward(self, tokens):
            mask = tokens == 0
            x = torch.cat([self.cls.expand(tokens.shape[0], -1, -1), self.embed(tokens)], dim=1)
            mask = torch.cat([torch.zeros_like(mask[:, :1]), mask], dim=1)
            x = self.encoder(x, src_key_padding_mask=mask)
            return self.head(x[:, 0])

    model = fill(torch, Classifier())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=6)

    def step(tokens, labels):
        optimizer.zero_grad()
        logits = model(tokens)
        logp = F.log_softmax(logits, dim=-1)
        loss = -logp[torch.arange(len(labels)), labels].mean()
        loss.backward()
        optimizer.step()
        scheduler.step()
        return loss, (logits.argmax(-1) == labels).float().mean()

    step = wrap(step)
    tokens = torch.tensor([[1, 2, 3, 0, 0], [4, 5, 6, 7, 8], [2, 2, 0, 0, 0]])
    labels = torch.tensor([0, 2, 1])
    log = [v.item() for _ in range(3) for v in step(tokens, labels)]
    return {"log": log, **weights(model)}


SCRIPTS = [
    accumulation,
    custom_module,
    early_stopping,
    checkpoint,
    many_functions,
    transformer_classifier,
]
