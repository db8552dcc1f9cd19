"""Views as arguments: batches cut from one big tensor share a recording, unless their memory matters."""

import numpy as np
import pytest

import tracegrad as tg
from tracegrad import nn

BACKENDS = ["numpy", "jax"]


@pytest.fixture(params=BACKENDS)
def backend(request):
    if request.param == "jax":
        pytest.importorskip("jax")
    return request.param


def data(*shape):
    return tg.tensor(np.arange(np.prod(shape), dtype=np.float32).reshape(shape))


def same(a, b):
    np.testing.assert_allclose(np.asarray(a.detach()), np.asarray(b.detach()), rtol=1e-6)


def test_batches_cut_from_one_tensor_are_one_recording(backend):
    tg.manual_seed(0)  # other weights, another rounding of the sum
    x, y = data(12, 3), data(12)
    layer = nn.Linear(3, 1)

    def loss(a, b):
        return ((layer(a).squeeze(1) - b) ** 2).sum()

    compiled = tg.compile(loss, backend=backend, fullgraph=True)
    for start in range(0, 12, 4):
        a, b = x[start : start + 4], y[start : start + 4]
        same(compiled(a, b), loss(a, b))
    assert compiled.stats()["compiles"] == 1
    assert compiled.stats()["recordings"] == 1
    same(compiled(x[8:11], y[8:11]), loss(x[8:11], y[8:11]))
    assert compiled.why().splitlines()[1] == (
        "recording 1: argument 0: float32[4, 3] -> float32[3, 3]; argument 1: float32[4] -> float32[3]"
    )


def test_windows_of_columns_are_one_recording_and_keep_their_strides(backend):
    x = data(4, 10)

    def f(window):
        assert window.stride() == (10, 1)
        with pytest.raises(tg.errors.ShapeError):
            window.view(-1)
        return window.T.reshape(-1) * 2, window.t().is_contiguous()

    compiled = tg.compile(f, backend=backend, fullgraph=True)
    for start in range(4):
        ours, theirs = compiled(x[:, start : start + 3]), f(x[:, start : start + 3])
        same(ours[0], theirs[0])
        assert ours[1] == theirs[1]
    assert compiled.stats()["recordings"] == 1


def test_other_strides_are_another_signature(backend):
    def f(x):
        return x.is_contiguous(), x + 1

    compiled = tg.compile(f, backend=backend)
    square = data(3, 3)
    assert compiled(square[0:3])[0] is True
    assert compiled(square.T)[0] is False
    assert compiled.why().splitlines()[1].endswith("float32[3, 3] -> float32[3, 3], strides [1, 3]")


COLUMNS = np.arange(6, dtype=np.float32).reshape(3, 2).T  # strides (1, 2)


def test_an_array_that_is_not_row_major_keeps_its_strides(backend):
    """A tensor of `from_numpy` has the array's strides: views of it are decided by them."""

    def f(x):
        return x.permute(0, 1).reshape(3, 2), x.stride(), x.T.is_contiguous()

    compiled = tg.compile(f, backend=backend, fullgraph=True)
    for array in (np.ascontiguousarray(COLUMNS), COLUMNS, np.ascontiguousarray(COLUMNS)):
        ours, theirs = compiled(tg.from_numpy(array)), f(tg.from_numpy(array))
        same(ours[0], theirs[0])
        assert ours[1:] == theirs[1:] == (theirs[1], array is COLUMNS)
    assert compiled.stats()["recordings"] == 2


def test_state_that_is_not_row_major_keeps_its_strides(backend):
    state = tg.zeros(2, 3)

    def f():
        return state * 1, state.T.is_contiguous(), state.stride()

    compiled = tg.compile(f, backend=backend, fullgraph=True)
    for array in (np.ascontiguousarray(COLUMNS), COLUMNS):
        state.data = tg.from_numpy(array)
        ours, theirs = compiled(), f()
        same(ours[0], theirs[0])
        assert ours[1:] == theirs[1:] == (array is COLUMNS, theirs[2])
    looked_at = tg.compile(lambda: state.T.is_contiguous(), backend=backend)
    assert looked_at()
    state.data = tg.zeros(2, 3)
    assert not looked_at()


def test_a_detached_tensor_given_again_and_again_is_one_recording(backend):
    noise = data(3)
    compiled = tg.compile(lambda x: x * 2, backend=backend)
    for _ in range(3):
        same(compiled(noise.detach()), noise * 2)
    assert compiled.stats()["recordings"] == 1


def test_a_view_that_is_written_reaches_its_base(backend):
    def f(row):
        row.mul_(10)
        return row.sum()

    compiled = tg.compile(f, backend=backend, fullgraph=True)
    x, y = data(3, 2), data(3, 2)
    for k in (0, 1, 0, 2):
        same(compiled(x[k]), f(y[k]))
        same(x, y)
    assert (
        "a view at element 0 of [3, 2] -> float32[2], a view at element 2 of [3, 2]"
        in compiled.why()
    )


def test_a_view_of_the_argument_that_is_handed_out_shares_its_memory(backend):
    compiled = tg.compile(lambda x: x[1:], backend=backend)
    x = data(3, 4)
    for k in (0, 1):
        out = compiled(x[k])
        out.zero_()
        assert x[k].tolist() == [4.0 * k, 0, 0, 0]


def test_the_argument_itself_comes_back_as_it_is(backend):
    compiled = tg.compile(lambda x: (x, x + 1), backend=backend)
    x = data(3, 4)
    row = x[1]
    assert compiled(row)[0] is row
    other = x[2]
    assert compiled(other)[0] is other


