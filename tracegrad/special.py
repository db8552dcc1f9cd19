"""`torch.special`: special functions under its names."""

from __future__ import annotations

import math
from typing import Any

from tracegrad.names import public
from tracegrad.tracer import functions as _functions

_SAME = """
digamma erf erfc erfinv exp2 expm1 log1p log_softmax logit logsumexp round sinc softmax xlogy
""".split()
globals().update({name: _functions.FUNCTIONS[name] for name in _SAME})
expit = _functions.sigmoid
gammaln = _functions.lgamma
psi = _functions.digamma


def entr(input: Any) -> Any:
    """-x log(x): 0 at 0, -inf below."""
    value = -_functions.xlogy(input, input)
    return _functions.where(input < 0, -math.inf, value)


def xlog1py(input: Any, other: Any) -> Any:
    """x log(1 + y), 0 where x is 0."""
    return _functions.xlogy(input, other + 1)


def ndtr(input: Any) -> Any:
    """The standard normal distribution function."""
    return _functions.erfc(input * -math.sqrt(0.5)) * 0.5


def ndtri(input: Any) -> Any:
    """The quantiles of the standard normal distribution."""
    return _functions.erfinv(input * 2.0 - 1) * math.sqrt(2)


__all__ = [*_SAME, "entr", "expit", "gammaln", "ndtr", "ndtri", "psi", "xlog1py"]

public(__name__)
