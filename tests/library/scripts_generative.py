"""Ordinary scripts about densities, contrastive losses and other unusual objectives, as functions of the
library they import, of what is compiled (`wrap` takes a step or a model) and of the number of steps.
"""

import math

import numpy as np
from scripts_images import fill, numbers, weights


def conv_vae(torch, wrap, steps=4):
    """A convolutional VAE with beta annealing: the weight of the KL term is a changing number."""
    nn, F = torch.nn, torch.nn.functional

    class View(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.size = size

        def forward(self, tensor):
            return tensor.view(self.size)

    class BetaVAE(nn.Module):
        def __init__(self, z_dim=3, nc=1):
            super(BetaVAE, self).__init__()  # noqa: UP008
            self.z_dim = z_dim
            self.encoder = nn.Sequential(
                nn.Conv2d(nc, 4, 4, 2, 1),
                nn.ReLU(True),
                nn.Conv2d(4, 8, 4, 2, 1),
                nn.ReLU(True),
                View((-1, 8 * 2 * 2)),
                nn.Linear(32, z_dim * 2),
            )
            self.decoder = nn.Sequential(
                nn.Linear(z_dim, 32),
                View((-1, 8, 2, 2)),
                nn.ReLU(True),
                nn.ConvTranspose2d(8, 4, 4, 2, 1),
                nn.ReLU(True),
                nn.ConvTranspose2d(4, nc, 4, 2, 1),
            )
            self.weight_init()

        def weight_init(self):
            for block in self._modules:
                for m in self._modules[block]:
                    if isinstance(m, (nn.Linear, nn.Conv2d)):
                        nn.init.kaiming_normal_(m.weight)
                        if m.bias is not None:
                            m.bias.data.fill_(0)

        def forward(self, x, noise):
            distributions = self.encoder(x)
            mu = distributions[:, : self.z_dim]
            logvar = distributions[:, self.z_dim :]
            z = mu + logvar.div(2).exp() * noise
            return self.decoder(z).view(x.size()), mu, logvar

    def kl_divergence(mu, logvar):
        klds = -0.5 * (1 + logvar - mu.pow(2) - logvar.exp())
        return klds.sum(1).mean(0, True), klds.mean(0), klds.mean(1).mean(0, True)

    model = fill(torch, BetaVAE())
    net = wrap(model)
    optim = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.999))

    def train_step(x, noise, beta):
        x_recon, mu, logvar = net(x, noise)
        recon_loss = F.binary_cross_entropy_with_logits(x_recon, x, reduction="sum").div(x.size(0))
        total_kld, dim_wise_kld, mean_kld = kl_divergence(mu, logvar)
        loss = recon_loss + beta * total_kld
        optim.zero_grad()
        loss.backward()
        optim.step()
        return recon_loss, total_kld, dim_wise_kld, mean_kld

    train_step = wrap(train_step)
    log = []
    for i in range(steps):
        x = torch.tensor(numbers(i % 3, 4, 1, 8, 8)).sigmoid()
        beta = torch.tensor(min(1.0, 0.1 * i))
        out = train_step(x, torch.tensor(numbers(40 + i, 4, 3)), beta)
        log.append([out[0].item(), out[1].item(), *out[2].tolist(), out[3].item()])
    return {"log": log, **weights(model)}


def wgan_gp(torch, wrap, steps=4):
    """A critic with a gradient penalty (a gradient of a gradient), several critic steps a round."""
    nn = torch.nn

    class Generator(nn.Module):
        def __init__(self):
            super().__init__()

            def block(in_feat, out_feat, normalize=True):
                layers = [nn.Linear(in_feat, out_feat)]
                if normalize:
                    layers.append(nn.BatchNorm1d(out_feat, 0.8))
                layers.append(nn.LeakyReLU(0.2, inplace=True))
                return layers

            self.model = nn.Sequential(
                *block(3, 6, normalize=False), *block(6, 8), nn.Linear(8, 4), nn.Tanh()
            )

        def forward(self, z):
            img = self.model(z)
            return img.view(img.shape[0], *(1, 2, 2))

    class Critic(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = nn.Sequential(
                nn.Linear(4, 8), nn.LeakyReLU(0.2, inplace=True), nn.Linear(8, 1)
            )

        def forward(self, img):
            return self.model(img.view(img.shape[0], -1))

    generator, critic = fill(torch, Generator(), 1), fill(torch, Critic(), 2)
    G, D = wrap(generator), wrap(critic)
    optimizer_G = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.9))
    optimizer_D = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.5, 0.9))

    def compute_gradient_penalty(real_samples, fake_samples, alpha):
        interpolates = (alpha * real_samples + ((1 - alpha) * fake_samples)).requires_grad_(True)
        d_interpolates = D(interpolates)
        fake = torch.ones(real_samples.shape[0], 1, requires_grad=False)
        gradients = torch.autograd.grad(
            outputs=d_interpolates,
            inputs=interpolates,
            grad_outputs=fake,
            create_graph=True,
            retain_graph=True,
            only_inputs=True,
        )[0]
        gradients = gradients.view(gradients.size(0), -1)
        return ((gradients.norm(2, dim=1) - 1) ** 2).mean()

    def critic_step(real, z, alpha):
        optimizer_D.zero_grad()
        fake = G(z)
        penalty = compute_gradient_penalty(real.data, fake.data, alpha)
        d_loss = -torch.mean(D(real)) + torch.mean(D(fake.detach())) + 10 * penalty
        d_loss.backward()
        optimizer_D.step()
        return d_loss

    def generator_step(z):
        optimizer_G.zero_grad()
        g_loss = -torch.mean(D(G(z)))
        g_loss.backward()
        optimizer_G.step()
        return g_loss

    critic_step, generator_step = wrap(critic_step), wrap(generator_step)
    log = []
    for i in range(steps):
        z = torch.tensor(numbers(i, 5, 3))
        alpha = torch.tensor(np.random.RandomState(i).rand(5, 1, 1, 1), dtype=torch.float32)
        log.append(critic_step(torch.tensor(numbers(i + 90, 5, 1, 2, 2)), z, alpha).item())
        if i % 2 == 0:
            log.append(generator_step(z).item())
    return {
        "log": log,
        **{f"G.{k}": v for k, v in weights(generator).items()},
        **{f"D.{k}": v for k, v in weights(critic).items()},
    }


