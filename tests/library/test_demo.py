"""The command line: demo in every mode, doctor, and what happens when extras are missing."""

import json
import subprocess
import sys

import pytest

import tracegrad as tg
from tracegrad import cli, demo
from tracegrad.errors import MissingExtraError

pytest.importorskip("sklearn")
pytest.importorskip("rich")
pytest.importorskip("matplotlib")


def run(tmp_path, *arguments):
    return cli.main(["demo", "--output", str(tmp_path / "out"), *arguments])


def test_demo_on_numpy(tmp_path, capsys):
    assert run(tmp_path, "--backend", "numpy", "--epochs", "4") == 0
    shown = capsys.readouterr().out
    assert "compiled, NumPy" in shown and "accuracy" in shown and "JAX" not in shown
    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir()) == ["graph-numpy", "results.json", "training.png"]
    assert (out / "training.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "graph-numpy" / "manifest.json").exists()
    eager, compiled = json.loads((out / "results.json").read_text())
    assert (eager["mode"], compiled["mode"]) == ("eager", "numpy")
    assert compiled["compiles"] == 1 and len(compiled["losses"]) == 4 * 22
    # One random stream, one meaning: the compiled run repeats the eager one.
    assert compiled["losses"] == pytest.approx(eager["losses"], rel=1e-3, abs=1e-4)
    assert eager["accuracy"] > 0.95 and compiled["accuracy"] > 0.95


def test_demo_on_jax_and_torch(tmp_path):
    pytest.importorskip("jax")
    pytest.importorskip("torch")
    assert run(tmp_path, "--backend", "jax", "--backend", "torch", "--epochs", "4") == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [r["mode"] for r in results] == ["eager", "jax", "torch"]
    assert all(r["accuracy"] > 0.95 for r in results)
    assert results[1]["losses"] == pytest.approx(results[0]["losses"], rel=1e-2, abs=1e-3)


def test_a_failing_mode_is_shown_and_fails_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(demo, "write_digits", lambda folder, seed: None)
    from tracegrad import demo_report

    def broken(folder, seed):
        import numpy as np

        np.savez(folder / demo.DATA_FILE, y=np.zeros(128))

    monkeypatch.setattr(demo_report, "write_digits", broken)
    assert run(tmp_path, "--backend", "eager", "--epochs", "1") == 1
    shown = capsys.readouterr().out
    assert "failed: eager" in shown and "KeyError" in shown and "eager.log" in shown


def test_modes_whose_library_is_missing_are_skipped(tmp_path, capsys, monkeypatch):
    from tracegrad import demo_report

    monkeypatch.setattr(demo_report, "available", lambda mode: mode not in ("jax", "torch"))
    monkeypatch.setattr(demo_report, "measure", lambda mode, *rest: finished(mode))
    assert run(tmp_path) == 0
    shown = capsys.readouterr().out
    assert "skipped: compiled, JAX" in shown and "tracegrad[jax]" in shown


def finished(mode, seconds=(1.0, 0.1, 0.1, 0.1, 0.1)):
    return demo.Result(mode, [1.0] * len(seconds), list(seconds), 0.98, 50.0, 1)


def test_missing_extras_name_the_pip_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tracegrad\[demo\]'"):
        demo.require("sklearn", "scikit-learn", "demo")
    assert run(tmp_path) == 2
    assert "rich, which is not installed" in capsys.readouterr().err


def test_times():
    eager = finished("eager", [0.1] * 20)
    compiled = finished("numpy", [0.5] + [0.05] * 19)
    assert compiled.step_ms == pytest.approx(50)
    assert compiled.compile_s == pytest.approx(0.45)
    assert compiled.break_even(eager) == 10
    assert finished("jax", [3.0] + [0.05] * 19).break_even(eager) == pytest.approx(59, abs=1)
    assert finished("torch", [0.2] * 20).break_even(eager) == float("inf")


def test_doctor(capsys):
    assert cli.main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["tracegrad"] == tg.__version__ and facts["backends"]["numpy"] == "works"
    assert cli.main(["doctor"]) == 0
    assert "backends:" in capsys.readouterr().out


def test_doctor_reports_a_broken_backend(capsys, monkeypatch):
    def broken(function, backend):
        raise RuntimeError("no such engine")

    monkeypatch.setattr(tg, "compile", broken)
    assert cli.main(["doctor"]) == 1
    assert "broken: RuntimeError: no such engine" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [[], ["demo", "--epochs", "0"], ["demo", "--epochs", "x"], ["demo", "--backend", "tpu"]],
)
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    shown = capsys.readouterr().err
    assert caught.value.code == 2 and "usage" in shown and "_positive" not in shown


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "taken").write_text("")
    command = [sys.executable, "-m", "tracegrad", "demo", "--output", str(tmp_path / "taken")]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 2 and "cannot write into" in ran.stderr and "--output" in ran.stderr
    assert "Traceback" not in ran.stderr and "where:" not in ran.stderr


def test_help_and_version_as_a_module():
    shown = subprocess.run(
        [sys.executable, "-m", "tracegrad", "--version"], capture_output=True, text=True
    )
    assert shown.stdout.strip() == f"tracegrad {tg.__version__}"
