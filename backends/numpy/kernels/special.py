"""erf, erfc, erfinv, lgamma and digamma, which NumPy does not have, for float32 and float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.backends.numpy.kernels.registry import Array


def horner(x: Any, coefficients: tuple[float, ...]) -> Any:
    """The polynomial whose highest coefficient stands first."""
    total = x * 0 + x.dtype.type(coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + x.dtype.type(coefficient)
    return total


# float32: the rational x P(x^2) / Q(x^2) that XLA and Eigen use. Beyond |x| = 3.84 erf rounds to 1;
# the limit is a number near it where the rational, as computed here, is exactly 1: else gelu(x) would
# grow with -x instead of being 0.
ERF32_LIMIT = 3.8399858474731445
ERF32_P = (2.2905065861350646e-4, 3.4082910107109506e-3, 5.0955695062380861e-2,
           1.8520832239976145e-1, 1.128379143519084)  # fmt: skip
ERF32_Q = (-1.1791602954361697e-7, 2.3547966471313185e-5, 1.0179625278914885e-3,
           1.4070470171167667e-2, 1.1098505178285362e-1, 4.9746925110067538e-1, 1.0)  # fmt: skip

# float64: W. J. Cody, "Rational Chebyshev approximations for the error function" (1969): erf below
# 0.5, erfc on [0.5, 4], erfc beyond 4. Highest power first.
CODY_A = (1.85777706184603153e-1, 3.16112374387056560e00, 1.13864154151050156e02,
          3.77485237685302021e02, 3.20937758913846947e03)  # fmt: skip
CODY_B = (1.0, 2.36012909523441209e01, 2.44024637934444173e02, 1.28261652607737228e03,
          2.84423683343917062e03)  # fmt: skip
CODY_C = (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0,
          6.61191906371416295e01, 2.98635138197400131e02, 8.81952221241769090e02,
          1.71204761263407058e03, 2.05107837782607147e03, 1.23033935479799725e03)  # fmt: skip
CODY_D = (1.0, 1.57449261107098347e01, 1.17693950891312499e02, 5.37181101862009858e02,
          1.62138957456669019e03, 3.29079923573345963e03, 4.36261909014324716e03,
          3.43936767414372164e03, 1.23033935480374942e03)  # fmt: skip
CODY_P = (1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1,
          1.25781726111229246e-1, 1.60837851487422766e-2, 6.58749161529837803e-4)  # fmt: skip
CODY_Q = (1.0, 2.56852019228982242e00, 1.87295284992346725e00, 5.27905102951428412e-1,
          6.05183413124413191e-2, 2.33520497626869185e-3)  # fmt: skip
INV_SQRT_PI = 0.56418958354775628695


def erf(x: Array) -> Any:
    """Error function; absolute error below 4e-7 in float32, 1e-15 in float64."""
    if x.dtype == np.float32:
        z = np.clip(x, np.float32(-ERF32_LIMIT), np.float32(ERF32_LIMIT))
        square = z * z
        return z * horner(square, ERF32_P) / horner(square, ERF32_Q)
    size = np.abs(x)
    beyond = 1 - upper(np.clip(size, 0.5, 6.0))  # erfc(6) is below the last bit of 1
    return np.where(size <= 0.5, central(x), np.where(np.isnan(x), x, np.copysign(beyond, x)))


def erfc(x: Array) -> Any:
    """1 - erf(x), whose digits it keeps where erf(x) is next to 1; float32 is computed in float64."""
    wide = x.astype(np.float64)
    size = np.abs(wide)
    tail = upper(np.clip(size, 0.5, 30.0))  # where erfc is 0
    beyond = np.where(np.isnan(wide), wide, np.where(wide < 0, 2 - tail, tail))
    return np.where(size <= 0.5, 1 - central(wide), beyond).astype(x.dtype)


def central(x: Any) -> Any:
    """erf on [-0.5, 0.5] in float64."""
    square = np.square(np.clip(x, -0.5, 0.5))
    return x * horner(square, CODY_A) / horner(square, CODY_B)


def upper(size: Any) -> Any:
    """erfc on [0.5, inf) in float64."""
    middle_size = np.minimum(size, 4.0)
    middle = horner(middle_size, CODY_C) / horner(middle_size, CODY_D)
    large_size = np.maximum(size, 4.0)
    inverse = 1 / np.square(large_size)
    tail = inverse * horner(inverse, CODY_P) / horner(inverse, CODY_Q)
    large = (INV_SQRT_PI - tail) / large_size
    # The square in two parts, the first exact: else its rounding would be most of the result's.
    coarse = np.trunc(size * 16) / 16
    bell = np.exp(-coarse * coarse) * np.exp(-(size - coarse) * (size + coarse))
    return np.where(size <= 4.0, middle, large) * bell


# M. Giles, "Approximating the erfinv function" (2010): polynomials in w = -log(1 - x^2).
GILES32_CENTRAL = (2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
                   -0.00125372503, -0.00417768164, 0.246640727, 1.50140941)  # fmt: skip
GILES32_TAIL = (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
                -0.0076224613, 0.00943887047, 1.00167406, 2.83297682)  # fmt: skip


# The same in double precision: w < 6.25, w < 16 and beyond.
GILES64_CENTRAL = (
    -3.6444120640178196996e-21, -1.685059138182016589e-19, 1.2858480715256400167e-18,
    1.115787767802518096e-17, -1.333171662854620906e-16, 2.0972767875968561637e-17,
    6.6376381343583238325e-15, -4.0545662729752068639e-14, -8.1519341976054721522e-14,
    2.6335093153082322977e-12, -1.2975133253453532498e-11, -5.4154120542946279317e-11,
    1.051212273321532285e-09, -4.1126339803469836976e-09, -2.9070369957882005086e-08,
    4.2347877827932403518e-07, -1.3654692000834678645e-06, -1.3882523362786468719e-05,
    0.0001867342080340571352, -0.00074070253416626697512, -0.0060336708714301490533,
    0.24015818242558961693, 1.6536545626831027356)  # fmt: skip
GILES64_MIDDLE = (
    2.2137376921775787049e-09, 9.0756561938885390979e-08, -2.7517406297064545428e-07,
    1.8239629214389227755e-08, 1.5027403968909827627e-06, -4.013867526981545969e-06,
    2.9234449089955446044e-06, 1.2475304481671778723e-05, -4.7318229009055733981e-05,
    6.8284851459573175448e-05, 2.4031110387097893999e-05, -0.0003550375203628474796,
    0.00095328937973738049703, -0.0016882755560235047313, 0.0024914420961078508066,
    -0.0037512085075692412107, 0.005370914553590063617, 1.0052589676941592334,
    3.0838856104922207635)  # fmt: skip
GILES64_TAIL = (
    -2.7109920616438573243e-11, -2.5556418169965252055e-10, 1.5076572693500548083e-09,
    -3.7894654401267369937e-09, 7.6157012080783393804e-09, -1.4960026627149240478e-08,
    2.9147953450901080826e-08, -6.7711997758452339498e-08, 2.2900482228026654717e-07,
    -9.9298272942317002539e-07, 4.5260625972231537039e-06, -1.9681778105531670567e-05,
    7.5995277030017761139e-05, -0.00021503011930044477347, -0.00013871931833623122026,
    1.0103004648645343977, 4.8499064014085844221)  # fmt: skip


def erfinv(x: Array) -> Any:
    """Inverse error function on [-1, 1]: +-1 gives +-inf, outside gives nan."""
    single = x.dtype.type
    # log1p keeps the digits near 0; near 1 it is 1 - x that is exact
    near_zero = np.abs(x) < 0.5
    w = -np.where(near_zero, np.log1p(-x * x), np.log((1 - x) * (1 + x)))
    if x.dtype == np.float32:
        central = horner(np.minimum(w, single(5)) - single(2.5), GILES32_CENTRAL)
        tail = horner(np.sqrt(np.maximum(w, single(5))) - single(3), GILES32_TAIL)
        y = np.where(w < 5, central, tail) * x
    else:
        root = np.sqrt(np.maximum(w, 6.25))
        central = horner(np.minimum(w, 6.25) - 3.125, GILES64_CENTRAL)
        middle = horner(np.minimum(root, 4.0) - 3.25, GILES64_MIDDLE)
        tail = horner(root - 5.0, GILES64_TAIL)
        y = np.where(w < 6.25, central, np.where(w < 16, middle, tail)) * x
    return np.where(np.abs(x) == 1, x * single(np.inf), y)


LANCZOS_G = 7.0
LANCZOS = (676.520368121885098567009190444019, -1259.13921672240287047156078755283,
           771.3234287776530788486528258894, -176.61502916214059906584551354,
           12.507343278686904814458936853, -0.13857109526572011689554707,
           9.984369578019570859563e-6, 1.50563273514931155834e-7)  # fmt: skip


def lgamma(x: Array) -> Any:
    """log |gamma(x)|: +inf at 0 and the negative integers. Lanczos series, computed in float64."""
    z = x.astype(np.float64)
    reflect = z < 0.5  # gamma(z) gamma(1 - z) = pi / sin(pi z)
    shifted = np.where(reflect, -z, z - 1)
    series = np.full_like(shifted, 0.99999999999980993227684700473478)
    for index, coefficient in enumerate(LANCZOS):
        series = series + coefficient / (shifted + index + 1)
    base = shifted + LANCZOS_G + 0.5
    # base^(shifted + 1/2) e^-base, arranged so that large terms do not cancel
    value = 0.5 * np.log(2 * np.pi) + (shifted + 0.5 - base / np.log(base)) * np.log(base)
    value = value + np.log(series)
    fraction = np.abs(z) - np.floor(np.abs(z))
    sine = np.sin(np.pi * np.minimum(fraction, 1 - fraction))
    reflected = np.log(np.pi) - np.log(sine) - value
    out = np.where(reflect, np.where(sine == 0, np.inf, reflected), value)
    out = np.where((z == 1) | (z == 2), 0.0, out)
    return np.where(np.isinf(z), np.inf, out).astype(x.dtype)


DIGAMMA_SERIES = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)


def digamma(x: Array) -> Any:
    """d lgamma: -inf at +0 (+inf at -0), nan at the negative integers. Computed in float64."""
    z = x.astype(np.float64)
    reflect = z < 0.5  # digamma(z) = digamma(1 - z) - pi / tan(pi z)
    upper = np.where(reflect, 1 - z, z)
    total = np.zeros_like(upper)
    for _ in range(10):  # digamma(z) = digamma(z + 1) - 1 / z, up to where the series converges
        small = upper < 10
        total = np.where(small, total - 1 / upper, total)
        upper = np.where(small, upper + 1, upper)
    inverse = 1 / np.square(upper)
    series = np.zeros_like(upper)
    for coefficient in reversed(DIGAMMA_SERIES):
        series = (series + coefficient) * inverse
    value = total + np.log(upper) - 0.5 / upper - series
    out = np.where(reflect, value - np.pi / np.tan(np.pi * (z - np.round(z))), value)
    out = np.where(reflect & (z == np.floor(z)), np.nan, out)
    out = np.where(z == 0, np.copysign(np.inf, -z), out)
    return np.where(z == np.inf, np.inf, out).astype(x.dtype)
