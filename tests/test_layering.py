"""Who may import whom, that every package is packaged, and that importing is light."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STAGES = ("ir", "passes", "backends", "tracer", "runtime", "tracegrad")
MAY_IMPORT = {
    "ir": {"ir"},
    "passes": {"ir", "passes"},
    "backends": {"ir", "passes", "backends"},
    "tracer": {"ir", "passes", "backends", "tracer"},
    "runtime": {"ir", "passes", "backends", "tracer", "runtime"},
    "tracegrad": set(STAGES),
}
FILES = [path for stage in STAGES for path in sorted((ROOT / stage).rglob("*.py"))]


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """Dotted names that a file imports, at the top or inside a function, with their lines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            yield ("." * node.level) + (node.module or ""), node.lineno
            for alias in node.names:
                yield ("." * node.level) + f"{node.module or ''}.{alias.name}", node.lineno


def stage_of(name: str) -> str | None:
    """The stage that a dotted name belongs to; None for what is not ours."""
    first, _, rest = name.partition(".")
    if first != "tracegrad":
        return None
    second = rest.partition(".")[0]
    return second if second in STAGES else "tracegrad"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0]
    for name, line in imported(path):
        where = f"{path.relative_to(ROOT)}:{line}"
        assert not name.startswith("."), f"{where} imports relatively; write tracegrad.{own}..."
        assert name.partition(".")[0] not in STAGES[:-1], f"{where} imports a bare {name}"
        if name == "tracegrad":
            continue  # `from tracegrad import x` is judged by its parts
        stage = stage_of(name)
        assert stage is None or stage in MAY_IMPORT[own], (
            f"illegal edge {own} -> {stage}: {where} imports {name}"
        )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_jax_stays_in_its_backend(path: Path) -> None:
    if path.is_relative_to(ROOT / "backends" / "jax"):
        return
    found = [f"{path.name}:{line}" for name, line in imported(path) if name.split(".")[0] == "jax"]
    assert not found


def test_every_folder_with_code_is_packaged() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(project["tool"]["setuptools"]["packages"])
    folders = {path.parent.relative_to(ROOT) for path in FILES}
    found = {
        ".".join(parts if parts[0] == "tracegrad" else ("tracegrad", *parts))
        for parts in (folder.parts for folder in folders)
    }
    assert found == listed


def test_importing_brings_nothing_that_is_not_needed_yet() -> None:
    """What a first compile, a checkpoint or a loader with workers needs is imported by them."""
    code = "import sys, numpy; before = set(sys.modules); import tracegrad; print(*set(sys.modules) - before)"
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found = {name.partition(".")[0] for name in shown.stdout.split()}
    late = set(
        "jax optree networkx zipfile tempfile pathlib concurrent logging rich json ml_dtypes".split()
    )
    assert "tracegrad" in found
    assert not found & late
    packages = {".".join(name.split(".")[:2]) for name in shown.stdout.split()}
    assert not packages & {
        "tracegrad.nn",
        "tracegrad.optim",
        "tracegrad.utils",
        "tracegrad.runtime",
    }


def test_names_imported_later_are_all_there() -> None:
    """In a process of its own: here other tests have asked for them already."""
    code = """
import tracegrad as tg
names = dir(tg)
assert {"nn", "optim", "compile", "load", "cond"} <= set(names)
for name in names:
    getattr(tg, name)
from tracegrad import compile, nn
assert nn.Linear is tg.nn.Linear and compile is tg.compile
try:
    tg.no_such_name
except AttributeError as error:
    print(str(error).splitlines()[0])
"""
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert shown.stdout == "tracegrad has no 'no_such_name'\n"
