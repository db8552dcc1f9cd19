"""The Python blocks of the documentation run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = (
    "ir",
    "passes",
    "backends",
    "tracer",
    "runtime",
    "tracegrad",
    "docs",
    "examples",
    "benchmarks",
)
BLOCKS = {
    str(path.relative_to(ROOT)): blocks
    for path in (*ROOT.glob("*.md"), *(p for folder in FOLDERS for p in (ROOT / folder).rglob("*.md")))
    if (blocks := re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL))
}  # fmt: skip
SHOWN = {"README.md": ["matmul", "recording 0: the first call"], "ir/README.md": ["tanh"]}


@pytest.mark.parametrize("name", BLOCKS)
def test_the_blocks_run(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for block in BLOCKS[name]:
        exec(compile(block, str(ROOT / name), "exec"), {"__name__": "readme"})
    printed = capsys.readouterr().out
    assert all(text in printed for text in SHOWN[name])


def test_every_document_with_a_block_is_here() -> None:
    assert BLOCKS.keys() == SHOWN.keys()
