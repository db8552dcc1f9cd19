"""`tracegrad demo`: one training script, eager, compiled for NumPy and XLA, and by PyTorch.

`train` below is the whole script and is the same for both libraries: it gets the module it works
with, tracegrad or torch, as its first argument. Each mode runs in a process of its own (this
module, as `python -m`), so that imports, threads and peak memory of one do not colour another.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tracegrad.errors import MissingExtraError

MODES = ("eager", "numpy", "jax", "torch")
TITLES = {
    "eager": "eager",
    "numpy": "compiled, NumPy",
    "jax": "compiled, JAX",
    "torch": "eager PyTorch",
}
NEEDS = {"jax": "jax", "torch": "torch"}
BATCH = 64
WARM_UP = 3
DATA_FILE = "digits.npz"


@dataclass
class Result:
    """What one mode measured. `seconds` and `losses` have one entry for each step."""

    mode: str
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    accuracy: float = math.nan
    peak_mib: float = math.nan
    compiles: int = 0
    failure: str = ""

    @property
    def step_ms(self) -> float:
        """Median of a step, after the first few (which trace, compile and warm caches)."""
        return statistics.median(self.seconds[WARM_UP:] or self.seconds or [math.nan]) * 1e3

    @property
    def compile_s(self) -> float:
        """What the first steps took beyond usual ones: tracing and compiling."""
        first = self.seconds[:WARM_UP]
        return max(sum(first) - len(first) * self.step_ms / 1e3, 0.0)

    def break_even(self, baseline: Result) -> float:
        """The step from which on this mode has used less time in all than `baseline`.

        Measured if the run was long enough, else from compile time and time a step; inf for never.
        """
        mine = theirs = 0.0
        ahead_since = 0
        for number, (a, b) in enumerate(zip(self.seconds, baseline.seconds), 1):
            mine, theirs = mine + a, theirs + b
            if mine >= theirs:
                ahead_since = 0
            elif not ahead_since:
                ahead_since = number
        if ahead_since:
            return ahead_since
        gain = (baseline.step_ms - self.step_ms) / 1e3
        behind = sum(self.seconds) - sum(baseline.seconds)
        return len(self.seconds) + math.ceil(behind / gain) if gain > 0 else math.inf


# ---- the training script: tracegrad or torch ---------------------------------------------------


def build(lib: Any) -> Any:
    """A small convolutional network for 8 x 8 digits."""
    nn = lib.nn
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(512, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def train(
    lib: Any,
    data: dict[str, np.ndarray],
    epochs: int,
    seed: int,
    compiled: Callable[[Callable[..., Any]], Callable[..., Any]],
    report: Callable[[int, float, float], None],
) -> tuple[Any, float]:
    """Train on the digits; (the step function, accuracy on the test images).

    lib       tracegrad or torch: the script below uses the names that both have
    compiled  what is done to the step function: `tg.compile(..., backend=...)` or nothing
    report    called after each step with (step, loss, seconds)
    """
    lib.manual_seed(seed)
    x, y, test_x, test_y = (lib.from_numpy(data[name]) for name in ("x", "y", "test_x", "test_y"))
    model = build(lib)
    optimizer = lib.optim.Adam(model.parameters(), lr=3e-3)
    per_epoch = len(x) // BATCH
    schedule = lib.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs * per_epoch)

    def train_step(images: Any, labels: Any) -> Any:
        optimizer.zero_grad()
        loss = lib.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        schedule.step()
        return loss

    step = compiled(train_step)
    order = np.random.default_rng(seed)
    number = 0
    for _ in range(epochs):
        rows = order.permutation(len(x))
        for start in range(0, per_epoch * BATCH, BATCH):
            batch = lib.from_numpy(rows[start : start + BATCH])
            images, labels = x[batch], y[batch]
            begin = time.perf_counter()
            loss = step(images, labels).item()  # item() waits for the result
            report(number, loss, time.perf_counter() - begin)
            number += 1

    model.eval()
    with lib.no_grad():
        right = (model(test_x).argmax(1) == test_y).sum().item()
    return step, right / len(test_x)


# ---- one mode, in its own process ---------------------------------------------------------------


def run_mode(mode: str, folder: Path, epochs: int, seed: int) -> None:
    """Run one mode; prints one JSON line for each step and one for the end."""
    with np.load(folder / DATA_FILE) as archive:
        data = {name: archive[name] for name in archive.files}
    lib = import_module("torch" if mode == "torch" else "tracegrad")

    def compiled(step: Callable[..., Any]) -> Callable[..., Any]:
        if mode in ("eager", "torch"):
            return step
        result: Callable[..., Any] = lib.compile(step, backend=mode)
        return result

    def report(step: int, loss: float, seconds: float) -> None:
        print(json.dumps({"step": step, "loss": loss, "seconds": seconds}), flush=True)

    step, accuracy = train(lib, data, epochs, seed, compiled, report)
    # Before the dump: what it writes is no part of training.
    end: dict[str, Any] = {"accuracy": accuracy, "peak_mib": peak_mib(), "compiles": 0}
    if mode in ("numpy", "jax"):
        end["compiles"] = int(step.stats()["compiles"])
        step.dump(folder / f"graph-{mode}")
    print(json.dumps({"end": end}), flush=True)


def peak_mib() -> float:
    """Peak resident memory of this process in MiB."""
    try:
        # ru_maxrss of a child starts at its parent's value; the kernel's own mark does not.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


# ---- all modes ----------------------------------------------------------------------------------


def write_digits(folder: Path, seed: int) -> None:
    """scikit-learn's bundled digits, 8 x 8 in [0, 1]: 80 % to train on, the others to test."""
    require("sklearn", "scikit-learn", "demo")
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    images = (digits.images[order, None] / 16).astype(np.float32)
    labels = digits.target[order].astype(np.int64)
    cut = len(labels) * 4 // 5
    np.savez(
        folder / DATA_FILE,
        x=images[:cut], y=labels[:cut], test_x=images[cut:], test_y=labels[cut:],
    )  # fmt: skip


