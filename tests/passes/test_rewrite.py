"""Patterns, the rewrite driver, and every rule on values."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracegrad.backends.numpy import interpret
from tracegrad.ir import (
    Graph,
    IRError,
    Loc,
    Node,
    TensorType,
    VerifyError,
    at,
    bf16,
    f16,
    f32,
    f64,
    i32,
    i64,
    ops,
    parse,
    placeholder,
    print_graph,
)
from tracegrad.passes.rules.algebra import ASSUMING, holds_all
from tracegrad.passes.rules.patterns import match, op, splat, var
from tracegrad.passes.rules.rewrite import Rewriter, Rule, rule
from tracegrad.passes.rules.selftest import instances, self_test
from tracegrad.passes.simplify import ALL_RULES, RULES

x, y = var("x"), var("y")


def leaf(*shape: int) -> Node:
    return placeholder(TensorType(shape, f32), Loc("net.py", 1))


@pytest.mark.parametrize("each", ALL_RULES, ids=lambda each: each.name)
def test_every_rule_keeps_values(each: Rule) -> None:
    assert self_test(each, interpret) >= 1


@pytest.mark.parametrize("each", ALL_RULES, ids=lambda each: each.name)
def test_every_rule_settles(each: Rule) -> None:
    """What a rule made, it does not make again: no rule undoes or repeats itself."""
    for graph in instances(each):
        once = Rewriter((each,)).run(graph)
        again = Rewriter((each,))
        again.run(once)
        assert not again.hits


def test_all_rules_together_settle() -> None:
    for each in RULES:
        for graph in instances(each):
            once = Rewriter(RULES).run(graph)
            again = Rewriter(RULES)
            again.run(once)
            assert not again.hits, f"{each.name}:\n{graph}{once}"


def test_rules_have_names_and_lines() -> None:
    names = [each.name for each in ALL_RULES]
    assert len(set(names)) == len(names)
    for each in ALL_RULES:
        file, line = each.defined_at.rsplit(":", 1)
        assert "rules" in Path(file).parts and int(line) > 1


def test_only_rules_that_assume_nothing_run_unasked() -> None:
    assert not [each.name for each in RULES if each.assumes]
    assert all(each.assumes for each in ASSUMING)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (rule("add-zero", x + 0, to=x, dtypes="f"), "zeros changed sign"),
        (
            rule("mul-zero", x * 0, to=lambda m: ops.zeros_like(m.root), dtypes="f"),
            "changes values",
        ),
        (
            rule("sub-self", x - x, to=lambda m: ops.zeros_like(m.root), dtypes="f"),
            "changes values",
        ),
        (rule("never", op("exp", op("log", x)), to=lambda m: None), "does not apply"),
        (rule("sub-first", x - y, to=x, dtypes="f"), "12 of 12 elements differ"),
        (rule("no-dtype", op("and", x, y), to=x, dtypes="f"), "no example and no dtype"),
    ],
    ids=lambda value: value.name if isinstance(value, Rule) else "",
)
def test_the_self_test_notices_wrong_rules(wrong: Rule, message: str) -> None:
    with pytest.raises(VerifyError, match=message):
        self_test(wrong, interpret)


def test_a_rule_that_changes_the_type_is_stopped() -> None:
    bad = rule("bad", op("exp", x), to=lambda m: ops.sum_(m.x, axes=(0,)))
    a = leaf(3)
    with pytest.raises(IRError, match=r"rule 'bad' \(.*test_rewrite.py:\d+\) turned f32\[3\]"):
        Rewriter((bad,)).run(Graph((a,), (ops.exp(a),)))


def test_commutative_ops_match_in_either_order() -> None:
    a = leaf(2)
    one = ops.ones_like(a)
    found = [match(x * 1, node) for node in (a * one, one * a)]
    assert [bound and bound.x for bound in found] == [a, a]
    assert match(x - 1, one - a) is None
    nested = op("add", -x, y)
    bound = match(nested, ops.add(a, -one))
    assert bound and (bound.x, bound.y) == (one, a)


def test_a_failed_order_leaves_no_bindings() -> None:
    a, b = leaf(2), leaf(2)
    pattern = op("add", op("mul", x, y), x)
    bound = match(pattern, ops.add(b, ops.mul(a, b)))
    assert bound and (bound.x, bound.y) == (b, a)
    assert match(pattern, ops.add(leaf(2), ops.mul(a, b))) is None


def test_literals_tell_zeros_apart() -> None:
    a = leaf(2)
    assert match(x + 0.0, a + 0.0) and not match(x + 0.0, a + -0.0)
    assert match(x + -0.0, a + -0.0) and not match(x + -0.0, a + 0.0)
    assert match(x * splat("c"), a * 3.0) and not match(x * splat("c"), a * leaf(2))


def test_nothing_matches_through_a_fence() -> None:
    a = leaf(2)
    graph = Graph((a,), (-ops.fence(-a),))
    assert Rewriter(RULES).run(graph) is graph


def test_rewritten_nodes_say_which_line_and_rule() -> None:
    a, b = leaf(2), leaf(2)
    with at(Loc("net.py", 7, "forward", "fc")):
        out = ops.add(a, ops.neg(b))
    rewriter = Rewriter(RULES)
    new = rewriter.run(Graph((a, b), (out,)))
    assert str(new.outputs[0].loc) == "net.py:7 in forward @ fc <- add-neg"
    assert new.outputs[0].op is ops.sub
    assert rewriter.hits == {"add-neg": 1}


def test_rules_that_turn_for_ever_are_named() -> None:
    turn = rule("turn", x + y, to=lambda m: ops.add(m.y, m.x))
    a, b = leaf(2), leaf(2)
    with pytest.raises(IRError, match=r"32 rewrites of .*: turn, turn, turn, turn"):
        Rewriter((turn,)).run(Graph((a, b), (a + b,)))
    # One rewrite a walk: the new node stands below, so only the next walk sees it.
    sink = rule("sink", x - y, to=op("neg", op("sub", y, x)))
    with pytest.raises(IRError, match=r"16 walks over graph 'graph'.*: sink\. "):
        Rewriter((sink,)).run(Graph((a, b), (a - b,)))


def test_subgraphs_are_rewritten() -> None:
    a, inner = leaf(2), leaf(2)
    body = Graph((inner,), (inner * 1.0,))
    out = ops.proj(ops.call(a, graph=body), index=0)
    new = Rewriter(RULES).run(Graph((a,), (out,)))
    call = new.outputs[0].inputs[0]
    assert call.attrs["graph"].outputs == (inner,)


def test_a_chain_of_rules_is_followed_in_one_walk() -> None:
    a = leaf(2, 3)
    node: Node = a
    for _ in range(2000):
        node = ops.neg(node)
    assert Rewriter(RULES).run(Graph((a,), (node,))).outputs == (a,)


def test_casts_that_lose_nothing() -> None:
    assert holds_all(f16, f32) and holds_all(bf16, f32) and holds_all(i32, f64)
    assert not holds_all(f32, f16) and not holds_all(f16, bf16) and not holds_all(bf16, f16)
    assert not holds_all(i64, f64) and not holds_all(i32, f32) and not holds_all(f32, i64)


def after(graph_text: str) -> str:
    """The simplified text of a graph given as text."""
    return print_graph(Rewriter(RULES).run(parse(graph_text)), locations=False)


def test_a_linear_layer_becomes_one_product() -> None:
    text = """graph linear:
  %0: f32[8,16,4] = input()  # argument x
  %1: f32[4,5] = input()  # state w
  %2: f32[8,4,5] = broadcast_to(%1, shape=(8, 4, 5), dims=(1, 2))
  %3: f32[8,16,5] = matmul(%0, %2)
  return %3  # result y
