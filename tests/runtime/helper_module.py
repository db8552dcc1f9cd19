"""Globals of another module, changed by tests."""

SCALE = 2.0
OFFSET = 1.0


def offset(x):
    return x * 0 + OFFSET
