"""Ordinary scripts about convolutional networks.

Each is a function of the library it imports (`torch` or tracegrad), of what is compiled (`wrap`
takes a step or a model) and of the number of steps.
"""

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


SCRIPTS = [bottleneck_resnet, unet, mobile]
