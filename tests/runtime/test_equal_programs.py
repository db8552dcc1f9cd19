"""Programs that compute the same by the same steps share code, but no lines, names or state."""

import pytest

import tracegrad as tg
from tests.runtime.programs import BACKENDS
from tracegrad.ir import Graph, Loc, TensorType, at, f32, ops, placeholder
from tracegrad.runtime.paths.lowering import LABELS_KEPT, Compiler


def swapping(a, b):
    def step(swap, i):
        if swap:
            doubled, more = b[i] * 2, a[i] + 1
            b.copy_(more)
            a.copy_(doubled)
        else:
            more, doubled = a[i] + 1, b[i] * 2
            a.copy_(more)
            b.copy_(doubled)

    return step


@pytest.mark.parametrize("backend", ["eager", *BACKENDS])
def test_new_values_go_to_the_state_that_was_written(backend):
    a, b = tg.tensor([1.0, 2.0]), tg.tensor([10.0, 20.0])
    step = swapping(a, b)
    step = step if backend == "eager" else tg.compile(step, backend=backend)
    both = tg.tensor([0, 1])
    step(False, both)
    assert (a.tolist(), b.tolist()) == ([2.0, 3.0], [20.0, 40.0])
    step(True, both)
    assert (a.tolist(), b.tolist()) == ([40.0, 80.0], [3.0, 4.0])
    with pytest.raises(IndexError):
        step(True, tg.tensor([0, 7]))
        a.tolist()  # XLA tells late
    assert (a.tolist(), b.tolist()) == ([40.0, 80.0], [3.0, 4.0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_graph_names_the_state_that_was_written(backend):
    m = tg.nn.Module()
    m.first, m.second = tg.zeros(2), tg.zeros(2)

    def step(second):
        if second:
            m.second.add_(1)
        else:
            m.first.add_(1)

    compiled = tg.compile(step, backend=backend)
    compiled(False)
    assert "new_first" in str(compiled.graph)
    compiled(True)
    assert "new_second" in str(compiled.graph) and "first" not in str(compiled.graph)
    assert compiled.stats()["compiles"] == 1


def equal_branches(x, index, second):
    if second:
        return x[index] * 2  # SECOND
    return x[index] * 2  # FIRST


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_graph_and_errors_name_the_branch_that_ran(backend):
    with open(__file__) as file:
        lines = [line.rstrip() for line in file]
    number = {word: lines.index(f"{pad}return x[index] * 2  # {word}") + 1
              for word, pad in (("FIRST", "    "), ("SECOND", "        "))}  # fmt: skip
    compiled = tg.compile(equal_branches, backend=backend)
    x = tg.ones(4)
    for word, other, second in (("FIRST", "SECOND", False), ("SECOND", "FIRST", True)):
        compiled(x, tg.tensor([1]), second)
        used = {node.loc.line for node in compiled.graph.nodes if node.inputs}
        assert number[word] in used and number[other] not in used
        assert f"test_equal_programs.py:{number[word]}" in str(compiled.history[-1][1])
        with pytest.raises(IndexError, match=f"test_equal_programs.py:{number[word]}"):
            compiled(x, tg.tensor([9]), second).tolist()
    assert compiled.stats()["compiles"] == 1


def test_source_and_memory_name_the_lines_of_their_own_function():
    def first(x):
        return tg.tanh(x) * 3 + 1

    def second(x):
        return tg.tanh(x) * 3 + 1

    for function in (first, second):
        compiled = tg.compile(function, backend="numpy")
        compiled(tg.ones(8))
        line = function.__code__.co_firstlineno + 1
        for text in (compiled.source, str(compiled.memory())):
            assert f"test_equal_programs.py:{line}" in text


def test_the_histories_of_one_program_are_bounded():
    compiler = Compiler("numpy", {})
    x = placeholder(TensorType((2,), f32), Loc("a.py", 1))
    for line in range(5 * LABELS_KEPT):
        with at(Loc("a.py", line + 1)):
            compiler(Graph((x,), (ops.exp(x),)))
    assert compiler.compiles == 1
    (histories,) = compiler._cache.values()
    assert len(histories) + len(histories.old) <= 2 * LABELS_KEPT
