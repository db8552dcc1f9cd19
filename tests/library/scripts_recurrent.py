"""Ordinary scripts about recurrent and convolutional networks over sequences.

Each is a function of the library it imports (`torch` or tracegrad), of what is compiled (`wrap`
takes a step or a model) and of the number of steps.
"""

import numpy as np
from scripts_images import fill, weights


def tokens(seed, vocab, *shape):
    return np.random.RandomState(seed).randint(0, vocab, shape).astype(np.int64)


def seq2seq(torch, wrap, steps=3):
    """LSTM encoder and decoder with additive attention, teacher forcing chosen by Python's random."""
    import random

    nn, F = torch.nn, torch.nn.functional
    vocab, hidden, length = 8, 6, 4

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(vocab, 5)
            self.rnn = nn.LSTM(5, hidden, bidirectional=True, batch_first=True)
            self.fc_h = nn.Linear(2 * hidden, hidden)
            self.fc_c = nn.Linear(2 * hidden, hidden)

        def forward(self, src):
            outputs, (h, c) = self.rnn(self.embedding(src))
            h = torch.tanh(self.fc_h(torch.cat((h[-2], h[-1]), dim=1)))
            c = torch.tanh(self.fc_c(torch.cat((c[-2, :, :], c[-1, :, :]), dim=1)))
            return outputs, h, c

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn = nn.Linear(3 * hidden, hidden)
            self.v = nn.Parameter(torch.rand(hidden))

        def forward(self, h, outputs, mask):
            src_len = outputs.shape[1]
            h = h.unsqueeze(1).repeat(1, src_len, 1)
            energy = torch.tanh(self.attn(torch.cat((h, outputs), dim=2)))
            score = energy.matmul(self.v)
            score = score.masked_fill(mask, -1e10)
            return F.softmax(score, dim=1)

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(vocab, 5)
            self.attention = Attention()
            self.cell = nn.LSTMCell(5 + 2 * hidden, hidden)
            self.out = nn.Linear(hidden + 2 * hidden, vocab)

        def forward(self, token, h, c, outputs, mask):
            embedded = self.embedding(token)
            a = self.attention(h, outputs, mask)
            context = torch.bmm(a.unsqueeze(1), outputs).squeeze(1)
            h, c = self.cell(torch.cat((embedded, context), -1), (h, c))
            return self.out(torch.cat((h, context), dim=-1)), h, c

    class Seq2Seq(nn.Module):
        def __init__(self, encoder, decoder, device):
            super().__init__()
            self.encoder, self.decoder, self.device = encoder, decoder, device

        def forward(self, src, trg, teacher_forcing):
            batch = trg.shape[0]
            outputs = torch.zeros(batch, trg.shape[1], vocab).to(self.device)
            enc, h, c = self.encoder(src)
            mask = src == 0
            token = trg[:, 0]
            for t in range(1, trg.shape[1]):
                out, h, c = self.decoder(token, h, c, enc, mask)
                outputs[:, t] = out
                token = trg[:, t] if teacher_forcing[t] else out.argmax(1)
            return outputs

    device = torch.device("cpu")
    model = fill(torch, Seq2Seq(Encoder(), Decoder(), device).to(device))
    net = wrap(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    criterion = nn.CrossEntropyLoss(ignore_index=0)
    dice = random.Random(1)

    def train_step(src, trg, forcing):
        optimizer.zero_grad()
        output = net(src, trg, forcing)
        output = output[:, 1:].reshape(-1, output.shape[-1])
        loss = criterion(output, trg[:, 1:].reshape(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1)
        optimizer.step()
        return loss

    train_step = wrap(train_step)
    losses = []
    for i in range(steps):
        forcing = tuple(dice.random() < 0.5 for _ in range(length)) if i < 3 else (True,) * length
        src = torch.from_numpy(tokens(i % 4, vocab, 3, 5))
        trg = torch.from_numpy(tokens(i % 4 + 9, vocab - 1, 3, length) + 1)
        losses.append(train_step(src, trg, forcing).item())
    return {"losses": losses, **weights(model)}


def truncated_bptt(torch, wrap, steps=4):
    """A character RNN whose hidden state lives on between steps, repackaged by detaching."""
    nn = torch.nn

    class RNNModel(nn.Module):
        def __init__(self, rnn_type, ntoken, ninp, nhid, nlayers):
            super().__init__()
            self.encoder = nn.Embedding(ntoken, ninp)
            if rnn_type in ["LSTM", "GRU"]:
                self.rnn = getattr(nn, rnn_type)(ninp, nhid, nlayers, dropout=0.0)
            else:
                nonlinearity = {"RNN_TANH": "tanh", "RNN_RELU": "relu"}[rnn_type]
                self.rnn = nn.RNN(ninp, nhid, nlayers, nonlinearity=nonlinearity)
            self.decoder = nn.Linear(nhid, ntoken)
            nn.init.zeros_(self.decoder.bias)
            self.rnn_type, self.nhid, self.nlayers = rnn_type, nhid, nlayers
            self.ntoken = ntoken

        def forward(self, input, hidden):
            emb = self.encoder(input)
            output, hidden = self.rnn(emb, hidden)
            decoded = self.decoder(output).view(-1, self.ntoken)
            return nn.functional.log_softmax(decoded, dim=1), hidden

        def init_hidden(self, bsz):
            weight = next(self.parameters())
            if self.rnn_type == "LSTM":
                return (
                    weight.new_zeros(self.nlayers, bsz, self.nhid),
                    weight.new_zeros(self.nlayers, bsz, self.nhid),
                )
            return weight.new_zeros(self.nlayers, bsz, self.nhid)

    def repackage_hidden(h):
        if isinstance(h, torch.Tensor):
            return h.detach()
        return tuple(repackage_hidden(v) for v in h)

    def batchify(data, bsz):
        nbatch = data.size(0) // bsz
        return data.narrow(0, 0, nbatch * bsz).view(bsz, -1).t().contiguous()

    corpus = batchify(torch.from_numpy(tokens(0, 9, 200)), 4)

    def train(kind):
        model = fill(torch, RNNModel(kind, 9, 5, 6, 2))
        net = wrap(model)
        criterion = nn.NLLLoss()
        lr, bptt = 0.5, 5

        def train_step(data, targets, hidden):
            model.zero_grad()
            hidden = repackage_hidden(hidden)
            output, hidden = net(data, hidden)
            loss = criterion(output, targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25)
            for p in model.parameters():
                p.data.add_(p.grad, alpha=-lr)
            return loss, hidden

        train_step = wrap(train_step)
        hidden = model.init_hidden(4)
        losses = []
        for i in range(steps):
            start = (i % 8) * bptt
            data = corpus[start : start + bptt]
            targets = corpus[start + 1 : start + 1 + bptt].view(-1)
            loss, hidden = train_step(data, targets, hidden)
            losses.append(loss.item())
        last = hidden[0] if kind == "LSTM" else hidden
        return {"losses": losses, "hidden": last.detach().numpy(), **weights(model)}

    kinds = ("LSTM", "GRU", "RNN_TANH")
    return {f"{kind}.{k}": v for kind in kinds for k, v in train(kind).items()}


def masked_gru(torch, wrap, steps=3):
    """A GRU over padded sequences, unrolled by a cell with a mask, pooled by mean and by maximum."""
    nn, F = torch.nn, torch.nn.functional

    class GRUClassifier(nn.Module):
        def __init__(self, vocab=10, emb=5, hidden=6, classes=3):
            super().__init__()
            self.embedding = nn.Embedding(vocab, emb, padding_idx=0)
            self.cell = nn.GRUCell(emb, hidden)
            self.gru = nn.GRU(hidden, hidden, bidirectional=True, batch_first=True)
            self.fc = nn.Linear(4 * hidden, classes)
            self.hidden = hidden

        def forward(self, x, lengths):
            mask = torch.arange(x.size(1))[None, :] < lengths[:, None]
            emb = self.embedding(x)
            h = torch.zeros(x.size(0), self.hidden)
            states = []
            for t in range(x.size(1)):
                new = self.cell(emb[:, t], h)
                m = mask[:, t].unsqueeze(1).float()
                h = m * new + (1 - m) * h
                states.append(h)
            out, _ = self.gru(torch.stack(states, dim=1))
            mean = (out * mask.unsqueeze(-1)).sum(1) / lengths.unsqueeze(1).clamp(min=1)
            top = out.masked_fill(~mask.unsqueeze(-1), -1e9).max(dim=1)[0]
            return self.fc(F.relu(torch.cat([mean, top], dim=-1)))

    model = fill(torch, GRUClassifier())
    with torch.no_grad():
        model.embedding.weight[model.embedding.padding_idx].fill_(0)
    net = wrap(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, amsgrad=True)

    def train_step(x, lengths, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x, lengths), y)
        loss.backward()
        optimizer.step()
        return loss

    train_step = wrap(train_step)
    losses = []
    for i in range(steps):
        lengths = np.random.RandomState(i).randint(1, 6, 4)
        x = tokens(i, 9, 4, 5) + 1
        x[np.arange(5)[None] >= lengths[:, None]] = 0
        y = tokens(i + 5, 3, 4)
        losses.append(train_step(*map(torch.from_numpy, (x, lengths, y))).item())
    return {"losses": losses, **weights(model)}


def text_cnn(torch, wrap, steps=4):
    """Parallel convolutions over embeddings beside an EmbeddingBag, Adadelta, weight norms cut by hand."""
    nn, F = torch.nn, torch.nn.functional

    class TextCNN(nn.Module):
        def __init__(self, vocab=12, dim=6, sizes=(2, 3), num=4, classes=2):
            super().__init__()
            self.embed = nn.Embedding(vocab, dim, padding_idx=1)
            self.bag = nn.EmbeddingBag(vocab, dim, mode="mean")
            self.convs = nn.ModuleList([nn.Conv2d(1, num, (k, dim)) for k in sizes])
            self.conv1d = nn.Conv1d(dim, num, 3, padding=1, dilation=1)
            self.dropout = nn.Dropout(0.5)
            self.fc = nn.Linear(len(sizes) * num + num + dim, classes)

        def conv_and_pool(self, x, conv):
            x = F.relu(conv(x)).squeeze(3)
            return F.max_pool1d(x, x.size(2)).squeeze(2)

        def forward(self, text):
            e = self.embed(text)
            x = e.unsqueeze(1)
            parts = [self.conv_and_pool(x, conv) for conv in self.convs]
            parts.append(F.adaptive_max_pool1d(self.conv1d(e.transpose(1, 2)), 1).flatten(1))
            parts.append(self.bag(text))
            return self.fc(self.dropout(torch.cat(parts, 1)))

    model = fill(torch, TextCNN())
    model.dropout.p = 0.0
    net = wrap(model)
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.05, lr_decay=1e-3)

    def train_step(text, label):
        optimizer.zero_grad()
        logit = net(text)
        loss = F.cross_entropy(logit, label, reduction="none")
        loss = loss.mean()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            norm = model.fc.weight.norm(2, dim=1, keepdim=True)
            desired = torch.clamp(norm, 0, 0.7)
            model.fc.weight.mul_(desired / (1e-7 + norm))
        corrects = (torch.max(logit, 1)[1].view(label.size()).data == label.data).sum()
        return loss, corrects

    train_step = wrap(train_step)
    log = []
    for i in range(steps):
        text = torch.from_numpy(tokens(i % 5, 12, 4, 7))
        loss, corrects = train_step(text, torch.from_numpy(tokens(i % 5, 2, 4)))
        log.append((loss.item(), 100.0 * corrects.item() / 4))
    return {"log": log, **weights(model)}


SCRIPTS = [seq2seq, truncated_bptt, masked_gru, text_cnn]