def test_two_views_of_one_tensor_and_a_write_through_one(backend):
    def f(a, b):
        a += 1
        return b * 2

    compiled = tg.compile(f, backend=backend)
    for cut in (slice(0, 2), slice(1, 3), slice(2, 4)):
        x, y = data(4), data(4)
        same(compiled(x[0:2], x[cut]), f(y[0:2], y[cut]))
        same(x, y)


def test_a_base_that_the_function_reads_and_writes_itself(backend):
    x, y = data(4), data(4)

    def writer(base):
        def f(view):
            base.mul_(2)
            return view + 1

        return f

    compiled, plain = tg.compile(writer(x), backend=backend), writer(y)
    for k in range(3):
        same(compiled(x[k : k + 2]), plain(y[k : k + 2]))
        same(x, y)


def test_a_recorded_function_meets_the_memory_of_its_state_later(backend):
    state = data(4)

    def f(view):
        state.add_(1)
        return view * 1

    compiled = tg.compile(f, backend=backend)
    other = data(4)
    same(compiled(other[0:2]), other[0:2])
    got = compiled(state[0:2])
    assert got.tolist() == state[0:2].tolist() == [2.0, 3.0]


def test_a_write_between_forward_and_backward_keeps_the_old_value(backend):
    weight = tg.tensor([2.0, 3.0], requires_grad=True)
    compiled = tg.compile(lambda x: (x * weight).sum(), backend=backend)
    base = data(2, 2)
    loss = compiled(base[1])
    base.zero_()
    loss.backward()
    assert weight.grad.tolist() == [2.0, 3.0]


def test_the_same_view_twice_and_a_copy_of_it_are_told_apart(backend):
    compiled = tg.compile(lambda a, b: (a is b, a + b), backend=backend)
    x = data(4)
    row, again = x[0:2], x[0:2]
    assert compiled(row, row)[0] is True
    assert compiled(row, again)[0] is False
    same(compiled(row, row)[1], row * 2)


def test_a_plain_tensor_that_is_written_and_then_a_view(backend):
    def f(x):
        x.mul_(2)
        return x.sum()

    compiled = tg.compile(f, backend=backend)
    compiled(data(3))
    x = data(9)
    assert compiled(x[3:6]).item() == 24
    assert x.tolist() == [0, 1, 2, 6, 8, 10, 6, 7, 8]


def test_views_inside_containers_and_keyword_arguments(backend):
    compiled = tg.compile(lambda batch, *, scale: batch["x"] * scale[0], backend=backend)
    x, s = data(6, 2), data(6)
    for k in range(1, 4):
        same(compiled({"x": x[k]}, scale=[s[k]]), x[k] * s[k])
    assert compiled.stats()["recordings"] == 1


def test_a_view_and_a_plain_tensor_of_one_shape_are_one_recording(backend):
    compiled = tg.compile(lambda x: x * 2, backend=backend)
    x = data(4, 2)
    for given in (x[0], data(2), x[3]):
        same(compiled(given), given * 2)
    assert compiled.stats()["recordings"] == 1


def test_a_view_that_wants_a_gradient_itself(backend):
    def inside(x):
        loss = (x * x * x).sum()
        loss.backward()
        return loss

    def outside(x):
        (slope,) = tg.autograd.grad((x * x * x).sum(), x, create_graph=True)
        return slope.sum()

    for function in (inside, outside):
        compiled = tg.compile(function, backend=backend)
        grads = []
        for f in (function, compiled):
            x = data(4, 2)
            for column in (0, 1):
                view = x[:, column : column + 1].requires_grad_()
                result = f(view)
                if function is outside:
                    result.backward()
                grads.append(view.grad.flatten().tolist())
        assert grads[:2] == grads[2:]
        assert compiled.stats()["recordings"] == 1


@pytest.mark.parametrize("given", ["tensor", "view"])
def test_an_argument_that_is_made_to_want_a_gradient(backend, given):
    def inside(x):
        x.requires_grad = True
        assert x.requires_grad
        (x * x).sum().backward()
        return x.grad * 1

    def outside(x):
        x.requires_grad_()
        return (x * x).sum()

    for function in (inside, outside):
        compiled = tg.compile(function, backend=backend, fullgraph=True)
        for k in range(3):
            x = data(8)[2 * k : 2 * k + 2]
            x = x if given == "view" else x.clone()
            result = compiled(x)
            assert x.requires_grad and x.is_leaf
            if function is outside:
                result.backward()
            assert x.grad.tolist() == [4.0 * k, 4.0 * k + 2]
        assert compiled.stats()["recordings"] == 1


def test_a_parameter_frozen_inside_the_step_gets_no_gradient(backend):
    model = nn.Linear(2, 1, bias=False)
    weight = model.weight

    def step(x):
        model.zero_grad()
        model(x).sum().backward()
        first = weight.grad.clone()
        weight.requires_grad = False
        x = (x * 1).requires_grad_()
        model(x).sum().backward()
        weight.requires_grad = True
        assert x.grad is not None
        return first, weight.grad * 1

    plain = [t.tolist() for t in step(data(2))]
    compiled = tg.compile(step, backend=backend, fullgraph=True)
    for _ in range(2):
        assert [t.tolist() for t in compiled(data(2))] == plain == [[[0.0, 1.0]]] * 2
    assert compiled.stats()["recordings"] == 1


def test_the_signatures_whose_memory_matters_are_bounded():
    def write(x):
        x += 1
        return x * 1

    step = tg.compile(write)
    for size in range(1, 300):
        step(tg.zeros(size + 1)[1:])
    assert len(step._by_memory) <= 256
