"""The same module in both libraries: same weights and inputs, compared outputs and gradients."""

import numpy as np
import torch

import tracegrad as tg

TOLERANCE = {"float64": dict(rtol=1e-9, atol=1e-10), "float32": dict(rtol=2e-4, atol=2e-5)}


def copy_weights(ours, theirs):
    """Load PyTorch's state dict into our module."""
    ours.load_state_dict(
        {k: tg.from_numpy(v.detach().numpy().copy()) for k, v in theirs.state_dict().items()}
    )


def flat(out):
    """All tensors of nested tuples, in order."""
    if out is None:
        return []
    if isinstance(out, tuple | list):
        return [t for part in out for t in flat(part)]
    return [out]


def array(tensor):
    return tensor.detach().numpy()


def both(values, dtype):
    """A NumPy array as a leaf of each library; floats take `dtype` and want gradients."""
    if values.dtype.kind == "f":
        values = values.astype(dtype)
        ours, theirs = tg.tensor(values), torch.tensor(values)
        return ours.requires_grad_(), theirs.requires_grad_()
    return tg.tensor(values), torch.tensor(values)


def close(ours, theirs, dtype, what):
    assert ours.dtype == theirs.dtype, what
    assert ours.shape == theirs.shape, f"{what}: {ours.shape} {theirs.shape}"
    np.testing.assert_allclose(ours, theirs, err_msg=what, equal_nan=True, **TOLERANCE[dtype])


def compare(ours, theirs, inputs, dtype, seed=0):
    """Outputs, then gradients of inputs and parameters under a random projection."""
    pairs = [both(values, dtype) for values in inputs]
    outs = flat(ours(*[p[0] for p in pairs])), flat(theirs(*[p[1] for p in pairs]))
    assert len(outs[0]) == len(outs[1])
    rng = np.random.default_rng(seed)
    losses = [0.0, 0.0]
    for index, (a, b) in enumerate(zip(*outs)):
        close(array(a), array(b), dtype, f"output {index}")
        if b.requires_grad:
            assert a.requires_grad
            ct = np.asarray(rng.standard_normal(tuple(b.shape)), dtype)
            losses[0] = losses[0] + (a * tg.tensor(ct)).sum()
            losses[1] = losses[1] + (b * torch.tensor(ct)).sum()
    if not isinstance(losses[1], torch.Tensor):
        return
    losses[0].backward()
    losses[1].backward()
    for index, (a, b) in enumerate(pairs):
        if b.requires_grad and b.grad is not None:
            close(array(a.grad), array(b.grad), dtype, f"gradient of input {index}")
    if isinstance(theirs, torch.nn.Module):
        own = dict(ours.named_parameters())
        for name, b in theirs.named_parameters():
            if b.grad is not None:
                close(array(own[name].grad), array(b.grad), dtype, f"gradient of {name}")
        buffers = dict(ours.named_buffers())
        for name, b in theirs.named_buffers():
            close(array(buffers[name]), array(b), dtype, f"buffer {name}")
