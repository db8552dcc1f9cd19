"""Run one program eager and compiled, and compare everything that it reports."""

import numpy as np
import optree

import tracegrad as tg

BACKENDS = ["numpy", "jax"]


def plain(value):
    """Tensors as arrays, errors as their type's name, the rest as it is."""

    def one(leaf):
        if isinstance(leaf, tg.Tensor):
            return np.array(leaf.detach().numpy())
        if isinstance(leaf, BaseException):
            return type(leaf).__name__
        return leaf

    return optree.tree_map(one, value, none_is_leaf=True)


def run(program, compile):
    """The program's reports, as arrays at once: a later change of a held tensor must not hide."""
    tg.manual_seed(7)
    np.random.seed(7)
    return [plain(report) for report in program(compile)]


def same(expected, found, rtol=2e-5, atol=1e-6):
    assert len(expected) == len(found)
    for k, (want, got) in enumerate(zip(expected, found)):
        want_leaves, want_tree = optree.tree_flatten(want, none_is_leaf=True)
        got_leaves, got_tree = optree.tree_flatten(got, none_is_leaf=True)
        assert want_tree == got_tree, f"report {k}: {want!r} and {got!r}"
        for a, b in zip(want_leaves, got_leaves):
            if isinstance(a, np.ndarray):
                assert isinstance(b, np.ndarray), f"report {k}: {a!r} and {b!r}"
                assert (a.shape, a.dtype) == (b.shape, b.dtype), f"report {k}"
                np.testing.assert_allclose(b, a, rtol=rtol, atol=atol, err_msg=f"report {k}")
            elif isinstance(a, float):
                assert type(b) is float, f"report {k}: {a!r} and {b!r}"
                np.testing.assert_allclose(b, a, rtol=rtol, atol=atol, err_msg=f"report {k}")
            else:
                assert type(a) is type(b) and a == b, f"report {k}: {a!r} and {b!r}"


def agree(program, backend, **options):
    """Eager and compiled report the same. Returns the compiled functions that the program made."""
    made = []

    def compile(function):
        compiled = tg.compile(function, backend=backend, **options)
        made.append(compiled)
        return compiled

    same(run(program, lambda function: function), run(program, compile))
    return made


def ramp(*shape, dtype=tg.float32, start=0.0):
    count = int(np.prod(shape))
    return tg.tensor((np.arange(count) / max(count, 1) + start).reshape(shape)).to(dtype)


def three_calls(function):
    """What a program reports that only calls its function."""
    for _ in range(3):
        yield function(ramp(3))


def compiled(function, backend):
    """The function compiled, or itself if there is no backend."""
    return tg.compile(function, backend=backend) if backend else function
