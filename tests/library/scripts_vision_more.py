"""Ordinary scripts about newer networks for pictures.

Each is a function of the library it imports (`torch` or tracegrad), of what is compiled (`wrap`
takes a step or a model) and of the number of steps.
"""

from functools import partial

import numpy as np
from scripts_images import fill, numbers, weights


def labels(seed, count, classes):
    return np.random.RandomState(seed).randint(0, classes, count)


def densenet(torch, wrap, steps=3):
    """Features gathered in a list and joined, an OrderedDict of layers, named modules, average pools."""
    from collections import OrderedDict

    nn, F = torch.nn, torch.nn.functional

    class _DenseLayer(nn.Module):
        def __init__(self, num_input, growth, bn_size, drop_rate):
            super().__init__()
            self.add_module("norm1", nn.BatchNorm2d(num_input))
            self.add_module("conv1", nn.Conv2d(num_input, bn_size * growth, 1, bias=False))
            self.add_module("norm2", nn.BatchNorm2d(bn_size * growth))
            self.add_module("conv2", nn.Conv2d(bn_size * growth, growth, 3, padding=1, bias=False))
            self.drop_rate = float(drop_rate)

        def forward(self, inputs):
            x = self.conv1(F.relu(self.norm1(torch.cat(inputs, 1)), inplace=True))
            new = self.conv2(F.relu(self.norm2(x)))
            if self.drop_rate > 0:
                new = F.dropout(new, p=self.drop_rate, training=self.training)
            return new

    class _DenseBlock(nn.ModuleDict):
        def __init__(self, num_layers, num_input, growth):
            super().__init__()
            for i in range(num_layers):
                self.add_module(
                    f"denselayer{i + 1}", _DenseLayer(num_input + i * growth, growth, 2, 0.0)
                )

        def forward(self, init):
            features = [init]
            for _name, layer in self.items():
                features.append(layer(features))
            return torch.cat(features, 1)

    class DenseNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(
                OrderedDict(
                    [
                        ("conv0", nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect")),
                        ("norm0", nn.BatchNorm2d(4)),
                        ("relu0", nn.LeakyReLU(0.1)),
                    ]
                )
            )
            self.features.add_module("denseblock1", _DenseBlock(2, 4, 3))
            self.features.add_module("pool", nn.AvgPool2d(2, stride=2))
            self.features.add_module("denseblock2", _DenseBlock(1, 10, 2))
            self.classifier = nn.Linear(12, 3)

        def forward(self, x):
            out = F.elu(self.features(x))
            out = F.adaptive_avg_pool2d(out, (1, 1)).flatten(start_dim=1)
            return self.classifier(out)

    model = fill(torch, DenseNet())
    net = wrap(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-3)
    lrs = torch.optim.lr_scheduler
    scheduler = lrs.SequentialLR(
        optimizer,
        schedulers=[
            lrs.LinearLR(optimizer, start_factor=0.1, total_iters=3),
            lrs.CosineAnnealingLR(optimizer, T_max=10, eta_min=1e-5),
        ],
        milestones=[3],
    )

    def train_step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y, label_smoothing=0.1)
        loss.backward()
        optimizer.step()
        scheduler.step()
        return loss

    train_step = wrap(train_step)
    losses = []
    for i in range(steps):
        y = torch.from_numpy(labels(i, 4, 3))
        losses.append(float(train_step(torch.from_numpy(numbers(i % 3, 4, 1, 6, 6)), y).detach()))
    return {"losses": losses, "lr": optimizer.param_groups[0]["lr"], **weights(model)}


