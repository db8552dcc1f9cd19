"""Ordinary scripts about experts, graphs and many losses at once.

Each is a function of the library it imports (`torch` or tracegrad), of what is compiled (`wrap`
takes a step or a model) and of the number of steps.
"""

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


SCRIPTS = [mixture_of_experts, graph_network, many_losses]
