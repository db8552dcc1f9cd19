"""Ordinary scripts about images, as functions of the library they import (`torch` or tracegrad) and
of how the step is compiled.
"""

import numpy as np


def numbers(seed, *shape, scale=1.0):
    return (np.random.RandomState(seed).standard_normal(shape) * scale).astype(np.float32)


def fill(torch, model, seed=0):
    """The same weights in both libraries: a scaled normal draw for every parameter, in order."""
    random = np.random.RandomState(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            values = np.asarray(random.standard_normal(tuple(parameter.shape)) * 0.2)
            parameter.copy_(torch.from_numpy(values.astype(np.float32)))
    return model


def weights(model, but=()):
    """The state dict as arrays; `but` names what has a gradient of zero, where Adam amplifies noise."""
    state = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    return {name: value for name, value in state.items() if not name.endswith(but)}


def mnist_cnn(torch, wrap):
    """A CNN with a data set, transforms in NumPy, a loader, and an evaluation without gradients."""
    nn, F = torch.nn, torch.nn.functional
    from_utils = torch.utils.data
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    class Digits(from_utils.Dataset):
        def __init__(self, n, transform=None):
            self.images = (np.abs(numbers(1, n, 8, 8)) * 80).astype(np.uint8)
            self.labels = np.random.RandomState(2).randint(0, 10, n)
            self.transform = transform

        def __len__(self):
            return len(self.labels)

        def __getitem__(self, i):
            image = self.images[i]
            if self.transform:
                image = self.transform(image)
            return image, int(self.labels[i])

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
            self.conv2 = nn.Conv2d(4, 6, 3, stride=1)
            self.drop = nn.Dropout(0.0)
            self.fc1 = nn.Linear(6 * 3 * 3, 12)
            self.fc2 = nn.Linear(12, 10)

        def forward(self, x):
            x = F.relu(self.conv1(x))
            x = F.relu(self.conv2(x))
            x = F.max_pool2d(x, 2)
            x = torch.flatten(x, 1)
            x = self.drop(F.relu(self.fc1(x)))
            return F.log_softmax(self.fc2(x), dim=1)

    def transform(image):
        return torch.from_numpy((image.astype(np.float32) / 255.0 - 0.13) / 0.3).unsqueeze(0)

    loader = from_utils.DataLoader(Digits(24, transform), batch_size=8, shuffle=False)
    model = fill(torch, Net().to(device))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)

    def step(data, target):
        optimizer.zero_grad()
        loss = F.nll_loss(model(data), target)
        loss.backward()
        optimizer.step()
        return loss

    step = wrap(step)
    losses = []
    for _epoch in range(2):
        model.train()
        for data, target in loader:
            data, target = data.to(device, non_blocking=True), target.to(device)
            losses.append(step(data, target).item())
    model.eval()
    total, correct = 0.0, 0
    with torch.no_grad():
        for data, target in loader:
            output = model(data)
            total += F.nll_loss(output, target, reduction="sum").item()
            pred = output.argmax(dim=1, keepdim=True)
            correct += pred.eq(target.view_as(pred)).sum().item()
    return {
        "losses": losses,
        "test": total / len(loader.dataset),
        "correct": correct,
        **weights(model),
    }


def resnet(torch, wrap):
    """A residual block with batch norm, SGD with momentum and weight decay, StepLR."""
    nn, F = torch.nn, torch.nn.functional

    class BasicBlock(nn.Module):
        def __init__(self, inplanes, planes, stride=1):
            super().__init__()
            self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(planes)
            self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(planes)
            self.relu = nn.ReLU(inplace=True)
            self.shortcut = nn.Sequential()
            if stride != 1 or inplanes != planes:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(inplanes, planes, 1, stride, bias=False), nn.BatchNorm2d(planes)
                )

        def forward(self, x):
            out = self.relu(self.bn1(self.conv1(x)))
            out = self.bn2(self.conv2(out))
            out += self.shortcut(x)
            return self.relu(out)

    model = nn.Sequential(
        BasicBlock(3, 4),
        BasicBlock(4, 6, 2),
        nn.AdaptiveAvgPool2d((1, 1)),
        nn.Flatten(),
        nn.Linear(6, 5),
    )
    for m in model.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(m, (nn.BatchNorm2d, nn.GroupNorm)):
            nn.init.constant_(m.weight, 1)
            nn.init.constant_(m.bias, 0)
    fill(torch, model)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4, nesterov=True
    )
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)

    def step(x, y):
        optimizer.zero_grad(set_to_none=True)
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        scheduler.step()
        return loss

    step = wrap(step)
    x = torch.tensor(numbers(3, 4, 3, 6, 6))
    y = torch.tensor([0, 1, 4, 2])
    losses = [step(x, y).item() for _ in range(4)]
    model.eval()
    with torch.no_grad():
        out = F.softmax(model(x), dim=-1)
    return {
        "losses": losses,
        "out": out.numpy(),
        "lr": scheduler.get_last_lr(),
        "lr2": optimizer.param_groups[0]["lr"],
        **weights(model),
    }