def mixture_density(torch, wrap, steps=4):
    """A mixture density network: torch.distributions-free, by logsumexp; clipping by value."""
    nn, F = torch.nn, torch.nn.functional

    class MDN(nn.Module):
        def __init__(self, n_hidden, n_gaussians):
            super().__init__()
            self.z_h = nn.Sequential(nn.Linear(1, n_hidden), nn.Tanh())
            self.z_pi = nn.Linear(n_hidden, n_gaussians)
            self.z_mu = nn.Linear(n_hidden, n_gaussians)
            self.z_sigma = nn.Linear(n_hidden, n_gaussians)

        def forward(self, x):
            h = self.z_h(x)
            return F.log_softmax(self.z_pi(h), -1), self.z_mu(h), F.softplus(self.z_sigma(h)) + 1e-3

    def nll(y, log_pi, mu, sigma):
        log_p = -0.5 * ((y.expand_as(mu) - mu) / sigma) ** 2
        log_p = log_p - torch.log(sigma) - 0.5 * math.log(2 * math.pi)
        return -torch.logsumexp(log_pi + log_p, dim=1).mean()

    model = fill(torch, MDN(7, 3))
    net = wrap(model)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=5e-3, centered=True)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1, factor=0.5)

    def train_step(x, y):
        optimizer.zero_grad()
        loss = nll(y, *net(x))
        loss.backward()
        torch.nn.utils.clip_grad_value_(model.parameters(), 0.1)
        optimizer.step()
        return loss

    train_step = wrap(train_step)
    x = torch.linspace(-2, 2, 12).unsqueeze(1)
    y = torch.sin(2 * x) + 0.1 * torch.tensor(numbers(0, 12, 1))
    losses = []
    for _ in range(steps):
        loss = train_step(y, x)
        scheduler.step(loss.item())
        losses.append(loss.item())
    return {"losses": losses, "lr": optimizer.param_groups[0]["lr"], **weights(model)}


def real_nvp(torch, wrap, steps=4):
    """A normalising flow of affine coupling layers with mask buffers, its inverse, and log determinants."""
    nn = torch.nn

    class RealNVP(nn.Module):
        def __init__(self, nets, nett, masks):
            super().__init__()
            self.register_buffer("mask", masks)
            self.t = nn.ModuleList([nett() for _ in range(len(masks))])
            self.s = nn.ModuleList([nets() for _ in range(len(masks))])

        def inverse(self, z):
            x = z
            for i in range(len(self.t)):
                x_ = x * self.mask[i]
                s = self.s[i](x_) * (1 - self.mask[i])
                t = self.t[i](x_) * (1 - self.mask[i])
                x = x_ + (1 - self.mask[i]) * (x * torch.exp(s) + t)
            return x

        def forward(self, x):
            log_det_J, z = x.new_zeros(x.shape[0]), x
            for i in reversed(range(len(self.t))):
                z_ = self.mask[i] * z
                s = self.s[i](z_) * (1 - self.mask[i])
                t = self.t[i](z_) * (1 - self.mask[i])
                z = (1 - self.mask[i]) * (z - t) * torch.exp(-s) + z_
                log_det_J -= s.sum(dim=1)
            return z, log_det_J

    def nets():
        return nn.Sequential(nn.Linear(2, 5), nn.LeakyReLU(), nn.Linear(5, 2), nn.Tanh())

    def nett():
        return nn.Sequential(nn.Linear(2, 5), nn.LeakyReLU(), nn.Linear(5, 2))

    masks = torch.from_numpy(np.array([[0, 1], [1, 0]] * 2).astype(np.float32))
    flow = fill(torch, RealNVP(nets, nett, masks))
    net = wrap(flow)
    optimizer = torch.optim.Adam([p for p in flow.parameters() if p.requires_grad], lr=1e-3)

    def train_step(batch):
        z, logp = net(batch)
        prior = -0.5 * (z**2).sum(dim=-1) - math.log(2 * math.pi)
        loss = -(prior + logp).mean()
        optimizer.zero_grad()
        loss.backward(retain_graph=True)
        optimizer.step()
        return loss

    train_step = wrap(train_step)
    losses = [train_step(torch.tensor(numbers(i % 5, 6, 2))).item() for i in range(steps)]
    with torch.no_grad():
        x = torch.tensor(numbers(77, 4, 2))
        z, _ = flow(x)
        back = flow.inverse(z)
        error = (back - x).abs().max()
        assert error < 1e-4
    return {"losses": losses, "z": z.numpy(), **weights(flow)}


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


SCRIPTS = [
    conv_vae,
    wgan_gp,
    mixture_density,
    real_nvp,
    contrastive,
    triplets,
    tied_autoencoder,
]
