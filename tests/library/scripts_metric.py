"""Ordinary scripts about learning representations.

Each is a function of the library it imports (`torch` or tracegrad), of what is compiled (`wrap`
takes a step or a model) and of the number of steps.
"""

from scripts_images import fill, numbers, weights


def contrastive(torch, wrap, steps=4):
    """SimCLR's NT-Xent loss with a mask of the diagonal, cosine similarity, a projection head."""
    nn, F = torch.nn, torch.nn.functional

    class NTXentLoss(nn.Module):
        def __init__(self, batch_size, temperature):
            super().__init__()
            self.batch_size, self.temperature = batch_size, temperature
            self.register_buffer("temp", torch.tensor(temperature))
            mask = ~torch.eye(batch_size * 2, batch_size * 2, dtype=torch.bool)
            self.register_buffer("negatives_mask", mask.float())

        def forward(self, emb_i, emb_j):
            z_i, z_j = F.normalize(emb_i, dim=1), F.normalize(emb_j, dim=1)
            z = torch.cat([z_i, z_j], dim=0)
            sim = F.cosine_similarity(z.unsqueeze(1), z.unsqueeze(0), dim=2)
            sim_ij = torch.diag(sim, self.batch_size)
            sim_ji = torch.diag(sim, -self.batch_size)
            positives = torch.cat([sim_ij, sim_ji], dim=0)
            nominator = torch.exp(positives / self.temp)
            denominator = self.negatives_mask * torch.exp(sim / self.temp)
            loss = -torch.log(nominator / torch.sum(denominator, dim=1))
            return torch.sum(loss) / (2 * self.batch_size)

    encoder = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.LayerNorm(8))
    head = nn.Sequential(nn.Linear(8, 6), nn.GELU(), nn.Linear(6, 4))
    model = fill(torch, nn.ModuleDict({"encoder": encoder, "head": head}))
    net = wrap(nn.Sequential(model["encoder"], model["head"]))
    criterion = NTXentLoss(4, 0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, dampening=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20, eta_min=1e-3)

    def train_step(x_i, x_j):
        optimizer.zero_grad()
        z_i, z_j = net(x_i), net(x_j)
        loss = criterion(z_i, z_j)
        # the same by cross entropy over all other samples
        z = F.normalize(torch.cat([z_i, z_j]), p=2, dim=-1)
        logits = (z @ z.T) / 0.5
        logits = logits.masked_fill(torch.eye(8, dtype=torch.bool), float("-inf"))
        target = torch.cat([torch.arange(4) + 4, torch.arange(4)])
        loss = loss + F.cross_entropy(logits, target)
        loss.backward()
        optimizer.step()
        scheduler.step()
        return loss

    train_step = wrap(train_step)
    losses = []
    for i in range(steps):
        x = numbers(i % 3, 4, 5)
        noise = numbers(i % 3 + 50, 4, 5, scale=0.3)
        losses.append(train_step(torch.tensor(x), torch.tensor(x + noise)).item())
    return {"losses": losses, **weights(model)}


