"""Ordinary scripts about sequences and control, as functions of the library they import and of how
the step is compiled.
"""

import copy
import math

import numpy as np
from scripts_images import fill, numbers, weights


def nano_gpt(torch, wrap):
    """A small GPT as usually written: buffers, weight tying, AdamW groups, clipping, generation."""
    nn, F = torch.nn, torch.nn.functional
    vocab, block, width, heads = 11, 8, 12, 3

    class CausalSelfAttention(nn.Module):
        def __init__(self):
            super().__init__()
            self.c_attn = nn.Linear(width, 3 * width, bias=False)
            self.c_proj = nn.Linear(width, width, bias=False)
            self.register_buffer(
                "bias", torch.tril(torch.ones(block, block)).view(1, 1, block, block)
            )

        def forward(self, x):
            B, T, C = x.size()
            q, k, v = self.c_attn(x).split(width, dim=2)
            k = k.view(B, T, heads, C // heads).transpose(1, 2)
            q = q.view(B, T, heads, C // heads).transpose(1, 2)
            v = v.view(B, T, heads, C // heads).transpose(1, 2)
            att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
            att = att.masked_fill(self.bias[:, :, :T, :T] == 0, float("-inf"))
            att = F.softmax(att, dim=-1)
            y = (att @ v).transpose(1, 2).contiguous().view(B, T, C)
            return self.c_proj(y)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.ln_1 = nn.LayerNorm(width)
            self.attn = CausalSelfAttention()
            self.ln_2 = nn.LayerNorm(width)
            self.mlp = nn.Sequential(
                nn.Linear(width, 2 * width),
                nn.GELU(approximate="tanh"),
                nn.Linear(2 * width, width),
            )

        def forward(self, x):
            x = x + self.attn(self.ln_1(x))
            return x + self.mlp(self.ln_2(x))

    class GPT(nn.Module):
        def __init__(self):
            super().__init__()
            self.transformer = nn.ModuleDict(
                dict(
                    wte=nn.Embedding(vocab, width),
                    wpe=nn.Embedding(block, width),
                    drop=nn.Dropout(0.0),
                    h=nn.ModuleList([Block() for _ in range(2)]),
                    ln_f=nn.LayerNorm(width),
                )
            )
            self.lm_head = nn.Linear(width, vocab, bias=False)
            self.transformer.wte.weight = self.lm_head.weight
            self.apply(self._init_weights)
            for pn, p in self.named_parameters():
                if pn.endswith("c_proj.weight"):
                    torch.nn.init.normal_(p, mean=0.0, std=0.02 / math.sqrt(2 * 2))

        def _init_weights(self, module):
            if isinstance(module, nn.Linear):
                torch.nn.init.normal_(module.weight, mean=0.0, std=0.02)
                if module.bias is not None:
                    torch.nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                torch.nn.init.normal_(module.weight, mean=0.0, std=0.02)

        def forward(self, idx, targets=None):
            device = idx.device
            b, t = idx.size()
            assert t <= block, f"Cannot forward sequence of length {t}"
            pos = torch.arange(0, t, dtype=torch.long, device=device)
            x = self.transformer.drop(self.transformer.wte(idx) + self.transformer.wpe(pos))
            for layer in self.transformer.h:
                x = layer(x)
            x = self.transformer.ln_f(x)
            if targets is not None:
                logits = self.lm_head(x)
                loss = F.cross_entropy(
                    logits.view(-1, logits.size(-1)), targets.view(-1), ignore_index=-1
                )
            else:
                logits = self.lm_head(x[:, [-1], :])
                loss = None
            return logits, loss

        @torch.no_grad()
        def generate(self, idx, max_new_tokens, temperature=1.0, top_k=None):
            for _ in range(max_new_tokens):
                idx_cond = idx if idx.size(1) <= block else idx[:, -block:]
                logits, _ = self(idx_cond)
                logits = logits[:, -1, :] / temperature
                if top_k is not None:
                    v, _ = torch.topk(logits, min(top_k, logits.size(-1)))
                    logits[logits < v[:, [-1]]] = -float("Inf")
                probs = F.softmax(logits, dim=-1)
                idx_next = torch.multinomial(probs, num_samples=1)
                idx = torch.cat((idx, idx_next), dim=1)
            return idx

    torch.manual_seed(1337)
    model = fill(torch, GPT())
    params = {pn: p for pn, p in model.named_parameters() if p.requires_grad}
    decay = [p for p in params.values() if p.dim() >= 2]
    nodecay = [p for p in params.values() if p.dim() < 2]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": nodecay, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95))
    count = sum(p.numel() for p in model.parameters())

    def get_lr(it):
        return 1e-2 * (it + 1) / 3

    def step(x, y):
        logits, loss = model(x, y)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss, norm

    step = wrap(step)
    text = torch.from_numpy(np.random.RandomState(3).randint(0, vocab, 200).astype(np.int64))
    losses = []
    for it in range(3):
        for group in optimizer.param_groups:
            group["lr"] = get_lr(it)
        ix = [(7 * it + 13 * k) % 150 for k in range(4)]
        x = torch.stack([text[i : i + block] for i in ix])
        y = torch.stack([text[i + 1 : i + 1 + block] for i in ix])
        loss, norm = step(x, y)
        losses += [loss.item(), norm.item()]
    model.eval()
    greedy = model.generate(torch.zeros((1, 1), dtype=torch.long), 10, top_k=1)
    drawn = model.generate(torch.zeros((2, 1), dtype=torch.long), 3, temperature=0.8, top_k=5)
    assert drawn.shape == (2, 4)
    return {"losses": losses, "greedy": greedy[0].tolist(), "count": count, **weights(model)}


def char_lstm(torch, wrap):
    """A character LSTM whose state is carried from batch to batch, detached."""
    nn, F = torch.nn, torch.nn.functional

    class CharLSTM(nn.Module):
        def __init__(self, n, hidden, layers=2):
            super().__init__()
            self.hidden, self.layers = hidden, layers
            self.embed = nn.Embedding(n, 5)
            self.lstm = nn.LSTM(5, hidden, layers, batch_first=True)
            self.fc = nn.Linear(hidden, n)

        def forward(self, x, state):
            out, state = self.lstm(self.embed(x), state)
            return self.fc(out.reshape(-1, self.hidden)), state

        def init_hidden(self, batch):
            weight = next(self.parameters()).data
            return (
                weight.new_zeros(self.layers, batch, self.hidden),
                weight.new(self.layers, batch, self.hidden).zero_(),
            )

    text = "hello world, this is a tiny text to learn from."
    chars = sorted(set(text))
    index = {c: i for i, c in enumerate(chars)}
    data = torch.tensor([index[c] for c in text], dtype=torch.long)
    model = fill(torch, CharLSTM(len(chars), 6))
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-2)

    def step(x, y, h, c):
        optimizer.zero_grad()
        out, (h, c) = model(x, (h, c))
        loss = F.cross_entropy(out, y.view(-1))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), max_norm=5)
        optimizer.step()
        return loss, h.detach(), c.detach()

    step = wrap(step)
    h, c = model.init_hidden(2)
    losses = []
    for i in range(3):
        x = torch.stack([data[i : i + 7], data[20 + i : 27 + i]])
        y = torch.stack([data[i + 1 : i + 8], data[21 + i : 28 + i]])
        loss, h, c = step(x, y, h, c)
        losses.append(loss.item())
    with torch.no_grad():
        logits, _ = model(data[None, :3], model.init_hidden(1))
        _, top = logits[-1].topk(3)
    return {"losses": losses, "top": top.tolist(), "h": h.numpy(), **weights(model)}


