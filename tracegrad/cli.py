"""The `tracegrad` command: `demo` trains a small network, `doctor` describes the installation."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import tracegrad as tg
from tracegrad.demo import MODES, require
from tracegrad.errors import TracegradError

PACKAGES = (
    "numpy", "ml_dtypes", "networkx", "optree", "jax", "torch", "rich", "scikit-learn",
    "matplotlib",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0, 1 for a failed run, 2 for something missing."""
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except TracegradError as error:
        print(f"tracegrad {options.command}: {error}", file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="tracegrad", description=tg.__doc__.splitlines()[0])
    top.add_argument("--version", action="version", version=f"tracegrad {tg.__version__}")
    commands = top.add_subparsers(dest="command", required=True)

    demo = commands.add_parser(
        "demo",
        help="train a small CNN on 8 x 8 digits: eager, compiled for NumPy and JAX, and by PyTorch",
        epilog="example: tracegrad demo --backend numpy",
    )
    demo.add_argument(
        "--backend", action="append", choices=["all", *MODES],
        help="which modes to run beside eager; may be given several times (default: all)",
    )  # fmt: skip
    demo.add_argument("--epochs", type=_positive, default=12, help="passes over the data (12)")
    demo.add_argument("--seed", type=int, default=0, help="random seed (0)")
    demo.add_argument(
        "--output", type=Path, default=Path("demo-output"), help="folder to write (demo-output)"
    )
    demo.set_defaults(run=run_demo_command)

    doctor = commands.add_parser(
        "doctor", help="versions, backends and BLAS of this installation",
        epilog="example: tracegrad doctor --json",
    )  # fmt: skip
    doctor.add_argument("--json", action="store_true", help="machine-readable")
    doctor.set_defaults(run=run_doctor_command)
    return top


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def run_demo_command(options: argparse.Namespace) -> int:
    """`tracegrad demo`."""
    require("rich", "rich", "demo")
    from rich.console import Console

    from tracegrad.demo_report import run_demo

    asked = set(options.backend or ["all"])
    modes = [mode for mode in MODES if mode in asked or mode == "eager" or "all" in asked]
    return run_demo(modes, options.epochs, options.seed, options.output, Console())


def run_doctor_command(options: argparse.Namespace) -> int:
    """`tracegrad doctor`: exit code 1 if a backend that is installed does not work."""
    facts = examine()
    if options.json:
        print(json.dumps(facts, indent=1))
    else:
        for name, value in facts.items():
            if isinstance(value, dict):
                print(f"{name}:")
                for key, item in value.items():
                    print(f"  {key:<14} {item}")
            else:
                print(f"{name:<16} {value}")
    return 0 if all(not str(v).startswith("broken") for v in facts["backends"].values()) else 1


def examine() -> dict[str, Any]:
    """What `doctor` prints."""
    return {
        "tracegrad": tg.__version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "platform": platform.platform(),
        "cpus": _cpus(),
        "packages": {name: _version(name) for name in PACKAGES},
        "backends": {name: _backend(name) for name in ("numpy", "jax")},
        "blas": _blas(),
    }


def _cpus() -> int:
    import os

    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _backend(name: str) -> str:
    """Compile and run one small gradient step."""
    if name == "jax" and find_spec("jax") is None:
        return "not installed: pip install 'tracegrad[jax]'"
    try:
        weight = tg.ones(3, requires_grad=True)

        def slope() -> Any:
            return tg.autograd.grad((weight * weight).sum(), weight)[0]

        values = tg.compile(slope, backend=name)().tolist()
    except Exception as error:  # whatever is wrong is what this command is for
        return f"broken: {type(error).__name__}: {str(error).splitlines()[0]}"
    return "works" if values == [2.0, 2.0, 2.0] else f"broken: gave {values} for [2.0, 2.0, 2.0]"


def _blas() -> dict[str, str]:
    import numpy as np

    built: Any = np.show_config(mode="dicts")
    found = built.get("Build Dependencies", {}).get("blas", {})
    return {"name": str(found.get("name", "unknown")), "version": str(found.get("version", ""))}