def vae(torch, wrap):
    """A variational autoencoder; the noise is given, so that both libraries use the same."""
    nn, F = torch.nn, torch.nn.functional

    class VAE(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = nn.Linear(16, 12)
            self.fc21 = nn.Linear(12, 3)
            self.fc22 = nn.Linear(12, 3)
            self.fc3 = nn.Linear(3, 12)
            self.fc4 = nn.Linear(12, 16)

        def encode(self, x):
            h1 = F.relu(self.fc1(x))
            return self.fc21(h1), self.fc22(h1)

        def reparameterize(self, mu, logvar, eps):
            std = torch.exp(0.5 * logvar)
            assert torch.randn_like(std).shape == std.shape
            return mu + eps * std

        def decode(self, z):
            return torch.sigmoid(self.fc4(F.relu(self.fc3(z))))

        def forward(self, x, eps):
            mu, logvar = self.encode(x.view(-1, 16))
            return self.decode(self.reparameterize(mu, logvar, eps)), mu, logvar

    model = fill(torch, VAE())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def step(data, eps):
        optimizer.zero_grad()
        recon, mu, logvar = model(data, eps)
        bce = F.binary_cross_entropy(recon, data.view(-1, 16), reduction="sum")
        kld = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
        loss = bce + kld
        loss.backward()
        optimizer.step()
        return loss, kld

    step = wrap(step)
    data = torch.sigmoid(torch.tensor(numbers(4, 6, 1, 4, 4)))
    losses = []
    for i in range(3):
        loss, kld = step(data, torch.tensor(numbers(10 + i, 6, 3)))
        losses += [loss.item(), kld.item()]
    with torch.no_grad():
        sample = model.decode(torch.tensor(numbers(20, 2, 3))).cpu()
    return {"losses": losses, "sample": sample.view(2, 1, 4, 4).numpy(), **weights(model)}


def gan(torch, wrap):
    """One generator and one discriminator, two optimisers, detach, labels filled in place."""
    nn = torch.nn
    generator = nn.Sequential(
        nn.Linear(3, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(True), nn.Linear(8, 6), nn.Tanh()
    )
    discriminator = nn.Sequential(
        nn.Linear(6, 8), nn.LeakyReLU(0.2, inplace=True), nn.Linear(8, 1), nn.Sigmoid()
    )
    fill(torch, generator, 1)
    fill(torch, discriminator, 2)
    criterion = nn.BCELoss()
    optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=2e-3, betas=(0.5, 0.999))
    optimizer_g = torch.optim.Adam(generator.parameters(), lr=2e-3, betas=(0.5, 0.999))

    def step(real, noise):
        discriminator.zero_grad()
        b = real.size(0)
        label = torch.full((b,), 1.0, dtype=real.dtype, device=real.device)
        err_real = criterion(discriminator(real).view(-1), label)
        err_real.backward()
        fake = generator(noise)
        label.fill_(0.0)
        err_fake = criterion(discriminator(fake.detach()).view(-1), label)
        err_fake.backward()
        optimizer_d.step()
        generator.zero_grad()
        label.fill_(1.0)
        output = discriminator(fake).view(-1)
        err_g = criterion(output, label)
        err_g.backward()
        optimizer_g.step()
        return err_real + err_fake, err_g, output.mean()

    step = wrap(step)
    logs = []
    for i in range(3):
        logs += [
            v.item()
            for v in step(torch.tensor(numbers(i, 5, 6)), torch.tensor(numbers(50 + i, 5, 3)))
        ]
    return {
        "logs": logs,
        **weights(generator),
        **{f"d.{k}": v for k, v in weights(discriminator).items()},
    }


SCRIPTS = [mnist_cnn, resnet, vae, gan]
