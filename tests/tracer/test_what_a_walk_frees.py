"""A walk backwards frees what the gradients it has passed keep, not what is behind its targets; as in
PyTorch.
"""

import pytest
import torch
from everywhere import MODES

import tracegrad as tg


def importance(t, w, x):
    """Gradients of features weigh the features themselves (Grad-CAM)."""
    features = x @ w
    (weights,) = t.autograd.grad(features.sigmoid().sum(), features)
    (features * weights).sum().backward()
    return w.grad


def inputs_alone(t, w, x):
    features = x @ w
    loss = (features**2).sum()
    (first,) = t.autograd.grad(loss, [features])
    (second,) = t.autograd.grad(features.sum(), [w])
    return first + second.sum()


def step_by_step(t, w, x):
    a = x @ w
    b = a.exp()
    (of_b,) = t.autograd.grad((b * b).sum(), b)
    (of_a,) = t.autograd.grad(b, a, of_b)
    (of_w,) = t.autograd.grad(a, w, of_a)
    return of_w


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("program", [importance, inputs_alone, step_by_step])
def test_behind_the_targets_all_is_left(program, mode):
    def run(t, compile):
        w = t.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
        return compile(lambda x: program(t, w, x))(t.tensor([[1.0, 0.5]])).tolist()

    found = run(tg, (lambda f: f) if mode == "eager" else lambda f: tg.compile(f, backend=mode))
    for row, expected in zip(found, run(torch, lambda f: f)):
        assert row == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_what_was_passed_is_freed(mode):
    def twice(x):
        b = x.exp()
        c = b.sigmoid()
        tg.autograd.grad(c.sum(), b)
        (c * 2).sum().backward()
        return b

    x = tg.ones(2, requires_grad=True)
    run = twice if mode == "eager" else tg.compile(twice, backend=mode)
    with pytest.raises(tg.errors.GradientError, match="second time"):
        run(x)


def once_before_a_loop(t, w, x):
    """What is arranged of the weights before a loop, each turn with a walk of its own."""
    flat, across = w.view(-1), w.t()
    both = t.cat([flat, t.stack([flat[1:], flat[:-1]]).reshape(-1)])
    for scale in (1.0, 2.0, 3.0):
        loss = flat.pow(2).sum() + ((x @ across) * scale).sum() + both.sin().mean()
        loss.backward()
    return w.grad


def values_for_later_walks(t, w, x):
    """A sum keeps nothing, but its value is what others read."""
    shifted = w + 1
    product, exponential = (shifted * shifted).sum(), shifted.exp().sum()
    product.backward()
    exponential.backward()
    shifted.sum().backward()
    return w.grad


def to_an_intermediate(t, w, x):
    flat = w.view(-1)
    (of_flat,) = t.autograd.grad(flat.exp().sum(), flat)
    (flat * of_flat).sum().backward()
    flat.sin().sum().backward()
    return w.grad


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "program", [once_before_a_loop, values_for_later_walks, to_an_intermediate]
)
def test_what_keeps_nothing_is_walked_again(program, mode):
    test_behind_the_targets_all_is_left(program, mode)


TWICE = {  # what is walked twice, and whether PyTorch lets it
    "w + 1": True, "1 - w": True, "-w": True, "w + t.ones(4) * 2": True, "w.mean()": True, "w.sum(0)": True,
    "w.clone()": True, "w.double()": True, "w[1:3]": True, "w[1]": True, "w.expand(2, 4)": True,
    "w.cumsum(0)": True, "w.roll(1).flip(0)": True, "w.split(2)[0]": True, "w.unbind()[2]": True,
    "w.unfold(0, 2, 1)": True, "w.view(2, 2).diagonal()": True, "t.cat([w, w])": True,
    "t.nn.functional.pad(w, (1, 2))": True, "w.unsqueeze(0).repeat(2, 1)": True,
    "t.as_strided(w, (2,), (2,))": True, "t.nn.functional.dropout(w, 0.5, False)": True,
    "w * 2": False, "w / 2": False, "w * t.ones(4)": False, "w.abs()": False, "w.relu()": False,
    "w.square()": False, "w[t.tensor([0, 1])]": False, "t.where(w > 2, w, -w)": False,
    "w.softmax(0)": False, "w.max(0).values": False, "w.norm()": False, "w @ t.ones(4)": False,
    "t.nn.functional.layer_norm(w, (4,))": False, "w.std()": False,
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("text", TWICE)
def test_second_walks_are_barred_where_pytorch_bars_them(text, mode):
    def run(t, compile):
        w = t.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)

        def twice():
            total = eval(text, {"t": t, "w": w}).sum()
            total.backward()
            total.backward()
            return w.grad

        return compile(twice)().tolist()

    compile = (lambda f: f) if mode == "eager" else lambda f: tg.compile(f, backend=mode)
    if TWICE[text]:
        assert run(tg, compile) == pytest.approx(run(torch, lambda f: f))
        return
    with pytest.raises(RuntimeError, match="second time"):
        run(torch, lambda f: f)
    with pytest.raises(tg.errors.GradientError, match="second time"):
        run(tg, compile)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("t", [tg, torch], ids=["tracegrad", "torch"])
def test_no_gradient_goes_through_a_view_that_does_not_know_its_base(t, mode):
    """Made under no_grad, and the base written since: PyTorch refuses when the view is used."""
    weight = t.ones(2, 3).requires_grad_()

    def step(write):
        features = weight * 1.0
        with t.no_grad():
            column = features[:, 0]
            rest = features[:, 1:]
        if write:
            features.mul_(2)
        else:
            with t.no_grad():
                features.mul_(2)
        ((column * column).sum() + features.sum() + rest.detach().sum()).backward()
        return column.detach()

    run = step if mode == "eager" or t is torch else tg.compile(step, backend=mode)
    with pytest.raises(RuntimeError, match="no_grad"):
        run(True)
    if t is tg:
        assert run(False).tolist() == [2, 2]
        assert weight.grad.tolist() == [[1, 1, 1]] * 2
