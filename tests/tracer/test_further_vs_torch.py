"""Less common functions and methods, and in-place forms under every name, against PyTorch."""

import numpy as np
import pytest
import torch
from everywhere import MODES, agree_everywhere

import tracegrad as tg

X = np.random.default_rng(2).uniform(0.1, 0.9, (3, 4)).astype(np.float32)
Z = X - 0.5
I = np.array([[12, -8, 0], [18, 6, 7]], np.int64)
J = np.array([[8, 12, 5], [-27, 0, 7]], np.int64)
SQUARE = (X @ X.T + np.eye(3)).astype(np.float32)

CALLS = {
    "sgn": (lambda t, F, x: [t.sgn(x), x.sgn()], Z),
    "isreal": (lambda t, F, x: t.isreal(x), Z),
    "lcm": (lambda t, F, x, y: [t.lcm(x, y), x.clone().lcm_(y), x.clone().gcd_(y)], I, J),
    "ldexp": (lambda t, F, x: [t.ldexp(x, t.tensor([1, 2, 3, 0])), (x * 1).ldexp_(t.tensor(2))], X),
    "fill": (lambda t, F, x: t.fill(x, 3), X),
    "put": (lambda t, F, x: [x.put(t.tensor([1, -1]), t.tensor([5.0, 6.0])),
                             (x * 1).put_(t.tensor([[2], [2]]), t.ones(2, 1), accumulate=True)], X),
    "sum_to_size": (lambda t, F, x: [x.sum_to_size(1, 4), x.sum_to_size(4), x.sum_to_size((3, 1))], X),
    "unravel_index": (lambda t, F, x: t.unravel_index(x.abs(), (4, 3, 2)), I),
    "chain_matmul": (lambda t, F, x: t.linalg.multi_dot([x.T, x, x.T]), X),
    "cholesky_solve": (lambda t, F, x: t.cholesky_solve(t.ones(3, 2), t.linalg.cholesky(x)), SQUARE),
    "cholesky_inverse": (lambda t, F, x: t.linalg.cholesky(x).cholesky_inverse(), SQUARE),
    "upper cholesky": (lambda t, F, x: t.ones(3, 1).cholesky_solve(t.linalg.cholesky(x).T, upper=True),
                       SQUARE),
    "pinverse": (lambda t, F, x: x.pinverse(), X),
    "trapezoids": (lambda t, F, x: [integral for f in (t.trapezoid, t.cumulative_trapezoid) for integral in (
        f(x), f(x, dx=0.5, dim=0), f(x, t.tensor([0.0, 1.0, 3.0, 3.5])), f(x, x.exp()), f(y=x, x=x.sin(), dim=0),
        f(x, t.tensor([[0.0], [1.0], [3.0]]), dim=-2), f(x[:, :3], t.tensor([0, 1, 4]), dim=0),
        f(t.stack([x, x]), x, dim=1), f((x * 9).long(), dx=2), f((x * 9).long(), t.tensor([3, 4, 6, 9])))], X),
    "narrow_copy": (lambda t, F, x: x.narrow_copy(1, 1, 2), X),
    "unsafe": (lambda t, F, x: [x.unsafe_chunk(2, 1), t.unsafe_split(x, 2)], X),
    "resolved": (lambda t, F, x: [x.resolve_conj(), t.resolve_neg(x)], X),
}  # fmt: skip
IN_PLACE = """
abs_ absolute_ acos_ arccos_ arccosh_ arcsin_ arcsinh_ arctan_ arctanh_ asin_ asinh_ atan_ atanh_
ceil_ celu_ clip_ cos_ cosh_ deg2rad_ digamma_ elu_ erf_ erfc_ erfinv_ exp2_ exp_ expm1_ fix_ floor_
frac_ hardtanh_ leaky_relu_ lgamma_ log10_ log1p_ log2_ log_ logit_ nan_to_num_ neg_ negative_
rad2deg_ reciprocal_ relu6_ relu_ round_ rsqrt_ selu_ sgn_ sigmoid_ sign_ sin_ sinc_ sinh_ sqrt_
square_ tan_ tanh_ tril_ triu_ trunc_ zero_
""".split()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CALLS)
def test_call(name, mode):
    call, *arrays = CALLS[name]
    agree_everywhere(mode, call, *arrays, atol=1e-4, legal=True)


@pytest.mark.parametrize("mode", MODES)
def test_in_place_names(mode):
    names = [n for n in IN_PLACE if hasattr(torch.Tensor, n) and n != "arccosh_"]
    missing = [n for n in names if not hasattr(tg.Tensor, n)]
    assert not missing
    arguments = {"clip_": (0.2, 0.6), "logit_": (0.1,)}

    def call(t, F, x):
        results = []
        for name in names:
            y = x * 1
            written = getattr(y, name)(*arguments.get(name, ()))
            assert written is y
            results.append(y)
        return results

    agree_everywhere(mode, call, X, grad=False, rtol=1e-3, legal=True)


@pytest.mark.parametrize("mode", MODES)
def test_functions_that_write(mode):
    names = [n for n in IN_PLACE if hasattr(torch, n) and hasattr(tg, n) and n != "arccosh_"]
    assert len(names) > 40
    arguments = {"clip_": (0.2, 0.6), "logit_": (0.1,)}

    def call(t, F, x):
        return [getattr(t, name)(x * 1, *arguments.get(name, ())) for name in names]

    agree_everywhere(mode, call, X, grad=False, rtol=1e-3, legal=True)


@pytest.mark.parametrize("mode", MODES)
def test_samplers(mode):
    """Their distributions, by quantiles that have closed forms."""

    def draw(x):
        return [
            x.clone().log_normal_(1.0, 0.5).log(),
            x.clone().cauchy_(2.0, 3.0),
            x.clone().geometric_(0.3),
        ]

    tg.manual_seed(5)
    zeros = tg.zeros(20000)
    run = draw if mode == "eager" else tg.compile(draw, backend=mode)
    normal, cauchy, geometric = (r.numpy() for r in run(zeros))
    assert abs(normal.mean() - 1) < 0.02 and abs(normal.std() - 0.5) < 0.02
    np.testing.assert_allclose(np.quantile(cauchy, [0.25, 0.5, 0.75]), [-1, 2, 5], atol=0.25)
    assert geometric.min() == 1 and abs(geometric.mean() - 1 / 0.3) < 0.1


def test_apply_():
    x = tg.tensor([1.0, 4.0])
    assert x.apply_(lambda v: v + 1) is x and x.tolist() == [2, 5]


@pytest.mark.parametrize("dtype", ["int64", "int32", "float32"])
@pytest.mark.parametrize(
    "ends", [(0, 10), (-3.4, 4.1), (4.3, -3), (-6.5, -7.3), (-14, 10), (-6, 14), (5, 5)]
)
def test_evenly_spaced(ends, dtype):
    """Integers lie between whole bounds, and what is cut off is what PyTorch cuts off."""
    for steps in (0, 1, 2, 7, 40):
        got = tg.linspace(*ends, steps, dtype=getattr(tg, dtype)).numpy()
        np.testing.assert_allclose(
            got, torch.linspace(*ends, steps, dtype=getattr(torch, dtype)), 1e-5, 1e-5
        )
    got = tg.logspace(ends[0] / 4, 1.7, 6, 3.0, dtype=getattr(tg, dtype)).numpy()
    np.testing.assert_allclose(
        got, torch.logspace(ends[0] / 4, 1.7, 6, 3.0, dtype=getattr(torch, dtype)), 1e-5, 1e-5
    )
