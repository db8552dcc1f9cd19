"""Fresh Python processes that find this tracegrad."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import tracegrad

ROOT = str(Path(__file__).resolve().parents[2])


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start `python *arguments` with these variables added to the environment."""
    path = os.pathsep.join((str(Path(tracegrad.__file__).parents[1]), ROOT))
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """What the process printed; it must succeed within two minutes."""
    try:
        printed, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, printed
    return printed


def python(*arguments: str, **environment: str) -> str:
    return finish(start(*arguments, **environment))
