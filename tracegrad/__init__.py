"""tracegrad: PyTorch-style deep learning whose training step becomes one compiled graph."""

from pathlib import Path as _Path

if (_Path(__file__).parent.parent / "pyproject.toml").exists():
    # A checkout: the stages stand at the repository's root, beside this folder (docs/decisions.md, "layout").
    __path__.append(str(_Path(__file__).parent.parent))