"""
    assert (
        after(text)
        == """graph linear:
  %0: f32[8,16,4] = input()  # argument x
  %1: f32[4,5] = input()  # state w
  %2: f32[128,4] = reshape(%0, shape=(128, 4))
  %3: f32[128,5] = matmul(%2, %1)
  %4: f32[8,16,5] = reshape(%3, shape=(8, 16, 5))
  return %4  # result y
"""
    )


def test_a_weight_gradient_becomes_one_product() -> None:
    text = """graph gradient:
  %0: f32[8,16,4] = input()  # saved x
  %1: f32[8,16,5] = input()  # cotangent ct
  %2: f32[8,4,16] = transpose(%0, perm=(0, 2, 1))
  %3: f32[8,4,5] = matmul(%2, %1)
  %4: f32[4,5] = sum(%3, axes=(0,))
  return %4  # gradient w
"""
    assert (
        after(text)
        == """graph gradient:
  %0: f32[8,16,4] = input()  # saved x
  %1: f32[8,16,5] = input()  # cotangent ct
  %2: f32[128,4] = reshape(%0, shape=(128, 4))
  %3: f32[4,128] = transpose(%2, perm=(1, 0))
  %4: f32[128,5] = reshape(%1, shape=(128, 5))
  %5: f32[4,5] = matmul(%3, %4)
  return %5  # gradient w
"""
    )


def test_the_gradient_of_a_split_is_one_concatenation() -> None:
    text = """graph split:
  %0: f32[2] = input()  # cotangent q
  %1: f32[3] = input()  # cotangent k
  %2: f32[4] = input()  # cotangent v
  %3: f32[] = constant(value=const<f32[] 0.0>)
  %4: f32[9] = pad(%2, %3, low=(5,), high=(0,), interior=(0,))
  %5: f32[9] = pad(%1, %3, low=(2,), high=(4,), interior=(0,))
  %6: f32[9] = add(%4, %5)
  %7: f32[9] = pad(%0, %3, low=(0,), high=(7,), interior=(0,))
  %8: f32[9] = add(%6, %7)
  return %8  # gradient qkv
"""
    assert (
        after(text)
        == """graph split:
  %0: f32[2] = input()  # cotangent q
  %1: f32[3] = input()  # cotangent k
  %2: f32[4] = input()  # cotangent v
  %3: f32[9] = concatenate(%0, %1, %2, axis=0)
  return %3  # gradient qkv
"""
    )


def test_broadcasts_come_late() -> None:
    text = """graph late:
  %0: f32[4] = input()  # argument x
  %1: f32[8,4] = broadcast_to(%0, shape=(8, 4), dims=(1,))
  %2: f32[8,4] = constant(value=const<f32[8,4] 2.0>)
  %3: f32[8,4] = mul(%2, %1)
  %4: f32[8,4] = exp(%3)
  return %4  # result y
"""
    assert (
        after(text)
        == """graph late:
  %0: f32[4] = input()  # argument x
  %1: f32[4] = constant(value=const<f32[4] 2.0>)
  %2: f32[4] = mul(%0, %1)
  %3: f32[4] = exp(%2)
  %4: f32[8,4] = broadcast_to(%3, shape=(8, 4), dims=(1,))
  return %4  # result y
"""
    )