def dqn(torch, wrap):
    """Q-learning with a target network: gather, soft updates under no_grad, a copied state dict."""
    nn, F = torch.nn, torch.nn.functional

    def mlp():
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))

    policy, target = fill(torch, mlp()), mlp()
    target.load_state_dict(policy.state_dict())
    best = copy.deepcopy(policy.state_dict())
    for p in target.parameters():
        p.requires_grad = False
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-2, amsgrad=True)
    tau, gamma = 0.1, 0.9

    def step(state, action, reward, following, done):
        q = policy(state).gather(1, action)
        with torch.no_grad():
            value = target(following).max(1).values
            value[done] = 0.0
        expected = (value * gamma) + reward
        loss = F.smooth_l1_loss(q, expected.unsqueeze(1))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_value_(policy.parameters(), 100)
        optimizer.step()
        with torch.no_grad():
            for t, p in zip(target.parameters(), policy.parameters()):
                t.mul_(1 - tau).add_(p, alpha=tau)
        return loss

    step = wrap(step)
    losses = []
    for i in range(3):
        random = np.random.RandomState(i)
        batch = [
            torch.tensor(numbers(i, 6, 4)),
            torch.from_numpy(random.randint(0, 3, (6, 1))),
            torch.tensor(numbers(i + 9, 6)),
            torch.tensor(numbers(i + 5, 6, 4)),
            torch.tensor(random.rand(6) > 0.5),
        ]
        losses.append(step(*batch).item())
    state = {}
    net = target.state_dict()
    for key in policy.state_dict():
        state[key] = policy.state_dict()[key] * tau + net[key] * (1 - tau)
    target.load_state_dict(state)
    action = policy(torch.tensor([[0.1, 0.2, 0.3, 0.4]])).max(1).indices.view(1, 1).item()
    before = {f"best.{k}": v.numpy() for k, v in best.items()}
    return {
        "losses": losses,
        "action": action,
        **before,
        **weights(policy),
        "t": weights(target)["0.weight"],
    }


SCRIPTS = [nano_gpt, char_lstm, dqn]
