"""Python that looks at tensor values, inside compiled functions; and gradients of each example."""

import argparse

import tracegrad as tg


def newton(x):
    """The square root by Newton's steps: an ordinary `while` on a value."""
    root = x
    while (root * root - x).abs().max() > 1e-6:
        root = (root + x / root) / 2
    return root


def newton_in_one_graph(x):
    """The same as one loop of the graph: what runs is one program, however many steps it takes."""
    (root,) = tg.while_loop(
        lambda root: (root * root - x).abs().max() > 1e-6,
        lambda root: ((root + x / root) / 2,),
        (x,),
    )
    return root


def clipped(w, x):
    """A branch on a value; its gradient is that of the path taken."""
    y = w * x
    if y.sum() > 1:
        y = y / y.sum()
    return (y * y).sum()


def main(arguments=None):
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--backend", default="numpy", choices=["numpy", "jax"])
    backend = options.parse_args(arguments).backend

    for function in (newton, newton_in_one_graph):
        root = tg.compile(function, backend=backend)
        for value in (2.0, 9.0, 10.0):
            print(f"{function.__name__}({value}) = {root(tg.tensor([value])).item():.6f}")
        print("  programs compiled:", root.stats()["compiles"])

    w = tg.tensor([1.0, 2.0], requires_grad=True)
    step = tg.compile(clipped, backend=backend)
    for x in (tg.tensor([0.1, 0.2]), tg.tensor([1.0, 3.0]), tg.tensor([0.3, 0.1])):
        w.grad = None
        step(w, x).backward()
        print("gradient", [round(g, 4) for g in w.grad.tolist()])
    print(step.why())

    def loss(w, x, y):
        return ((w * x).sum() - y) ** 2

    xs, ys = tg.randn(5, 2), tg.randn(5)
    each = tg.compile(tg.func.vmap(tg.func.grad(loss), in_dims=(None, 0, 0)), backend=backend)
    print("one gradient for each example:", list(each(w.detach(), xs, ys).shape))


if __name__ == "__main__":
    main()
