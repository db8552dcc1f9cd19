"""Ordinary scripts about language models with attention.

Each is a function of the library it imports (`torch` or tracegrad), of what is compiled (`wrap`
takes a step or a model) and of the number of steps.
"""

import math

import numpy as np
from scripts_images import fill, weights


def tokens(seed, vocab, *shape):
    return np.random.RandomState(seed).randint(0, vocab, shape).astype(np.int64)


def gpt_attention_module(torch, wrap, steps=4):
    """A GPT around nn.MultiheadAttention with a causal mask buffer; warm-up and cosine by LambdaLR."""
    nn, F = torch.nn, torch.nn.functional

    class DecoderBlock(nn.Module):
        def __init__(self, d_model, n_head, max_len):
            super().__init__()
            self.attn = nn.MultiheadAttention(d_model, n_head, dropout=0.0, batch_first=True)
            mask = torch.triu(torch.full((max_len, max_len), float("-inf")), diagonal=1)
            self.register_buffer("mask", mask, persistent=False)
            self.ln1 = nn.LayerNorm(d_model)
            self.ln2 = nn.LayerNorm(d_model)
            self.ff = nn.Sequential(
                nn.Linear(d_model, 4 * d_model), nn.ReLU(), nn.Linear(4 * d_model, d_model)
            )

        def forward(self, x):
            T = x.size(1)
            h = self.ln1(x)
            a, _ = self.attn(h, h, h, attn_mask=self.mask[:T, :T], need_weights=False)
            x = x + a
            return x + self.ff(self.ln2(x))

    class PositionalEncoding(nn.Module):
        def __init__(self, d_model, max_len=32):
            super().__init__()
            position = torch.arange(max_len).unsqueeze(1)
            div_term = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10000.0) / d_model))
            pe = torch.zeros(1, max_len, d_model)
            pe[0, :, 0::2] = torch.sin(position * div_term)
            pe[0, :, 1::2] = torch.cos(position * div_term)
            self.register_buffer("pe", pe)

        def forward(self, x):
            return x + self.pe[:, : x.size(1)]

    class LM(nn.Module):
        def __init__(self, vocab=13, d_model=8, n_head=2, n_layer=2):
            super().__init__()
            self.d_model = d_model
            self.emb = nn.Embedding(vocab, d_model)
            self.pos = PositionalEncoding(d_model)
            self.blocks = nn.ModuleList([DecoderBlock(d_model, n_head, 16) for _ in range(n_layer)])
            self.head = nn.Linear(d_model, vocab)

        def forward(self, idx):
            x = self.pos(self.emb(idx) * math.sqrt(self.d_model))
            for block in self.blocks:
                x = block(x)
            return self.head(x)

    model = fill(torch, LM())
    net = wrap(model)
    opt = torch.optim.Adam(model.parameters(), lr=1.0, betas=(0.9, 0.98), eps=1e-9)

    def rate(step, warmup=4, d_model=8):
        step = max(step, 1)
        return 0.02 * d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)

    sched = torch.optim.lr_scheduler.LambdaLR(opt, lr_lambda=rate)

    def train_step(x, y):
        opt.zero_grad()
        logits = net(x)
        loss = F.cross_entropy(logits.transpose(1, 2), y)
        loss.backward()
        opt.step()
        sched.step()
        return loss

    train_step = wrap(train_step)
    losses = []
    for i in range(steps):
        data = torch.from_numpy(tokens(i % 3, 13, 3, 9))
        losses.append(train_step(data[:, :-1], data[:, 1:]).item())
    perplexity = math.exp(losses[-1])
    return {
        "losses": losses,
        "perplexity": perplexity,
        "lr": sched.get_last_lr(),
        **weights(model, ("in_proj_bias",)),
    }


