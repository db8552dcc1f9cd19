"""Random programs of views, in-place writes, detach and no_grad, run alike by PyTorch and by us.

A program is a list of steps; a step names its operands by numbers into the pool of tensors made so
far. A step that one library refuses must be refused by the other one too.
"""

import numpy as np
import torch
from hypothesis import strategies as st

import tracegrad as tg

KINDS = [
    "slice", "select", "transpose", "view", "flat", "expand", "unsqueeze", "squeeze", "detach",
    "clone", "double", "product", "sine", "add_", "mul_", "add_scaled_", "copy_", "setitem",
    "set_row", "augmented", "zero_", "fill_", "add_self_", "chunked",
]  # fmt: skip
STEP = st.tuples(
    st.sampled_from(KINDS), st.integers(0, 30), st.integers(0, 30), st.integers(0, 5), st.booleans()
)
# Half of the steps run under no_grad were too many: gradients died out.
STEPS = st.lists(STEP.map(lambda s: (*s[:4], s[4] and s[3] % 3 == 0)), min_size=2, max_size=14)


def overlapping(lib, x, y):
    """Whether PyTorch calls a write of `y` on `x` undefined; ours reads all, then writes."""
    if lib is not torch or x is y:
        return False
    return x.untyped_storage().data_ptr() == y.untyped_storage().data_ptr()


def step(lib, pool, kind, a, b, k):
    """One step; returns the new tensor, or None."""
    x, y = pool[a % len(pool)], pool[b % len(pool)]
    n = x.ndim
    if kind in ("mul_", "add_scaled_", "copy_", "setitem") and overlapping(lib, x, y):
        y = y.clone()
    if kind == "slice":
        return x[k % 2 : 3] if n < 2 or k < 3 else x[:, k % 2 :: 2]
    if kind == "select":
        return x[k % 2] if k < 3 else x[..., k % 2]
    if kind == "transpose":
        return x.transpose(0, -1)
    if kind == "view":
        return x.view(3, -1)
    if kind == "flat":
        return x.reshape(-1)
    if kind == "expand":
        return lib.sin(x.expand(2, *x.shape))  # a write on an expanded tensor: see the named tests
    if kind == "unsqueeze":
        return x.unsqueeze(k % (n + 1))
    if kind == "squeeze":
        return x.squeeze()
    if kind == "detach":
        return x.detach()
    if kind == "clone":
        return x.clone()
    if kind == "double":
        return x * 2.0
    if kind == "product":
        return x * y
    if kind == "sine":
        return lib.sin(x)
    if kind == "add_":
        x.add_(0.5)
    elif kind == "mul_":
        x.mul_(0.5 if k % 2 else y)
    elif kind == "add_scaled_":
        x.add_(y, alpha=0.5)
    elif kind == "copy_":
        x.copy_(y)
    elif kind == "setitem":
        x[k % 2 :] = y if k < 3 else 1.5
    elif kind == "set_row":
        x[..., k % 2] = 0.25 * (1 + k)
    elif kind == "augmented":
        x[: 1 + k % 2] *= 0.5
    elif kind == "zero_":
        x[k % 2 :].zero_()
    elif kind == "fill_":
        x.fill_(0.75)
    elif kind == "add_self_":
        x.add_(x)
    elif kind == "chunked":
        return lib.sin(x.chunk(2)[0])  # writes on such views are refused: see the named tests
    return None


def execute(lib, steps, leaves, refused):
    """The pool after all steps; `refused` gets the numbers of the steps that raised."""
    pool = [*leaves, leaves[0] * 1.0, leaves[1] * 1.0]
    for number, (kind, a, b, k, quiet) in enumerate(steps):
        try:
            if quiet:
                # PyTorch's views made under no_grad are leaves of their own, a quirk not imitated.
                with lib.no_grad():
                    made = step(lib, pool, kind, a, b, k)
                    made = made if made is None else made.detach()
            else:
                made = step(lib, pool, kind, a, b, k)
        except (RuntimeError, IndexError, ValueError, tg.TracegradError):
            refused.append(number)
            continue
        if made is not None:
            pool.append(made)
    return pool


def loss_of(lib, pool):
    """A weighted sum of every tensor that carries a gradient."""
    total = None
    for number, tensor in enumerate(pool):
        if tensor.requires_grad:
            part = (tensor * tensor).sum() * (1.0 + 0.1 * number) + lib.sin(tensor).sum()
            total = part if total is None else total + part
    return total


def leaves_of(lib):
    """What a program starts with: two leaves that require gradients, and one that does not."""
    arrays = (
        np.linspace(-1, 1, 6).reshape(2, 3),
        np.linspace(0.5, 1.5, 3),
        np.linspace(-2, 0.3, 6).reshape(2, 3),
    )
    x, y, z = map(lib.tensor, arrays)
    return x.requires_grad_(), y.requires_grad_(), z
