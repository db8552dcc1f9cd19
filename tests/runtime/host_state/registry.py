"""The programs of this folder, and the settings that they share.

A program gets `T`, which is torch or tracegrad, and `compile`; it yields reports.
"""

PROGRAMS = {}
FALLS_BACK = {}  # these run eagerly, and say so


def program(function):
    PROGRAMS[function.__name__] = function
    return function


def falls_back(function):
    FALLS_BACK[function.__name__] = PROGRAMS[function.__name__] = function
    return function


def setting(T, kind="SGD", **options):
    w = T.nn.Parameter(T.ones(2))
    optimizer = getattr(T.optim, kind)([w], **{"lr": 0.1, **options})
    return w, optimizer, optimizer.param_groups[0]


def halving(T, optimizer):
    return T.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)


def train(w, optimizer, x):
    optimizer.zero_grad()
    loss = (w * x).sum()
    loss.backward()
    optimizer.step()
    return loss
