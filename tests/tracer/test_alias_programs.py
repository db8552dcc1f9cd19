"""Random programs of views and in-place writes: values, gradients and refusals as in PyTorch."""

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings

import tracegrad as tg
from tests.tracer.alias_programs import STEPS, execute, leaves_of, loss_of

RANDOM = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def in_torch(steps):
    """(values, requires_grad flags, gradients or None where PyTorch gives none, refused steps)."""
    leaves, refused = leaves_of(torch), []
    pool = execute(torch, steps, leaves, refused)
    values = [t.detach().numpy().copy() for t in pool]
    flags = [t.requires_grad for t in pool]
    try:
        loss_of(torch, pool).backward()
        gradients = [t.grad.numpy() if t.is_leaf and t.grad is not None else None for t in leaves]
    except RuntimeError:
        gradients = None  # "modified by an inplace operation"
    return values, flags, gradients, refused


def compare(expected, values, flags, gradients, refused):
    want_values, want_flags, want_gradients, want_refused = expected
    assert refused == want_refused
    assert len(values) == len(want_values)
    for k, (value, want) in enumerate(zip(values, want_values)):
        np.testing.assert_allclose(value, want, rtol=1e-9, atol=1e-12, err_msg=f"tensor {k}")
    assert flags == want_flags
    if want_gradients is not None:
        for k, (gradient, want) in enumerate(zip(gradients, want_gradients)):
            if want is None:
                assert gradient is None or not gradient.any(), f"gradient {k}"
                continue
            found = np.zeros_like(want) if gradient is None else gradient
            np.testing.assert_allclose(found, want, rtol=1e-8, atol=1e-12, err_msg=f"gradient {k}")


def arrays(tensors):
    return [None if t is None else np.array(t.detach().numpy()) for t in tensors]


def eager(steps, expected):
    leaves, refused = leaves_of(tg), []
    pool = execute(tg, steps, leaves, refused)
    values, flags = arrays(pool), [t.requires_grad for t in pool]
    loss_of(tg, pool).backward()
    gradients = arrays([t.grad if t.is_leaf else None for t in leaves])
    compare(expected, values, flags, gradients, refused)


def compiled(steps, expected, backend, inside):
    """`inside`: backward in the compiled function; else the caller differentiates the call."""

    def program(*leaves):
        refused = []
        pool = execute(tg, steps, leaves, refused)
        flags = [t.requires_grad for t in pool]
        values = [t.detach().clone() for t in pool]
        loss = loss_of(tg, pool)
        if inside:
            loss.backward()
            loss = [t.grad if t.is_leaf else None for t in leaves]
        return values, flags, refused, loss

    run = tg.compile(program, backend=backend, keep_grads=True)
    for _ in range(2):  # recorded, then replayed
        leaves = leaves_of(tg)
        values, flags, refused, last = run(*leaves)
        if not inside:
            last.backward()
            last = [t.grad if t.is_leaf else None for t in leaves]
        compare(expected, arrays(values), flags, arrays(last), refused)
        written = [np.array(t.detach().numpy()) for t in leaves]
        for k, (found, want) in enumerate(zip(written, expected[0])):
            np.testing.assert_allclose(found, want, rtol=1e-9, atol=1e-12, err_msg=f"leaf {k}")


@settings(RANDOM, max_examples=150)
@given(STEPS)
def test_random_programs_eager(steps):
    eager(steps, in_torch(steps))


@settings(RANDOM, max_examples=25)
@given(STEPS)
def test_random_programs_compiled_with_backward_inside(steps):
    compiled(steps, in_torch(steps), "numpy", inside=True)


@settings(RANDOM, max_examples=25)
@given(STEPS)
def test_random_programs_compiled_with_backward_outside(steps):
    compiled(steps, in_torch(steps), "numpy", inside=False)


@settings(RANDOM, max_examples=5)
@given(STEPS)
def test_random_programs_compiled_by_xla(steps):
    compiled(steps, in_torch(steps), "jax", inside=True)
