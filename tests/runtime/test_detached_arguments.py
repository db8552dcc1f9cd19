"""Arguments and captured tensors of one memory, with gradients of their own or none."""

import pytest

import tracegrad as tg
from tracegrad.tracer.errors import GraphBreakError

CALLS = {
    "beside it": (lambda w: lambda a, b: a * b, lambda w: (w.detach(), w)),
    "beside a captured one": (lambda w: lambda a: a * w, lambda w: (w.detach(),)),
    "of a ratio": (lambda w: lambda a, b: (b - a).exp() * b, lambda w: (w.detach(), w)),
    "computed with": (lambda w: lambda a, b: (a * 2).exp() * b, lambda w: (w.data, w)),
    "beside a view": (lambda w: lambda a, b: a * b, lambda w: (w.detach(), w.view(3))),
    "a view of it": (lambda w: lambda a, b: a * b + b, lambda w: (w.detach()[:], w)),
    "behind it": (lambda w: lambda a, b: a * b, lambda w: (w, w.detach())),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_detached_alias_is_no_way_for_gradients(name, backend):
    function_of, arguments_of = CALLS[name]
    grads = []
    for compiled in (False, True):
        w = tg.tensor([1.0, 2.0, 3.0], requires_grad=True)
        function = function_of(w)
        if compiled:
            function = tg.compile(function, backend=backend, fullgraph=True)
        for _ in range(2):
            function(*arguments_of(w)).sum().backward()
        grads.append(w.grad.tolist())
    assert grads[1] == pytest.approx(grads[0], rel=1e-6)


def test_two_leaves_of_one_memory(backend):
    def product(a, b):
        return a * b

    for fullgraph in (False, True):
        b = tg.tensor([1.0, 2.0], requires_grad=True)
        a = b.detach().requires_grad_()
        call = tg.compile(product, backend=backend, fullgraph=fullgraph)
        if fullgraph:
            with pytest.raises(GraphBreakError, match="share memory"):
                call(a, b)
        else:
            with pytest.warns(UserWarning, match="share memory"):
                call(a, b).sum().backward()
            assert a.grad.tolist() == b.grad.tolist() == [1.0, 2.0]


def test_paths_with_and_without_gradients_begin_alike(backend):
    """A weight written before the question: the path whose result has no gradient is no other tree."""
    w = tg.tensor([1.0, 2.0], requires_grad=True)

    @tg.compile(backend=backend, fullgraph=True)
    def decayed(x):
        with tg.no_grad():
            w.mul_(0.9)
        return x * w if (w * w).sum() > 2 else x * 2

    for _ in range(8):
        result = decayed(tg.ones(2))
        if result.requires_grad:
            result.sum().backward()
    assert not result.requires_grad and decayed.stats()["recordings"] == 2