def convnext(torch, wrap, steps=4):
    """Layer norm over channels in both layouts, layer scale, stochastic depth by a given mask."""
    nn, F = torch.nn, torch.nn.functional

    class LayerNorm(nn.Module):
        def __init__(self, normalized_shape, eps=1e-6, data_format="channels_last"):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(normalized_shape))
            self.bias = nn.Parameter(torch.zeros(normalized_shape))
            self.eps = eps
            self.data_format = data_format
            self.normalized_shape = (normalized_shape,)

        def forward(self, x):
            if self.data_format == "channels_last":
                return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
            u = x.mean(1, keepdim=True)
            s = (x - u).pow(2).mean(1, keepdim=True)
            x = (x - u) / torch.sqrt(s + self.eps)
            return self.weight[:, None, None] * x + self.bias[:, None, None]

    class Block(nn.Module):
        def __init__(self, dim, init_value=1e-1):
            super().__init__()
            self.dwconv = nn.Conv2d(dim, dim, kernel_size=7, padding=3, groups=dim)
            self.norm = LayerNorm(dim)
            self.pwconv1 = nn.Linear(dim, 4 * dim)
            self.act = nn.GELU()
            self.pwconv2 = nn.Linear(4 * dim, dim)
            self.gamma = nn.Parameter(init_value * torch.ones(dim), requires_grad=True)

        def forward(self, x, keep):
            skip = x
            x = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
            x = self.gamma * self.pwconv2(self.act(self.pwconv1(x)))
            x = x.permute(0, 3, 1, 2)
            return skip + x.div(0.5) * keep.view(-1, *[1] * (x.ndim - 1))

    class ConvNeXt(nn.Module):
        def __init__(self, dims=(4, 6), depths=(1, 2), classes=3):
            super().__init__()
            norm_first = partial(LayerNorm, eps=1e-6, data_format="channels_first")
            self.downsample_layers = nn.ModuleList()
            self.downsample_layers.append(nn.Sequential(nn.Conv2d(3, 4, 2, 2), norm_first(4)))
            self.downsample_layers.append(nn.Sequential(norm_first(4), nn.Conv2d(4, 6, 2, 2)))
            self.stages = nn.ModuleList(
                nn.ModuleList([Block(dim) for _ in range(depth)])
                for dim, depth in zip(dims, depths)
            )
            self.norm = nn.LayerNorm(dims[-1], eps=1e-6)
            self.head = nn.Linear(dims[-1], classes)

        def forward(self, x, keep):
            for down, stage in zip(self.downsample_layers, self.stages):
                x = down(x)
                for block in stage:
                    x = block(x, keep)
            return self.head(self.norm(x.mean([-2, -1])))

    model = fill(torch, ConvNeXt())
    net = wrap(model)
    decay, no_decay = [], []
    for name, p in model.named_parameters():
        (no_decay if p.ndim <= 1 or name.endswith(".bias") else decay).append(p)
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.05}, {"params": no_decay, "weight_decay": 0.0}],
        lr=1e-3,
    )

    def train_step(x, y, keep):
        optimizer.zero_grad()
        logits = net(x, keep)
        # soft targets, as mixup makes them
        soft = F.one_hot(y, 3).float() * 0.7 + F.one_hot(y.flip(0), 3).float() * 0.3
        loss = torch.sum(-soft * F.log_softmax(logits, dim=-1), dim=-1).mean()
        loss.backward()
        optimizer.step()
        return loss

    train_step = wrap(train_step)
    losses = []
    for i in range(steps):
        y = torch.tensor(labels(i, 4, 3))
        keep = torch.tensor([1.0, 0.0, 1.0, 1.0])
        losses.append(train_step(torch.tensor(numbers(i % 3, 4, 3, 8, 8)), y, keep).item())
    return {"losses": losses, **weights(model)}


def vision_transformer(torch, wrap, steps=4):
    """Patches by a strided convolution, a class token, position embeddings, dots as nn.Parameter."""
    nn = torch.nn

    class Attention(nn.Module):
        def __init__(self, dim, num_heads=2, qkv_bias=True):
            super().__init__()
            self.num_heads = num_heads
            self.scale = (dim // num_heads) ** -0.5
            self.qkv = nn.Linear(dim, dim * 3, bias=qkv_bias)
            self.proj = nn.Linear(dim, dim)

        def forward(self, x):
            B, N, C = x.shape
            qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads)
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            attn = (q * self.scale) @ k.transpose(-2, -1)
            attn = attn.softmax(dim=-1)
            return self.proj((attn @ v).transpose(1, 2).reshape(B, N, C))

    class Block(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
            self.attn = Attention(dim)
            self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
            self.drop_path = nn.Identity()

        def forward(self, x):
            x = x + self.drop_path(self.attn(self.norm1(x)))
            x = x + self.drop_path(self.mlp(self.norm2(x)))
            return x

    class ViT(nn.Module):
        def __init__(self, img=8, patch=4, dim=8, depth=2, classes=4):
            super().__init__()
            num = (img // patch) ** 2
            self.patch_embed = nn.Conv2d(3, dim, kernel_size=patch, stride=patch)
            self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
            self.pos_embed = nn.Parameter(torch.empty(1, num + 1, dim))
            self.blocks = nn.Sequential(*[Block(dim) for _ in range(depth)])
            self.norm = nn.LayerNorm(dim)
            self.head = nn.Linear(dim, classes) if classes > 0 else nn.Identity()
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
            self.apply(self._init_weights)

        def _init_weights(self, m):
            if isinstance(m, nn.Linear):
                nn.init.xavier_uniform_(m.weight)
                if m.bias is not None:
                    nn.init.zeros_(m.bias)

        def forward(self, x):
            x = self.patch_embed(x).flatten(2).transpose(1, 2)
            cls = self.cls_token.expand(x.shape[0], -1, -1)
            x = torch.cat((cls, x), dim=1) + self.pos_embed
            x = self.norm(self.blocks(x))
            return self.head(x[:, 0])

    model = fill(torch, ViT())
    net = wrap(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98))
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=3, T_mult=2)
    loss_fn = nn.CrossEntropyLoss()

    def train_step(x, y):
        pred = net(x)
        loss = loss_fn(pred, y)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        return loss, (pred.detach().argmax(dim=-1) == y).sum()

    train_step = wrap(train_step)
    log = []
    for i in range(steps):
        x = torch.as_tensor(numbers(i % 4, 4, 3, 8, 8))
        loss, correct = train_step(x, torch.as_tensor(labels(i % 4, 4, 4)))
        log += [loss.item(), correct.item()]
    return {"log": log, "lr": optimizer.param_groups[0]["lr"], **weights(model)}


SCRIPTS = [densenet, convnext, vision_transformer]
