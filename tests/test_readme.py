"""The README's Python block runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest


def test_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    readme = Path(__file__).parent.parent / "README.md"
    blocks = re.findall(r"```python\n(.*?)```", readme.read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, str(readme), "exec"), {"__name__": "readme"})
    printed = capsys.readouterr().out
    assert "matmul" in printed and "recording 0: the first call" in printed
