"""The examples run, and show what they say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
BACKENDS = ["numpy", pytest.param("jax", marks=pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="jax is not installed"
))]  # fmt: skip


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_in_the_readme_and_here() -> None:
    scripts = {path.name for path in FOLDER.glob("*.py")}
    assert scripts == {"char_gpt.py", "explain.py", "values.py"}
    readme = (FOLDER / "README.md").read_text()
    assert all(f"`{script}`" in readme for script in scripts)


def test_char_gpt(capsys: pytest.CaptureFixture[str]) -> None:
    loss = example("char_gpt").main(["--steps", "20"])
    shown = capsys.readouterr().out
    assert loss < 4.0  # guessing: 4.3
    assert "recording 0: the first call\ndef " in shown, "one recording, then the text"


@pytest.mark.parametrize("backend", BACKENDS)
def test_explain(backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    step = example("explain").main(["--backend", backend, "--dump", str(tmp_path)])
    shown = capsys.readouterr().out
    assert step.stats()["recordings"] == 3
    assert "argument 0: float32[24, 16] -> float32[8, 16]" in shown
    assert "training: True -> False (read at" in shown and "explain.py:" in shown
    assert (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize("backend", BACKENDS)
def test_values(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    example("values").main(["--backend", backend])
    shown = capsys.readouterr().out
    for name in ("newton", "newton_in_one_graph"):
        assert f"{name}(2.0) = 1.414214" in shown and f"{name}(9.0) = 3.000000" in shown
    assert "gradient [0.02, 0.16]" in shown and "example: [5, 2]" in shown