def triplets(torch, wrap, steps=4):
    """A siamese network with triplet, contrastive, cosine-embedding and margin-ranking losses."""
    nn, F = torch.nn, torch.nn.functional

    class EmbeddingNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.convnet = nn.Sequential(
                nn.Conv2d(1, 4, 3), nn.PReLU(), nn.MaxPool2d(2, stride=2), nn.Dropout2d(0.0)
            )
            self.fc = nn.Sequential(nn.Linear(4 * 2 * 2, 8), nn.PReLU(8), nn.Linear(8, 3))

        def forward(self, x):
            output = self.convnet(x)
            output = output.view(output.size()[0], -1)
            return self.fc(output)

        def get_embedding(self, x):
            return self.forward(x)

    class TripletNet(nn.Module):
        def __init__(self, embedding_net):
            super().__init__()
            self.embedding_net = embedding_net

        def forward(self, x1, x2, x3):
            return tuple(self.embedding_net(x) for x in (x1, x2, x3))

    embedding = EmbeddingNet()
    model = fill(torch, TripletNet(embedding))
    net = wrap(model)
    triplet = nn.TripletMarginLoss(margin=1.0, p=2)
    cosine = nn.CosineEmbeddingLoss(margin=0.2)
    ranking = nn.MarginRankingLoss(margin=0.5)
    optimizer = torch.optim.Adam(embedding.parameters(), lr=1e-3)

    def train_step(a, p, n, same):
        anchor, positive, negative = net(a, p, n)
        loss = triplet(anchor, positive, negative)
        distance = F.pairwise_distance(anchor, positive, keepdim=True)
        contrast = torch.mean(
            same * torch.pow(distance, 2)
            + (1 - same) * torch.pow(torch.clamp(2.0 - distance, min=0.0), 2)
        )
        loss = loss + contrast + cosine(anchor, negative, 2 * same.squeeze(1) - 1)
        d_pos = (anchor - positive).pow(2).sum(1)
        d_neg = (anchor - negative).pow(2).sum(1)
        loss = (
            loss
            + ranking(d_neg, d_pos, torch.ones_like(d_pos))
            + torch.cdist(anchor, negative).mean()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss, (d_pos < d_neg).sum()

    train_step = wrap(train_step)
    log = []
    for i in range(steps):
        images = [torch.tensor(numbers(3 * (i % 3) + k, 4, 1, 6, 6)) for k in range(3)]
        loss, right = train_step(*images, torch.tensor([[1.0], [0.0], [1.0], [0.0]]))
        log += [loss.item(), right.item()]
    embedding.eval()
    with torch.no_grad():
        found = embedding.get_embedding(torch.tensor(numbers(99, 2, 1, 6, 6)))
    return {"log": log, "found": found.numpy(), **weights(model)}


def tied_autoencoder(torch, wrap, steps=4):
    """Decoder weights are the encoder's, transposed; denoising, a sparsity term by KL, l1 by hand."""
    nn, F = torch.nn, torch.nn.functional

    class TiedAutoEncoder(nn.Module):
        def __init__(self, inp, out):
            super().__init__()
            self.weight = nn.parameter.Parameter(torch.randn(out, inp) * 0.1)
            self.bias = nn.Parameter(torch.zeros(out))
            self.register_parameter("out_bias", nn.Parameter(torch.zeros(inp)))

        def encode(self, x):
            return torch.sigmoid(F.linear(x, self.weight, self.bias))

        def forward(self, x):
            code = self.encode(x)
            return F.linear(code, self.weight.t(), self.out_bias), code

    def kl_sparsity(rho, rho_hat):
        first = rho * torch.log(rho / rho_hat)
        return torch.sum(first + (1 - rho) * torch.log((1 - rho) / (1 - rho_hat)))

    model = fill(torch, TiedAutoEncoder(6, 4))
    net = wrap(model)
    kl = nn.KLDivLoss(reduction="batchmean")
    optimizer = torch.optim.SGD(
        [
            {"params": [model.weight], "weight_decay": 1e-3},
            {"params": [model.bias, model.out_bias], "lr": 0.02},
        ],
        lr=0.05,
        momentum=0.8,
        nesterov=True,
    )

    def train_step(x, noise):
        recon, code = net(x + noise)
        loss = F.mse_loss(recon, x) + F.l1_loss(recon, x) * 0.1
        loss += 0.01 * kl_sparsity(0.1, code.mean(dim=0))
        loss += 0.01 * kl(F.log_softmax(recon, dim=1), F.softmax(x, dim=1))
        l1 = 0.0
        for name, param in model.named_parameters():
            if "bias" not in name:
                l1 = l1 + torch.norm(param, 1)
        loss += 1e-3 * l1
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    train_step = wrap(train_step)
    losses = []
    for i in range(steps):
        x = torch.tensor(numbers(i % 4, 5, 6))
        losses.append(train_step(x, torch.tensor(numbers(i, 5, 6, scale=0.1))).item())
    return {"losses": losses, **weights(model)}


def momentum_contrast(torch, wrap, steps=4):
    """A queue of keys in a buffer, written at a pointer that moves; a key encoder led by momentum."""
    nn, F = torch.nn, torch.nn.functional

    class MoCo(nn.Module):
        def __init__(self, dim=4, K=12, m=0.9, T=0.2):
            super().__init__()
            self.K, self.m, self.T = K, m, T
            self.encoder_q = nn.Linear(5, dim)
            self.encoder_k = nn.Linear(5, dim)
            for param_k in self.encoder_k.parameters():
                param_k.requires_grad = False
            self.register_buffer("queue", torch.from_numpy(numbers(3, dim, K)))
            self.queue = F.normalize(self.queue, dim=0)
            self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

        @torch.no_grad()
        def _momentum_update_key_encoder(self):
            for q, k in zip(self.encoder_q.parameters(), self.encoder_k.parameters()):
                k.data = k.data * self.m + q.data * (1.0 - self.m)

        @torch.no_grad()
        def _dequeue_and_enqueue(self, keys):
            places = (self.queue_ptr + torch.arange(keys.shape[0])) % self.K
            self.queue[:, places] = keys.T
            self.queue_ptr[0] = (self.queue_ptr[0] + keys.shape[0]) % self.K

        def forward(self, im_q, im_k):
            q = F.normalize(self.encoder_q(im_q), dim=1)
            with torch.no_grad():
                self._momentum_update_key_encoder()
                k = F.normalize(self.encoder_k(im_k), dim=1)
            l_pos = torch.einsum("nc,nc->n", [q, k]).unsqueeze(-1)
            l_neg = torch.einsum("nc,ck->nk", [q, self.queue.clone().detach()])
            logits = torch.cat([l_pos, l_neg], dim=1) / self.T
            labels = torch.zeros(logits.shape[0], dtype=torch.long)
            self._dequeue_and_enqueue(k)
            return logits, labels

    model = MoCo()
    fill(torch, model.encoder_q)
    model.encoder_k.load_state_dict(model.encoder_q.state_dict())
    net = wrap(model)
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], 0.05, weight_decay=1e-4
    )

    def train_step(im_q, im_k):
        output, target = net(im_q, im_k)
        loss = F.cross_entropy(output, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    train_step = wrap(train_step)
    views, losses = torch.tensor(numbers(0, 16, 5)), []
    for i in range(steps):
        batch = views[4 * (i % 4) : 4 * (i % 4) + 4]
        noise = torch.tensor(numbers(20 + i, 4, 5, scale=0.1))
        losses.append(train_step(batch, batch + noise).item())
    return {"losses": losses, **weights(model)}


SCRIPTS = [contrastive, triplets, tied_autoencoder, momentum_contrast]