def require(module: str, package: str, extra: str) -> None:
    """Raise MissingExtraError, with the pip command, unless `module` can be imported."""
    if find_spec(module) is None:
        raise MissingExtraError(
            f"this command needs {package}, which is not installed",
            why=f"it is part of the optional extra {extra!r}",
            fix=f"pip install 'tracegrad[{extra}]'",
        )


def available(mode: str) -> bool:
    """Whether the library that a mode needs is installed."""
    return mode not in NEEDS or find_spec(NEEDS[mode]) is not None


def steps_of(epochs: int, folder: Path) -> int:
    """Training steps in all."""
    with np.load(folder / DATA_FILE) as archive:
        return epochs * (len(archive["y"]) // BATCH)


def measure(
    mode: str, folder: Path, epochs: int, seed: int, progress: Callable[[int, float], None]
) -> Result:
    """Run one mode in a process of its own; `progress(step, loss)` is called as it goes.

    A mode that fails gives a Result whose `failure` is the last line of its error.
    """
    package_parent = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, [package_parent, os.environ.get("PYTHONPATH")]))
    # Threads that wait must not spin: on a busy machine PyTorch took 600 ms a step instead of 40.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PYTHONPATH": path}
    arguments = [mode, str(folder), str(epochs), str(seed)]
    result = Result(mode)
    with open(folder / f"{mode}.log", "w+", encoding="utf-8") as log:
        with subprocess.Popen(
            [sys.executable, "-m", "tracegrad.demo", *arguments],
            stdout=subprocess.PIPE, stderr=log, text=True, env=environment,
        ) as child:  # fmt: skip
            assert child.stdout is not None
            ended = False
            for line in child.stdout:
                event = json.loads(line)
                if "end" in event:
                    ended = True
                    for name, value in event["end"].items():
                        setattr(result, name, value)
                else:
                    result.losses.append(event["loss"])
                    result.seconds.append(event["seconds"])
                    progress(event["step"], event["loss"])
        log.seek(0)
        lines = log.read().strip().splitlines()
    if not ended or child.returncode:
        result.failure = lines[-1] if lines else f"exit code {child.returncode}"
    else:
        os.remove(folder / f"{mode}.log")
    return result


if __name__ == "__main__":
    run_mode(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
