"""Ordinary scripts about densities and adversaries.

Each is a function of the library it imports (`torch` or tracegrad), of what is compiled (`wrap`
takes a step or a model) and of the number of steps.
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


SCRIPTS = [conv_vae, wgan_gp, mixture_density, real_nvp]
