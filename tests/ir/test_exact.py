"""Values of attributes: which are the same to caches, CSE and comparisons of recordings."""

from __future__ import annotations

import copy
import struct
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from tracegrad.ir import Attrs, Const, Graph, TensorType, f32, f64, placeholder
from tracegrad.ir.exact import exact

NEGATIVE_NAN = struct.unpack("<d", struct.pack("<Q", 0xFFF8 << 48))[0]
UNLIKE = [
    0, 0.0, -0.0, False, 1, 1.0, True, float("nan"), NEGATIVE_NAN, float("inf"), None, "1", 0j,
    complex(0.0, -0.0), complex(-0.0, 0.0), f32, f64, (0,), (0.0,), (-0.0,), (False,), (0, 1),
    ((0,), 1), (), Const(np.float32(0.0)), Const(np.float32(-0.0)), TensorType((2,), f32),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), list(combinations(UNLIKE, 2)), ids=repr)
def test_unlike_values_have_unlike_keys(one: Any, other: Any) -> None:
    assert exact(one) != exact(other)
    assert Attrs({"value": one}) != Attrs({"value": other})


@pytest.mark.parametrize("value", UNLIKE, ids=repr)
def test_a_value_is_like_itself(value: Any) -> None:
    again = struct.unpack("<d", struct.pack("<d", value))[0] if type(value) is float else value
    assert exact(again) == exact(value) and hash(exact(again)) == hash(exact(value))
    one, other = Attrs({"value": (again, 1)}), Attrs({"value": (value, 1)})
    assert one == other and hash(one) == hash(other) and copy.copy(one) == other
    assert Attrs({"value": 1}) != Attrs({"other": 1})


def test_a_sub_graph_is_what_it_computes() -> None:
    def body(number: float) -> Graph:
        x = placeholder(TensorType((2,), f32))
        return Graph((x,), (x * number,))

    assert Attrs({"body": body(2.0)}) == Attrs({"body": body(2.0)})
    assert Attrs({"body": (body(2.0), 1)}) != Attrs({"body": (body(3.0), 1)})
