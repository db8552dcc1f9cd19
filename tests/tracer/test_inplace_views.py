"""Views, in-place writes, detach and no_grad: values, gradients and refusals as in PyTorch."""

import numpy as np
import pytest
import torch

import tracegrad as tg
from tests.tracer.alias_programs import leaves_of

CASES = {}
REFUSALS = {}


def case(function):
    CASES[function.__name__] = function
    return function


def refusal(function):
    REFUSALS[function.__name__] = function
    return function


def grads(lib, loss, *leaves):
    return [loss, *lib.autograd.grad(loss, leaves)]


@case
def slice_augmented(lib, x, y, z):
    a = x * 1.0
    a[0:1] += 1
    a[:, 1:3] *= 2
    return [a, *grads(lib, (a * a).sum(), x)]


@case
def element_of_a_vector_augmented(lib, x, y, z):
    a = y * 1.0
    a[0] += 1
    a[1] *= y[2]
    return [a, *grads(lib, (a * a).sum(), y)]


@case
def buffer_copied_into(lib, x, y, z):
    z.copy_(x * 2.0)
    return [z.detach(), z.requires_grad, z.is_leaf, *grads(lib, (z * z).sum(), x)]


@case
def leaf_copied_into_a_buffer_twice(lib, x, y, z):
    z.copy_(x)
    z.mul_(3.0)
    return [z.requires_grad, z.is_leaf, x.is_leaf, *grads(lib, (z * x).sum(), x)]


@case
def flat_view_written(lib, x, y, z):
    a = x * 1.0
    flat = a.view(-1)
    flat.mul_(2)
    flat[1] = 7.0
    return [a, flat, *grads(lib, (a * a).sum() + flat.sum(), x)]


@case
def detached_alias_written(lib, x, y, z):
    a = x + 1.0
    a.detach().mul_(2.0)
    return [a, *grads(lib, (a * 3.0).sum(), x)]


@case
def leaf_written_under_no_grad(lib, x, y, z):
    with lib.no_grad():
        x.add_(1.0)
        x[0] -= 0.5
        x.view(-1)[2] = 4.0
    return [x.detach().clone(), x.requires_grad, x.is_leaf, *grads(lib, (x * x).sum(), x)]


@case
def intermediate_written_under_no_grad(lib, x, y, z):
    a = x * 2.0
    with lib.no_grad():
        a.mul_(3.0)
    return [a, a.requires_grad, *grads(lib, (a + a).sum(), x)]


@case
def filled_clones_stay_tracked(lib, x, y, z):
    found = []
    for write in ("fill", "zero", "set", "copy"):
        a = x.clone()
        if write == "fill":
            a.fill_(2.0)
        elif write == "zero":
            a.zero_()
        elif write == "set":
            a[...] = 3.0
        else:
            a.copy_(z)
        found += [a.requires_grad, a.is_leaf, a, (a * x).sum()]
    return [*found, *grads(lib, found[3] + found[7] + found[11] + found[15], x)]


@case
def clone_made_a_leaf(lib, x, y, z):
    a = z.clone().requires_grad_()
    return [z.requires_grad, a.is_leaf, (z * 2.0).requires_grad, *grads(lib, (a * a).sum(), a)]


@case
def views_follow_the_base_and_each_other(lib, x, y, z):
    a = x * 1.0
    row, column, turned = a[0], a[:, 1], a.t()
    row.mul_(3.0)
    turned[1] += y[:2]
    column.add_(row[:2].clone())
    loss = (a * a).sum() + (row * y).sum() + column.sum() + turned.sum()
    return [a, row, column, turned, *grads(lib, loss, x, y)]


@case
def buffer_overwritten_unread(lib, x, y, z):
    z.fill_(0.5)
    return [z * 2.0]


@case
def expand_of_nothing_is_writable(lib, x, y, z):
    a = y * 1.0
    a.expand(1, 3).mul_(2.0)
    return [a, *grads(lib, (a * a).sum(), y)]


