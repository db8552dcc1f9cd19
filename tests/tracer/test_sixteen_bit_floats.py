"""float16 and bfloat16: numbers keep their digits, and functions of several steps round once, as
PyTorch's kernels do; bit for bit the same in every mode.
"""

import numpy as np
import pytest
import torch
from everywhere import MODES, outcome, plain

import tracegrad as tg

DTYPES = ["float16", "bfloat16"]
NUMBERS = [1.3, 0.1, 1 / 3]
X = np.random.default_rng(0).uniform(0.1, 3, 64).astype(np.float32)

WITH_NUMBER = {
    "add": lambda T, F, x, s: x + s, "rsub": lambda T, F, x, s: s - x, "mul": lambda T, F, x, s: s * x,
    "div": lambda T, F, x, s: x / s, "trunc": lambda T, F, x, s: T.div(x, s, rounding_mode="trunc"),
    "alpha": lambda T, F, x, s: T.add(x, x, alpha=s), "minus_alpha": lambda T, F, x, s: T.sub(x, x * 2, alpha=s),
    "lerp": lambda T, F, x, s: T.lerp(x, x * 2, s), "addcmul": lambda T, F, x, s: T.addcmul(x, x, x, value=s),
    "addcdiv": lambda T, F, x, s: T.addcdiv(x, x, x + 1, value=s), "mul_": lambda T, F, x, s: x.clone().mul_(s),
    "div_": lambda T, F, x, s: x.clone().div_(s), "add_": lambda T, F, x, s: x.clone().add_(x, alpha=s),
    "of_no_dimensions": lambda T, F, x, s: x * T.tensor(s), "wide": lambda T, F, x, s: x / T.tensor(s, dtype=T.float64),
    "leaky_relu": lambda T, F, x, s: F.leaky_relu(-x, s), "elu": lambda T, F, x, s: F.elu(-x, s),
    "celu": lambda T, F, x, s: F.celu(-x, s), "softshrink": lambda T, F, x, s: F.softshrink(x, s),
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", WITH_NUMBER)
def test_a_number_keeps_its_digits(name, dtype):
    for number in NUMBERS:
        theirs = WITH_NUMBER[name](
            torch, torch.nn.functional, torch.tensor(X).to(getattr(torch, dtype)), number
        )
        for mode in MODES:
            x = tg.tensor(X).to(getattr(tg, dtype))
            run = lambda x: WITH_NUMBER[name](tg, tg.nn.functional, x, number)  # noqa: B023
            ours = (run if mode == "eager" else tg.compile(run, backend=mode))(x)
            assert plain(ours)[0] == plain(theirs)[0]
            np.testing.assert_array_equal(
                plain(ours)[1].astype(np.float32), theirs.float().numpy(), f"{name} {mode} {number}"
            )


SEVERAL_STEPS = {
    "log2": lambda T, F, x: T.log2(x), "log10": lambda T, F, x: T.log10(x), "erfc": lambda T, F, x: T.erfc(x),
    "sinc": lambda T, F, x: T.sinc(x), "logit": lambda T, F, x: T.logit(x / 4), "selu": lambda T, F, x: F.selu(-x),
    "mish": lambda T, F, x: F.mish(x), "hardsigmoid": lambda T, F, x: F.hardsigmoid(-x),
    "hardswish": lambda T, F, x: F.hardswish(-x), "glu": lambda T, F, x: F.glu(x),
    "hypot": lambda T, F, x: T.hypot(x, x.flip(0)), "logaddexp": lambda T, F, x: T.logaddexp(-x, -x.flip(0)),
    "addcmul": lambda T, F, x: T.addcmul(-x, x, x.flip(0)), "rad2deg": lambda T, F, x: T.rad2deg(x),
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SEVERAL_STEPS)
def test_several_steps_round_once(name, dtype):
    """The nearest 16-bit float to what float64 gives; or next to it, where float32 was at a tie."""
    x = tg.tensor(X / 4 if name == "logit" else X).to(getattr(tg, dtype))
    exact = SEVERAL_STEPS[name](tg, tg.nn.functional, x.double()).numpy()
    size = np.maximum(np.abs(exact), 1e-2)  # of less float32 itself may have lost digits
    gap = 2.0 ** (np.floor(np.log2(size)) - (10 if dtype == "float16" else 7))
    if name == "logit":
        gap = gap + 2.0 ** (-11 if dtype == "float16" else -8)  # x / 4 is rounded before it
    for mode in MODES:
        run = lambda x: SEVERAL_STEPS[name](tg, tg.nn.functional, x)
        ours = (run if mode == "eager" else tg.compile(run, backend=mode))(x)
        error = np.abs(ours.double().numpy() - exact)
        assert (error <= 0.51 * gap).all(), (mode, (error / gap).max())


@pytest.mark.parametrize("dtype", DTYPES)
def test_integer_tensors_are_rounded_first(dtype):
    """They are no numbers: PyTorch casts them to the result's dtype."""
    whole = np.random.default_rng(3).integers(1, 70000, 64)
    for function in (lambda x, n: x * n, lambda x, n: x / n, lambda x, n: n / x):
        theirs = function(torch.tensor(X).to(getattr(torch, dtype)), torch.tensor(whole))
        for mode in MODES:
            run = function if mode == "eager" else tg.compile(function, backend=mode)
            ours = run(tg.tensor(X).to(getattr(tg, dtype)), tg.tensor(whole))
            np.testing.assert_array_equal(ours.float().numpy(), theirs.float().numpy(), mode)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_are_those_of_pytorch(dtype):
    def call(T, F, x):
        y = x.to(getattr(T, dtype))
        return (0.3 * (y / 1.7)).float()

    theirs = outcome("torch", call, [X], True)
    for mode in MODES:
        ours = outcome(mode, call, [X], True)
        for mine, other in zip(ours, theirs, strict=True):
            for a, b in zip(mine, other, strict=True):
                np.testing.assert_array_equal(plain(a)[1], plain(b)[1], mode)


@pytest.mark.parametrize("optimiser", [tg.optim.SGD, tg.optim.Adam])
def test_a_model_trains_to_the_same_bits_in_every_mode(optimiser):
    """XLA is told to round where the graph does."""
    inputs = np.random.default_rng(1).standard_normal((8, 4, 8), np.float32)
    weights = {}
    for mode in MODES:
        weight = tg.nn.Parameter(
            tg.tensor(np.random.default_rng(0).standard_normal((8, 8))).bfloat16()
        )
        opt = optimiser([weight], lr=0.05)

        def step(x, weight=weight, opt=opt):
            opt.zero_grad()
            loss = ((x @ weight).tanh() * 0.3 + 0.1).square().mean()
            loss.backward()
            opt.step()
            return loss

        run = step if mode == "eager" else tg.compile(step, backend=mode)
        for x in inputs:
            run(tg.tensor(x).bfloat16())
        weights[mode] = weight.detach().float().numpy()
    for mode in MODES:
        np.testing.assert_array_equal(weights[mode], weights["eager"], mode)
