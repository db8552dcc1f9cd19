"""What passes may ask of an op. A pass asks for a trait, never for a list of op names."""

from __future__ import annotations

ELEMENTWISE = "elementwise"  # an output element depends on the same element of each input only
REDUCTION = "reduction"  # drops the axes in `axes`
VIEW = "view"  # rearranges elements; owns no storage in NumPy where possible
CHEAP = "cheap"  # recomputing costs less than keeping
EXPENSIVE = "expensive"  # never recomputed
RANDOM = "random"  # draws from a key
COMPOSITE = "composite"  # has `decompose` into simpler ops
CONTRACTION = "contraction"  # sums products: BLAS work
SOURCE = "source"  # has no inputs
EFFECT = "effect"  # must run even if nothing reads it
COMMUTATIVE = "commutative"  # op(x, y) equals op(y, x), bit for bit
IDENTITY_MARKER = "identity_marker"  # yields its (first) input; says something to passes
MULTI = "multi"  # a tuple result, taken apart by `proj`
CONTROL = "control"  # holds sub-graphs in its attributes

TRAITS: frozenset[str] = frozenset(
    value for name, value in list(globals().items()) if name.isupper() and isinstance(value, str)
)
