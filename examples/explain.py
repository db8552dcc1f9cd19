"""What a compiled step tells about itself: the graph, why it was recorded again, memory, a dump."""

import argparse
import tempfile
from pathlib import Path

import tracegrad as tg
from tracegrad import nn
from tracegrad.nn import functional as F


def main(arguments=None):
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--backend", default="numpy", choices=["numpy", "jax"])
    options.add_argument("--dump", type=Path, help="a folder to write everything into")
    options = options.parse_args(arguments)

    tg.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))
    optimizer = tg.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def train_step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    step = tg.compile(train_step, backend=options.backend)
    x, y = tg.randn(24, 16), tg.randint(0, 4, (24,))
    for _ in range(3):
        step(x, y)
    step(x[:8], y[:8])  # a smaller last batch: one recording more
    model[1].eval()  # noticed, although nothing was declared
    step(x, y)

    print("--- why() ---", step.why(), sep="\n")
    print("--- explain() ---", step.explain(), sep="\n")

    print("--- history: the graph after every pass ---")
    for name, graph in step.history:
        print(f"{name:14} {len(graph.nodes):4} nodes")

    print("--- graph: one node, and the line it came from ---")
    node = next(n for n in step.graph.nodes if any("vjp" in s for s in n.loc.via) and n.inputs)
    print(f"{node.op.name} {node.type} from {node.loc.file}:{node.loc.line} by {node.loc.via}")

    print("--- memory() ---", step.memory(), sep="\n")
    print("--- source ---", *step.source.splitlines()[:6], sep="\n")

    with tempfile.TemporaryDirectory() as temporary:
        folder = step.dump(options.dump or temporary)
        print("--- dump() ---", *sorted(path.name for path in folder.iterdir()), sep="\n")
    return step


if __name__ == "__main__":
    main()
