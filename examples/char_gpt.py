"""A small GPT that learns to write this file, one character at a time.

The whole training step (forward, backward, clipping, AdamW, schedule) is one compiled program.
"""

import argparse
import math
import tempfile
import time
from pathlib import Path

import tracegrad as tg
from tracegrad import nn
from tracegrad.nn import functional as F

TEXT = Path(__file__).read_text()
LETTERS = sorted(set(TEXT))
CONTEXT, WIDTH, HEADS, LAYERS, BATCH = 64, 64, 4, 2, 16


class Block(nn.Module):
    """Attention over what came before, then a feed-forward layer; both added to the input."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH), nn.Dropout(0.1)
        )

    def forward(self, x):
        batch, length, _ = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, HEADS, WIDTH // HEADS)
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(batch, length, WIDTH))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    """Letters [batch, length] to logits [batch, length, number of letters]."""

    def __init__(self):
        super().__init__()
        self.letters = nn.Embedding(len(LETTERS), WIDTH)
        self.places = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, len(LETTERS), bias=False)

    def forward(self, letters):
        places = tg.arange(letters.shape[1])
        x = self.letters(letters) + self.places(places)
        return self.head(self.norm(self.blocks(x)))


def train(model, backend, steps):
    """Returns the last loss and the compiled step."""
    optimizer = tg.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = tg.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps + 1)
    data = tg.tensor([LETTERS.index(letter) for letter in TEXT])

    def train_step(given, wanted):
        optimizer.zero_grad()
        logits = model(given)
        loss = F.cross_entropy(logits.flatten(0, 1), wanted.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        return loss

    step = tg.compile(train_step, backend=backend)
    started = time.perf_counter()
    for number in range(1, steps + 1):
        starts = tg.randint(0, len(data) - CONTEXT - 1, (BATCH, 1))
        rows = data[starts + tg.arange(CONTEXT + 1)]
        loss = step(rows[:, :-1], rows[:, 1:])
        if number % 50 == 0 or number == steps:
            each = (time.perf_counter() - started) / number
            print(f"step {number:4}  loss {loss.item():.3f}  {each * 1e3:.1f} ms a step")
    return loss.item(), step


@tg.no_grad()
def write(model, start, count):
    """`count` letters after `start`, drawn from what the model expects."""
    model.eval()
    letters = [LETTERS.index(letter) for letter in start]
    for _ in range(count):
        logits = model(tg.tensor([letters[-CONTEXT:]]))[0, -1]
        letters.append(tg.multinomial(F.softmax(logits, -1), 1).item())
    model.train()
    return "".join(LETTERS[k] for k in letters)


def main(arguments=None):
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--backend", default="numpy", choices=["eager", "numpy", "jax"])
    options.add_argument("--steps", type=int, default=200)
    options = options.parse_args(arguments)
    tg.manual_seed(0)
    model = GPT()
    print(f"before: loss of guessing {math.log(len(LETTERS)):.3f}")
    loss, step = train(model, options.backend, options.steps)
    if options.backend != "eager":
        print(step.why())
    with tempfile.TemporaryDirectory() as folder:  # a checkpoint and back
        tg.save(model.state_dict(), Path(folder) / "gpt.tg")
        again = GPT()
        again.load_state_dict(tg.load(Path(folder) / "gpt.tg"))
    print(write(again, "def ", 120))
    return loss


if __name__ == "__main__":
    main()
