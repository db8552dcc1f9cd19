"""The tables of hazards and of what falls back, and what several of them are built of."""

import tracegrad as tg

HAZARDS = {}
FALL_BACKS = {}


def hazard(function):
    """Enter a program: a generator function of `compile`, the identity or a backend's."""
    assert function.__name__ not in HAZARDS
    HAZARDS[function.__name__] = function
    return function


def falls_back(words):
    """Enter a program that ends up eager, after a warning with these words; its reports equal eager."""

    def register(function):
        assert function.__name__ not in FALL_BACKS
        FALL_BACKS[function.__name__] = (function, words)
        return function

    return register


class Scaled(tg.nn.Module):
    """A layer, and plain Python state beside it."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.linear = tg.nn.Linear(3, 3)
        self.scale = scale
        self.steps = [1.0, 2.0]
        self.options = {"shift": 0.0}

    def forward(self, x):
        y = self.linear(x) * self.scale + self.options["shift"]
        for step in self.steps:
            y = y + step
        return y


def linear():
    return tg.nn.Linear(3, 1)


def train_step(compile, m, opt):
    def step(x):
        opt.zero_grad()
        loss = m(x).square().mean()
        loss.backward()
        opt.step()
        return loss

    return compile(step)
