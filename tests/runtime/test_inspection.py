"""What a compiled function tells about itself stays true: counts, reasons, dumps, memory."""

from __future__ import annotations

import os
import pickle

import pytest

import tracegrad as tg
from tracegrad.ir.serialise import from_json, to_json
from tracegrad.runtime import compiled as compiled_module
from tracegrad.tracer.errors import ArgumentError


def test_recordings_are_counted_and_numbered_after_their_reasons_are_forgotten(monkeypatch):
    monkeypatch.setattr(compiled_module, "MAX_EVENTS", 3)
    f = tg.compile(lambda x: x * 2, backend="numpy")
    for size in range(1, 6):
        f(tg.ones(size))
    stats = f.stats()
    assert stats["recordings"] == stats["compiles"] == stats["calls"] == 5
    assert [line.split(":")[0] for line in f.why().splitlines()] == [
        "recording 2",
        "recording 3",
        "recording 4",
    ]
    assert "executables 5 for 5 recordings, 5 calls" in f.explain()


def test_a_dump_replaces_the_one_that_was_there(tmp_path):
    f = tg.compile(lambda x: x * 2, backend="numpy")
    f(tg.ones(2))
    (tmp_path / "mine.txt").write_text("not of a dump")
    folder = f.dump(tmp_path)
    manifest = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(manifest.replace("source.py", "source.mlir"))
    (folder / "source.mlir").write_text("of an earlier dump for XLA")
    f.dump(tmp_path)
    assert not (tmp_path / "source.mlir").exists() and (tmp_path / "source.py").exists()
    assert (tmp_path / "mine.txt").exists()


def test_a_dump_holds_the_graphs_in_the_order_they_came(tmp_path, backend):
    f = tg.compile(lambda x: (x * 2 + 1).exp().sum(), backend=backend)
    f(tg.ones(3))
    names = [path.stem for path in sorted(f.dump(tmp_path).glob("[0-9]*.txt"))]
    assert [int(name[:3]) for name in names] == list(range(len(names)))
    assert names[0] == "000_trace"
    after = names[names.index(next(name for name in names if name.endswith("_final"))) + 1 :]
    assert [name[4:] for name in after][-1:] == (["numpy-fuse"] if backend == "numpy" else [])


def test_the_history_ends_with_the_graph_that_code_is_written_for():
    f = tg.compile(lambda x: ((x * 2 + 1).exp() - 3).tanh(), backend="numpy")
    f(tg.ones(300_000))
    name, graph = f.history[-1]
    assert name == "numpy/fuse"
    assert [node.op.name for node in graph.nodes if node.inputs] == ["fused"]
    assert f.source.count("# fused") == 1


def test_a_dump_onto_a_file_is_refused(tmp_path):
    f = tg.compile(lambda x: x * 2, backend="numpy")
    f(tg.ones(2))
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(ArgumentError, match="is a file") as caught:
        f.dump(tmp_path / "notes")
    assert "test_inspection.py" in str(caught.value)
    assert (tmp_path / "notes").read_text() == "mine"


def compiled_loop(backend):
    w = tg.tensor(1.5, requires_grad=True)

    @tg.compile(backend=backend)
    def step(x):
        while x.sum() < 8:
            x = x * w
        loss = x.sum()
        loss.backward()
        return loss

    return step


def test_explain_says_how_many_programs_run():
    step = compiled_loop("numpy")
    step(tg.ones(2))
    assert "5 questions of Python's, 11 programs in turn, 5 different" in step.explain()


def test_a_dump_of_a_loop_is_whole(tmp_path, backend):
    step = compiled_loop(backend)
    step(tg.ones(2))
    step.dump(tmp_path)
    final = tg.ir.serialise.from_json((tmp_path / "final.json").read_text())
    assert final.fingerprint() == step.graph.fingerprint()
    assert "programs in turn" in (tmp_path / "explain.txt").read_text()


def test_a_folder_that_holds_another_manifest_loses_nothing(tmp_path):
    f = tg.compile(lambda x: x * 2, backend="numpy")
    f(tg.ones(2))
    (tmp_path / "manifest.json").write_text('{"files": ["kept.txt", "../outside.txt", 3]}')
    (tmp_path / "kept.txt").write_text("of another program")
    f.dump(tmp_path)
    assert (tmp_path / "kept.txt").exists()


def test_memory_names_the_line_of_what_lives_at_the_peak():
    def f(x):
        return ((x @ x).sin() @ x).sum()

    step = tg.compile(f, backend="numpy")
    step(tg.ones(8, 8))
    _, *alive = str(step.memory()).splitlines()
    assert alive and all("f32[8,8]" in line and "test_inspection.py:" in line for line in alive)


def test_no_graph_of_a_function_that_runs_eagerly_says_what_to_do():
    f = tg.compile(lambda x: x[x > 0], backend="numpy")
    with pytest.warns(UserWarning, match="runs eagerly"):
        f(tg.ones(2))
    with pytest.raises(tg.errors.NothingCompiledError, match="fullgraph=True") as caught:
        _ = f.graph
    assert "call it once" not in str(caught.value)