@case
def masked_and_indexed_writes(lib, x, y, z):
    a = x * 1.0
    a[a > 0] = 0.25
    a[[0, 1], [2, 0]] = y[:2]
    return [a, *grads(lib, (a * a).sum(), x, y)]


@case
def unravelled_row_by_row(lib, x, y, z):
    for k in range(2):
        z[k] = x[k] * y
    return [z.detach(), *grads(lib, (z * z).sum(), x, y)]


@refusal
def write_on_a_leaf(lib, x, y, z):
    x.add_(1.0)


@refusal
def write_on_a_view_of_a_leaf(lib, x, y, z):
    x[0].mul_(2.0)


@refusal
def setitem_on_a_leaf(lib, x, y, z):
    x[0] = 1.0


@refusal
def write_on_an_expanded_tensor(lib, x, y, z):
    (y * 1.0).expand(2, 3).add_(1.0)


@refusal
def write_on_an_expanded_buffer_under_no_grad(lib, x, y, z):
    with lib.no_grad():
        z[0].expand(2, 3).mul_(2.0)


@refusal
def write_on_a_view_made_under_no_grad(lib, x, y, z):
    a = x * 1.0
    with lib.no_grad():
        view = a[0]
    view.mul_(2.0)


@refusal
def tracked_write_on_a_buffer_view_made_under_no_grad(lib, x, y, z):
    with lib.no_grad():
        view = z[0]
    view.mul_(y)


@refusal
def write_on_an_unbound_row(lib, x, y, z):
    (x * 1.0).unbind(0)[0].mul_(2.0)


@refusal
def write_on_a_chunk(lib, x, y, z):
    (x * 1.0).chunk(2)[1].view(-1).mul_(2.0)


@refusal
def result_of_another_dtype(lib, x, y, z):
    lib.tensor([1, 2, 3]).add_(0.5)


@refusal
def comparison_result_too_wide(lib, x, y, z):
    lib.tensor([1, 2, 3]).div_(2)


@refusal
def result_of_another_shape(lib, x, y, z):
    with lib.no_grad():
        y.add_(x)


def reports(value):
    return [np.array(v.detach().numpy()) if hasattr(v, "detach") else v for v in value]


def check(mine, theirs):
    assert len(mine) == len(theirs)
    for k, (a, b) in enumerate(zip(mine, theirs)):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12, err_msg=f"report {k}")


@pytest.mark.parametrize("name", CASES)
def test_named_case_eager(name):
    theirs = reports(CASES[name](torch, *leaves_of(torch)))
    for _ in range(3):
        check(reports(CASES[name](tg, *leaves_of(tg))), theirs)


@pytest.mark.parametrize("backend", ["numpy", "jax"])
@pytest.mark.parametrize("name", CASES)
def test_named_case_compiled(name, backend):
    leaves = leaves_of(torch)
    theirs = reports(CASES[name](torch, *leaves))
    run = tg.compile(lambda *leaves: CASES[name](tg, *leaves), backend=backend)
    for _ in range(2):
        own = leaves_of(tg)
        check(reports(run(*own)), theirs)
        check(reports(own), reports(leaves))  # what was written to the arguments


@pytest.mark.parametrize("name", REFUSALS)
def test_refused_as_in_pytorch(name):
    with pytest.raises(RuntimeError):
        REFUSALS[name](torch, *leaves_of(torch))
    with pytest.raises(tg.TracegradError):
        REFUSALS[name](tg, *leaves_of(tg))
    with pytest.raises(tg.TracegradError):
        tg.compile(lambda *leaves: REFUSALS[name](tg, *leaves), backend="numpy")(*leaves_of(tg))


