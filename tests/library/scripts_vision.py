"""Ordinary scripts about networks for pictures, as functions of the library they import, of what is
compiled (`wrap` takes a step or a model) and of the number of steps.
"""

from functools import partial

import numpy as np
from scripts_images import fill, numbers, weights


def labels(seed, count, classes):
    return np.random.RandomState(seed).randint(0, classes, count)


def bottleneck_resnet(torch, wrap, steps=4):
    """Bottleneck blocks with a downsample branch, zero-initialised residuals, MultiStepLR."""
    nn = torch.nn

    def conv1x1(cin, cout, stride=1):
        return nn.Conv2d(cin, cout, kernel_size=1, stride=stride, bias=False)

    class Bottleneck(nn.Module):
        expansion: int = 2

        def __init__(self, inplanes, planes, stride=1, downsample=None, norm_layer=None):
            super().__init__()
            if norm_layer is None:
                norm_layer = nn.BatchNorm2d
            self.conv1 = conv1x1(inplanes, planes)
            self.bn1 = norm_layer(planes)
            self.conv2 = nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=False)
            self.bn2 = norm_layer(planes)
            self.conv3 = conv1x1(planes, planes * self.expansion)
            self.bn3 = norm_layer(planes * self.expansion)
            self.relu = nn.ReLU(inplace=True)
            self.downsample = downsample
            self.stride = stride

        def forward(self, x):
            identity = x
            out = self.relu(self.bn1(self.conv1(x)))
            out = self.relu(self.bn2(self.conv2(out)))
            out = self.bn3(self.conv3(out))
            if self.downsample is not None:
                identity = self.downsample(x)
            out += identity
            return self.relu(out)

    class ResNet(nn.Module):
        def __init__(self, layers, num_classes=4):
            super().__init__()
            self.inplanes = 4
            self.conv1 = nn.Conv2d(3, self.inplanes, 3, stride=2, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(self.inplanes)
            self.relu = nn.ReLU(inplace=True)
            self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
            self.layer1 = self._make_layer(4, layers[0])
            self.layer2 = self._make_layer(6, layers[1], stride=2)
            self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
            self.fc = nn.Linear(6 * Bottleneck.expansion, num_classes)
            for m in self.modules():
                if isinstance(m, nn.Conv2d):
                    nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
            for m in self.modules():
                if isinstance(m, Bottleneck) and m.bn3.weight is not None:
                    nn.init.constant_(m.bn3.weight, 0)

        def _make_layer(self, planes, blocks, stride=1):
            downsample = None
            if stride != 1 or self.inplanes != planes * Bottleneck.expansion:
                downsample = nn.Sequential(
                    conv1x1(self.inplanes, planes * Bottleneck.expansion, stride),
                    nn.BatchNorm2d(planes * Bottleneck.expansion),
                )
            layers = [Bottleneck(self.inplanes, planes, stride, downsample)]
            self.inplanes = planes * Bottleneck.expansion
            for _ in range(1, blocks):
                layers.append(Bottleneck(self.inplanes, planes))
            return nn.Sequential(*layers)

        def forward(self, x):
            x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
            x = self.layer2(self.layer1(x))
            x = torch.flatten(self.avgpool(x), 1)
            return self.fc(x)

    model = fill(torch, ResNet([2, 1]))
    net = wrap(model)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[2, 8], gamma=0.1)

    def train_step(images, target):
        output = net(images)
        loss = criterion(output, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        acc = (output.argmax(1) == target).float().mean() * 100.0
        return loss.detach(), acc

    train_step = wrap(train_step)
    log = []
    for i in range(steps):
        images = torch.from_numpy(numbers(i % 3, 6, 3, 16, 16))
        loss, acc = train_step(images, torch.from_numpy(labels(i % 3, 6, 4)))
        log += [loss.item(), acc.item()]
    return {"log": log, "lr": scheduler.get_last_lr(), **weights(model)}


def unet(torch, wrap, steps=3):
    """Transposed convolutions, skips by cat and padding, a dice loss beside BCE with logits."""
    nn, F = torch.nn, torch.nn.functional

    class DoubleConv(nn.Module):
        def __init__(self, in_ch, out_ch, mid=None):
            super().__init__()
            mid = mid or out_ch
            self.double_conv = nn.Sequential(
                nn.Conv2d(in_ch, mid, kernel_size=3, padding="same", bias=False),
                nn.BatchNorm2d(mid),
                nn.ReLU(inplace=True),
                nn.Conv2d(mid, out_ch, kernel_size=3, padding=1, bias=False),
                nn.BatchNorm2d(out_ch),
                nn.ReLU(inplace=True),
            )

        def forward(self, x):
            return self.double_conv(x)

    class Up(nn.Module):
        def __init__(self, in_ch, out_ch, bilinear=False):
            super().__init__()
            if bilinear:
                self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
                self.conv = DoubleConv(in_ch, out_ch, in_ch // 2)
            else:
                self.up = nn.ConvTranspose2d(in_ch, in_ch // 2, kernel_size=2, stride=2)
                self.conv = DoubleConv(in_ch, out_ch)

        def forward(self, x1, x2):
            x1 = self.up(x1)
            dy, dx = x2.size()[2] - x1.size()[2], x2.size()[3] - x1.size()[3]
            x1 = F.pad(x1, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])
            return self.conv(torch.cat([x2, x1], dim=1))

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.inc = DoubleConv(1, 4)
            self.down1 = nn.Sequential(nn.MaxPool2d(2), DoubleConv(4, 8))
            self.down2 = nn.Sequential(nn.MaxPool2d(2), DoubleConv(8, 8))
            self.up1 = Up(16, 8, bilinear=True)
            self.up2 = Up(8, 4)
            self.outc = nn.Conv2d(4, 1, kernel_size=1)

        def forward(self, x):
            x1 = self.inc(x)
            x2 = self.down1(x1)
            x3 = self.down2(x2)
            return self.outc(self.up2(self.up1(x3, x2), x1 * 1))

    def dice_loss(logits, target, smooth=1.0):
        pred = torch.sigmoid(logits).contiguous().view(-1)
        target = target.contiguous().view(-1)
        inter = (pred * target).sum()
        return 1 - (2.0 * inter + smooth) / (pred.sum() + target.sum() + smooth)

    model = fill(torch, UNet())
    # The second skip doubles channels: 4 + 4 go into DoubleConv(8, 4).
    net = wrap(model)
    opt = torch.optim.RMSprop(
        model.parameters(), lr=1e-4, weight_decay=1e-8, momentum=0.9, foreach=True
    )
    bce = nn.BCEWithLogitsLoss(pos_weight=torch.tensor([2.0]))

    def train_step(x, mask):
        logits = net(x)
        loss = bce(logits, mask) + dice_loss(logits, mask)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        opt.step()
        return loss

    train_step = wrap(train_step)
    losses = []
    for i in range(steps):
        x = torch.tensor(numbers(i % 2, 2, 1, 10, 9))
        losses.append(train_step(x, (x > 0.3).float()).item())
    return {"losses": losses, **weights(model)}


def mobile(torch, wrap, steps=4):
    """Inverted residuals: depthwise convolutions, ReLU6, hard swish, squeeze and excitation."""
    nn = torch.nn

    class ConvBNReLU(nn.Sequential):
        def __init__(self, cin, cout, kernel_size=3, stride=1, groups=1, act=nn.ReLU6):
            padding = (kernel_size - 1) // 2
            super().__init__(
                nn.Conv2d(cin, cout, kernel_size, stride, padding, groups=groups, bias=False),
                nn.BatchNorm2d(cout, eps=1e-3, momentum=0.01),
                act(inplace=True),
            )

    class SELayer(nn.Module):
        def __init__(self, channel, reduction=4):
            super().__init__()
            self.avg_pool = nn.AdaptiveAvgPool2d(1)
            self.fc = nn.Sequential(
                nn.Linear(channel, channel // reduction, bias=False),
                nn.ReLU(inplace=True),
                nn.Linear(channel // reduction, channel, bias=False),
                nn.Hardsigmoid(),
            )

        def forward(self, x):
            b, c, _, _ = x.size()
            y = self.avg_pool(x).view(b, c)
            y = self.fc(y).view(b, c, 1, 1)
            return x * y.expand_as(x)

    class InvertedResidual(nn.Module):
        def __init__(self, inp, oup, stride, expand_ratio, se=True):
            super().__init__()
            hidden = int(round(inp * expand_ratio))
            self.use_res_connect = stride == 1 and inp == oup
            layers = []
            if expand_ratio != 1:
                layers.append(ConvBNReLU(inp, hidden, kernel_size=1, act=nn.Hardswish))
            layers.append(ConvBNReLU(hidden, hidden, stride=stride, groups=hidden))
            if se:
                layers.append(SELayer(hidden))
            layers.extend([nn.Conv2d(hidden, oup, 1, 1, 0, bias=False), nn.BatchNorm2d(oup)])
            self.conv = nn.Sequential(*layers)

        def forward(self, x):
            return x + self.conv(x) if self.use_res_connect else self.conv(x)

    features = [ConvBNReLU(3, 4, stride=2)]
    for t, c, n, s in [[1, 4, 1, 1], [2, 4, 1, 1], [2, 8, 1, 2]]:
        for i in range(n):
            features.append(InvertedResidual(4, c, s if i == 0 else 1, t, se=t > 1))
    model = nn.Sequential(*features)
    model.add_module("pool", nn.AdaptiveAvgPool2d(1))
    model.add_module("flat", nn.Flatten())
    model.add_module("classifier", nn.Sequential(nn.Dropout(0.0), nn.Linear(8, 5)))
    fill(torch, model)
    net = wrap(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.98)
    criterion = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5, 1.0, 1.0]))

    def train_step(x, y):
        optimizer.zero_grad()
        loss = criterion(net(x), y)
        loss.backward()
        optimizer.step()
        scheduler.step()
        return loss

    train_step = wrap(train_step)
    losses = []
    for i in range(steps):
        y = torch.tensor(labels(i, 5, 5), dtype=torch.long)
        losses.append(train_step(torch.tensor(numbers(i % 4, 5, 3, 12, 12)), y).item())
    # A bias before a linear layer and a batch norm has no gradient.
    return {"losses": losses, **weights(model, ("conv.2.bias", "conv.4.bias", "running_mean"))}


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


SCRIPTS = [bottleneck_resnet, unet, mobile, densenet, convnext, vision_transformer]