def test_a_users_class_of_the_name_compiledfunction_is_an_object_like_another():
    class CompiledFunction:
        factor = 3.0

    scale = CompiledFunction()
    f = tg.compile(lambda x: x * scale.factor, backend="numpy", fullgraph=True)
    assert f(tg.ones(2)).tolist() == [3.0, 3.0]
    scale.factor = 5.0
    assert f(tg.ones(2)).tolist() == [5.0, 5.0]


def test_a_new_path_says_which_question_was_answered_anew():
    def f(x):
        while x.sum() > 1:  # the branch
            x = x / 2
        return x, float(x.sum())

    step = tg.compile(f, backend="numpy")
    for start in (1.0, 4.0, 3.0):
        step(tg.tensor([start]))
    line = os.path.relpath(__file__) + f":{f.__code__.co_firstlineno + 1}"
    first, again, value = (
        text.partition("a new path: ")[2] for text in step.why().splitlines()[:3]
    )
    assert first == ""
    assert again == f"the condition at {line} (question 1 of this call) is True, so far False"
    line = os.path.relpath(__file__) + f":{f.__code__.co_firstlineno + 3}"
    assert value == f"the value at {line} (question 4 of this call) is 0.75, not met before"


def test_every_graph_with_a_custom_function_reads_back():
    class Scaled(tg.autograd.Function):
        @staticmethod
        def forward(ctx, x, factor):
            ctx.factor = factor
            return x * factor, x.long()

        @staticmethod
        def backward(ctx, g, _):
            return g * ctx.factor, None

    w = tg.ones(3, requires_grad=True)

    def step(x):
        a, b = Scaled.apply(x * w, 3.0)
        (a.sum() + b.sum()).backward()
        return a

    f = tg.compile(step)
    f(tg.ones(3))
    assert w.grad.tolist() == [3.0, 3.0, 3.0]
    assert "custom_Scaled(" in str(f.history[0][1])
    for _, graph in f.history:
        assert str(tg.ir.parse(str(graph))) == str(graph)
        assert str(from_json(to_json(graph))) == str(graph)
        assert str(pickle.loads(pickle.dumps(graph))) == str(graph)


def test_why_tells_slots_from_options():
    class Momentum(tg.optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {"lr": 0.1})

        @tg.no_grad()
        def step(self):
            for group in self.param_groups:
                for p in group["params"]:
                    slots = self.state[p]
                    if not slots:
                        slots["velocity"] = tg.zeros_like(p)
                    slots["velocity"].mul_(0.9).add_(p.grad)
                    p.add_(slots["velocity"], alpha=-group["lr"] * group.get("scale", 1.0))

    p = tg.nn.Parameter(tg.ones(3))
    opt = Momentum([p])

    @tg.compile(backend="numpy")
    def step():
        opt.zero_grad()
        (p * p).sum().backward()
        opt.step()

    for _ in range(3):
        step()
    assert "an optimizer's slots of one parameter: now has ['velocity']" in step.why()
    opt.param_groups[0]["scale"] = 2.0
    step()
    assert "a parameter group: now has ['params', 'lr', 'scale']" in step.why()


def test_explain_says_why_nothing_is_compiled():
    import random

    drawing = tg.compile(lambda x: x * random.random(), backend="numpy")
    with pytest.warns(UserWarning, match="runs eagerly"):
        drawing(tg.ones(2))
    assert "runs eagerly, nothing is compiled" in drawing.explain()
    assert "draws from random" in drawing.explain() and "fullgraph=True" in drawing.explain()

    scaled = tg.compile(lambda x, by: x * by, backend="numpy")
    with pytest.warns(UserWarning, match="runs eagerly"):
        for k in range(12):
            scaled(tg.ones(2), k / 7)
    assert "compiled for numpy, but runs eagerly by now" in scaled.explain()


class Settings:
    shift = 1.0


def test_every_reason_names_the_function_that_read_it():
    scale, settings = 2.0, Settings()

    def f(x):
        return x * scale + settings.shift

    step = tg.compile(f, backend="numpy")
    here = os.path.relpath(__file__)
    line = f.__code__.co_firstlineno
    step(tg.ones(2))
    scale = 3.0
    step(tg.ones(2))
    Settings.shift = 4.0
    step(tg.ones(2))
    settings.shift = 5.0
    step(tg.ones(2))
    name = f.__qualname__
    assert step.why().splitlines()[1:] == [
        f"recording 1: scale: 2.0 -> 3.0 (read at {here}:{line} in {name})",
        f"recording 2: shift: 1.0 -> 4.0 (read at class {__name__}.Settings)",
        f"recording 3: shift: absent -> 5.0 (read at {here}:{line + 1} in {name})",
    ]


@pytest.mark.parametrize("kind", ["random", "outside", "argument"])
def test_what_is_found_after_the_function_is_told_at_its_lines(kind):
    import random

    kept = []

    def draws(x, given):
        return x * random.random()

    def appends(x, given):
        kept.append(1)
        return x

    def changes(x, given):
        given.append(1)
        return x

    f = {"random": draws, "outside": appends, "argument": changes}[kind]
    where = f"where: {os.path.relpath(__file__)}:{f.__code__.co_firstlineno} in {f.__qualname__}"
    with pytest.raises(RuntimeError) as raised:
        tg.compile(f, backend="numpy", fullgraph=True)(tg.ones(2), [])
    assert where in str(raised.value)