@pytest.mark.parametrize("backend", [None, "numpy", "jax"])
def test_numpy_aliases_see_every_write(backend):
    array = np.arange(6.0).reshape(2, 3)
    source = tg.from_numpy(array)
    made = tg.tensor([1.0, 2.0])
    seen = made.numpy()

    def write():
        source[0] += 1.0
        source.view(-1)[5] = -1.0
        made.mul_(3.0)

    run = write if backend is None else tg.compile(write, backend=backend)
    for _ in range(3):
        run()
    np.testing.assert_array_equal(array, [[3.0, 4.0, 5.0], [3.0, 4.0, -1.0]])
    np.testing.assert_array_equal(seen, [27.0, 54.0])
    array[1, 0] = 50.0  # and the other way round
    seen[0] = 60.0
    assert source[1, 0].item() == 50.0 and made[0].item() == 60.0
    run()
    np.testing.assert_array_equal(seen, [180.0, 162.0])
    np.testing.assert_array_equal(array, [[4.0, 5.0, 6.0], [50.0, 4.0, -1.0]])


@pytest.mark.parametrize("backend", ["numpy", "jax"])
def test_a_view_of_a_captured_parameter_written_through(backend):
    weight = tg.nn.Parameter(tg.tensor([[1.0, 2.0], [3.0, 4.0]]))
    row = weight.detach()[1]

    def step(x):
        with tg.no_grad():
            row.mul_(2.0)
            weight.t()[0].add_(x)
        return (weight * weight).sum()

    run = tg.compile(step, backend=backend)
    expected = np.array([[1.0, 2.0], [3.0, 4.0]])
    for k in range(4):
        weight.grad = None
        loss = run(tg.tensor(1.0))
        loss.backward()
        expected[1] *= 2.0
        expected[:, 0] += 1.0
        np.testing.assert_allclose(weight.detach().numpy(), expected)
        np.testing.assert_allclose(row.numpy(), expected[1])
        np.testing.assert_allclose(weight.grad.numpy(), 2 * expected)
        assert weight.is_leaf, k


def test_a_saved_value_survives_the_write_that_pytorch_forbids():
    """PyTorch stops here ("modified by an inplace operation"); ours is the true gradient."""
    for _ in range(3):
        x = tg.tensor([0.5, 2.0]).requires_grad_()
        a = tg.exp(x)
        b = a * a
        a.mul_(10.0)
        (a + b).sum().backward()
        e = np.exp([0.5, 2.0])
        np.testing.assert_allclose(x.grad.numpy(), 10 * e + 2 * e * e, rtol=1e-6)


def test_numbers_stored_at_an_index_are_rounded_once():
    wide = tg.zeros(3, dtype=tg.float64)
    wide[0] = 0.1
    wide[tg.tensor([1])] = 0.1
    wide[2:] = 0.1
    assert wide.tolist() == [0.1] * 3
    compiled = tg.compile(lambda x: x.__setitem__(0, 0.1) or x, backend="numpy")
    assert compiled(tg.zeros(2, dtype=tg.float64)).tolist() == [0.1, 0.0]
    whole = tg.zeros(2, dtype=tg.int64)
    whole[0] = 2.7
    assert whole.tolist() == [2, 0]


def test_complex_numbers_are_not_stored_in_real_tensors():
    x = tg.zeros(2)
    for store in (lambda: x.fill_(1j), lambda: x.__setitem__(0, 1j)):
        with pytest.raises(tg.errors.ArgumentError, match="complex"):
            store()
    assert x.tolist() == [0.0, 0.0]


def test_writes_without_history_keep_saved_values():
    x, w = tg.ones(3), tg.ones(3, requires_grad=True)
    y = (w * x).sum()
    x.add_(1).mul_(3.0)
    x[0] = 7
    assert x.tolist() == [7.0, 6.0, 6.0]
    y.backward()
    assert w.grad.tolist() == [1.0, 1.0, 1.0]
    z = w * 2
    alias = z.detach()
    alias.zero_()
    assert z.tolist() == [0.0] * 3
    with pytest.raises(tg.errors.InPlaceError):
        w.add_(1)
    with pytest.raises(tg.errors.InPlaceError):
        w.view(-1).zero_()