def llama(torch, wrap, steps=4):
    """RMS norm, complex-free rotary embeddings, grouped-query attention, SwiGLU, tied weights, and
    generation with a key-value cache.
    """
    nn, F = torch.nn, torch.nn.functional
    dim, n_heads, n_kv, vocab, max_len = 16, 4, 2, 11, 12
    head = dim // n_heads

    class RMSNorm(nn.Module):
        def __init__(self, dim, eps=1e-5):
            super().__init__()
            self.eps = eps
            self.weight = nn.Parameter(torch.ones(dim))

        def _norm(self, x):
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)

        def forward(self, x):
            return self._norm(x.float()).type_as(x) * self.weight

    def precompute(theta=10000.0):
        freqs = 1.0 / (theta ** (torch.arange(0, head, 2)[: (head // 2)].float() / head))
        t = torch.arange(max_len, dtype=torch.float32)
        freqs = torch.outer(t, freqs)
        return torch.cos(freqs), torch.sin(freqs)

    def rotate(x, cos, sin):
        x_r, x_i = x.float().reshape(x.shape[:-1] + (-1, 2)).unbind(-1)
        cos, sin = cos[None, :, None, :], sin[None, :, None, :]
        out = torch.stack([x_r * cos - x_i * sin, x_r * sin + x_i * cos], dim=-1)
        return out.flatten(3).type_as(x)

    def repeat_kv(x, n_rep):
        bs, slen, n_kv_heads, head_dim = x.shape
        if n_rep == 1:
            return x
        return (
            x[:, :, :, None, :]
            .expand(bs, slen, n_kv_heads, n_rep, head_dim)
            .reshape(bs, slen, n_kv_heads * n_rep, head_dim)
        )

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.wq = nn.Linear(dim, n_heads * head, bias=False)
            self.wk = nn.Linear(dim, n_kv * head, bias=False)
            self.wv = nn.Linear(dim, n_kv * head, bias=False)
            self.wo = nn.Linear(n_heads * head, dim, bias=False)
            self.cache = None

        def forward(self, x, cos, sin, start=None):
            bsz, seqlen, _ = x.shape
            xq = self.wq(x).view(bsz, seqlen, n_heads, head)
            xk = self.wk(x).view(bsz, seqlen, n_kv, head)
            xv = self.wv(x).view(bsz, seqlen, n_kv, head)
            xq, xk = rotate(xq, cos, sin), rotate(xk, cos, sin)
            if start is not None:
                if self.cache is None:
                    self.cache = torch.zeros(2, bsz, max_len, n_kv, head)
                self.cache[0, :bsz, start : start + seqlen] = xk
                self.cache[1, :bsz, start : start + seqlen] = xv
                xk = self.cache[0, :bsz, : start + seqlen]
                xv = self.cache[1, :bsz, : start + seqlen]
            xk, xv = repeat_kv(xk, n_heads // n_kv), repeat_kv(xv, n_heads // n_kv)
            xq, xk, xv = (t.transpose(1, 2) for t in (xq, xk, xv))
            out = F.scaled_dot_product_attention(xq, xk, xv, is_causal=seqlen > 1)
            return self.wo(out.transpose(1, 2).contiguous().view(bsz, seqlen, -1))

    class FeedForward(nn.Module):
        def __init__(self, hidden=24):
            super().__init__()
            self.w1 = nn.Linear(dim, hidden, bias=False)
            self.w2 = nn.Linear(hidden, dim, bias=False)
            self.w3 = nn.Linear(dim, hidden, bias=False)

        def forward(self, x):
            return self.w2(F.silu(self.w1(x)) * self.w3(x))

    class Block(nn.Module):
        def __init__(self, layer_id):
            super().__init__()
            self.layer_id = layer_id
            self.attention, self.feed_forward = Attention(), FeedForward()
            self.attention_norm, self.ffn_norm = RMSNorm(dim), RMSNorm(dim)

        def forward(self, x, cos, sin, start=None):
            h = x + self.attention(self.attention_norm(x), cos, sin, start)
            return h + self.feed_forward(self.ffn_norm(h))

    class Transformer(nn.Module):
        last_loss: object

        def __init__(self):
            super().__init__()
            self.tok_embeddings = nn.Embedding(vocab, dim)
            self.layers = nn.ModuleList()
            for layer_id in range(2):
                self.layers.append(Block(layer_id))
            self.norm = RMSNorm(dim)
            self.output = nn.Linear(dim, vocab, bias=False)
            self.tok_embeddings.weight = self.output.weight
            cos, sin = precompute()
            self.register_buffer("freqs_cos", cos, persistent=False)
            self.register_buffer("freqs_sin", sin, persistent=False)
            for name, p in self.named_parameters():
                if name.endswith(("w3.weight", "wo.weight")):
                    nn.init.normal_(p, mean=0.0, std=0.02 / math.sqrt(2 * 2))

        def forward(self, tokens, targets=None, start=None):
            _bsz, seqlen = tokens.shape
            first = start or 0
            cos = self.freqs_cos[first : first + seqlen]
            sin = self.freqs_sin[first : first + seqlen]
            h = self.tok_embeddings(tokens)
            for layer in self.layers:
                h = layer(h, cos, sin, start)
            h = self.norm(h)
            if targets is not None:
                logits = self.output(h)
                return F.cross_entropy(
                    logits.reshape(-1, logits.size(-1)), targets.reshape(-1), ignore_index=-1
                )
            return self.output(h[:, [-1], :])

    model = fill(torch, Transformer())
    net = wrap(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, betas=(0.9, 0.95), weight_decay=0.1)

    def train_step(x, y):
        optimizer.zero_grad(set_to_none=True)
        loss = net(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    train_step = wrap(train_step)
    losses = []
    for i in range(steps):
        data = tokens(i % 3, vocab, 2, 8)
        y = np.where(np.arange(7) < 5, data[:, 1:], -1)
        losses.append(train_step(torch.from_numpy(data[:, :-1]), torch.from_numpy(y)).item())
    model.eval()
    with torch.inference_mode():
        sequence = torch.tensor([[1, 5, 2]])
        logits = model(sequence, start=0)
        for position in range(3, 8):
            following = logits[:, -1].argmax(-1, keepdim=True)
            sequence = torch.cat([sequence, following], dim=1)
            logits = model(following, start=position)
        full = model(sequence)
    return {
        "losses": losses,
        "sequence": sequence.tolist(),
        "cached": logits.numpy(),
        "full": full.numpy(),
        **weights(model),
    }


SCRIPTS = [gpt_attention_module, llama]
