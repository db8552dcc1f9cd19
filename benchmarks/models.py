"""The workloads, each written once against the API that PyTorch and tracegrad share."""

from __future__ import annotations

from typing import Any


def mlp(lib: Any, sizes: tuple[int, ...]) -> Any:
    """Linear layers with relu between."""
    nn = lib.nn
    layers: list[Any] = []
    for k, (inputs, outputs) in enumerate(zip(sizes, sizes[1:])):
        layers += ([nn.ReLU()] if k else []) + [nn.Linear(inputs, outputs)]
    return nn.Sequential(*layers)


def cnn(lib: Any) -> Any:
    """Two convolutions with batch norm for 28 x 28 images of one channel."""
    nn = lib.nn
    layers: list[Any] = []
    for inputs, outputs in ((1, 32), (32, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU(), nn.Linear(128, 10)]
    return nn.Sequential(*layers)


def gpt(lib: Any, layers: int, heads: int, width: int, context: int, vocabulary: int) -> Any:
    """A pre-norm GPT with tied output head and no biases."""
    nn, F = lib.nn, lib.nn.functional

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = (
                nn.LayerNorm(width, bias=False),
                nn.LayerNorm(width, bias=False),
            )
            self.qkv = nn.Linear(width, 3 * width, bias=False)
            self.project = nn.Linear(width, width, bias=False)
            self.up, self.down = (
                nn.Linear(width, 4 * width, bias=False),
                nn.Linear(4 * width, width, bias=False),
            )

        def forward(self, x: Any) -> Any:
            batch, time, _ = x.shape
            parts = self.qkv(self.norm1(x)).split(width, 2)
            q, k, v = (p.view(batch, time, heads, width // heads).transpose(1, 2) for p in parts)
            a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.project(a.transpose(1, 2).reshape(batch, time, width))
            return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.positions = (
                nn.Embedding(vocabulary, width),
                nn.Embedding(context, width),
            )
            self.blocks = nn.ModuleList([Block() for _ in range(layers)])
            self.norm = nn.LayerNorm(width, bias=False)
            self.head = nn.Linear(width, vocabulary, bias=False)
            self.head.weight = self.tokens.weight
            for parameter in self.parameters():
                if parameter.ndim > 1:
                    nn.init.normal_(parameter, std=0.02)

        def forward(self, x: Any) -> Any:
            h = self.tokens(x) + self.positions(lib.arange(x.shape[1]))
            for block in self.blocks:
                h = block(h)
            return self.head(self.norm(h))

    return GPT()
