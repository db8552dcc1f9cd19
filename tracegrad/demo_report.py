"""What `tracegrad demo` shows: the progress bar, the table, the picture, the results file."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from tracegrad.demo import (
    DATA_FILE,
    TITLES,
    Result,
    available,
    measure,
    require,
    steps_of,
    write_digits,
)
from tracegrad.errors import SerializationError

WANTED_ACCURACY = 0.97
# Colour-blind safe (Okabe & Ito 2008).
COLOURS = {"eager": "#0072B2", "numpy": "#E69F00", "jax": "#009E73", "torch": "#CC79A7"}
# The losses of tracegrad's modes are equal: every line must show through the ones above it.
STYLES: dict[str, dict[str, Any]] = {
    "eager": {"linewidth": 4, "alpha": 0.5},
    "numpy": {"linestyle": "--"},
    "jax": {"linestyle": ":", "linewidth": 2},
    "torch": {},
}


def run_demo(modes: list[str], epochs: int, seed: int, folder: Path, console: Console) -> int:
    """Run the modes, print the table, write `folder`; the process's exit code.

    Raises MissingExtraError if scikit-learn or matplotlib is not installed, SerializationError if
    `folder` cannot be made.
    """
    require("matplotlib", "matplotlib", "demo")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SerializationError(
            f"cannot write into {folder}: {error.strerror}",
            fix="give another folder: --output FOLDER",
        ) from error
    write_digits(folder, seed)
    total = steps_of(epochs, folder)
    missing = [mode for mode in modes if not available(mode)]
    results = []
    with Progress(
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeElapsedColumn(),
        console=console,
    ) as bar:
        for mode in modes:
            if mode not in missing:
                results.append(_measured(bar, mode, folder, epochs, seed, total))
    (folder / DATA_FILE).unlink()
    console.print(table_of(results, total))
    for mode in missing:
        hint = f"pip install '{_package(mode)}'"
        console.print(f"skipped: {TITLES[mode]} (not installed: {hint})", markup=False)
    for result in results:
        if result.failure:
            console.print(f"[red]failed: {TITLES[result.mode]}[/]: ", end="")
            console.print(result.failure, markup=False)
            console.print(f"        see {folder / (result.mode + '.log')}", markup=False)
    good = [result for result in results if not result.failure]
    write_results(good, folder)
    if good:
        draw(good, folder / "training.png")
    console.print(f"written to {folder}: {', '.join(sorted(p.name for p in folder.iterdir()))}")
    return 1 if len(good) < len(results) else 0


def _package(mode: str) -> str:
    return "tracegrad[jax]" if mode == "jax" else mode


def _measured(bar: Progress, mode: str, folder: Path, epochs: int, seed: int, total: int) -> Result:
    task = bar.add_task(TITLES[mode], total=total, loss="-")
    return measure(
        mode, folder, epochs, seed,
        lambda step, loss: bar.update(task, completed=step + 1, loss=f"{loss:.3f}"),
    )  # fmt: skip


def table_of(results: list[Result], total: int) -> Table:
    """One row for each mode that ran."""
    title = f"8 x 8 digits, a small CNN, {total} steps"
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("mode", no_wrap=True)
    for name in (
        "compile\ns", "ms a\nstep", "speed-up\nvs eager", "break-even\nstep", "final\nloss",
        "test\naccuracy", "peak\nMiB",
    ):  # fmt: skip
        table.add_column(name, justify="right", no_wrap=True)
    baseline = next((r for r in results if r.mode == "eager" and not r.failure), None)
    for result in results:
        if result.failure:
            table.add_row(TITLES[result.mode], *["failed"] + [""] * 6)
            continue
        table.add_row(
            TITLES[result.mode],
            f"{result.compile_s:.2f}" if result.compiles else "-",
            f"{result.step_ms:.2f}",
            "-" if baseline is None else f"{baseline.step_ms / result.step_ms:.2f} x",
            _break_even(result, baseline),
            f"{_final_loss(result):.4f}",
            _accuracy(result),
            f"{result.peak_mib:.0f}",
        )
    return table


def _break_even(result: Result, baseline: Result | None) -> str:
    if baseline is None or result is baseline:
        return "-"
    step = result.break_even(baseline)
    if step == math.inf:
        return "never"
    return str(step) if step <= len(result.seconds) else f"about {step}"


def _final_loss(result: Result) -> float:
    """Mean loss of the last ten steps: single batches are noisy."""
    last = result.losses[-10:]
    return sum(last) / len(last)


def _accuracy(result: Result) -> str:
    colour = "green" if result.accuracy >= WANTED_ACCURACY else "red"
    return f"[{colour}]{result.accuracy:.2%}[/]"


def write_results(results: list[Result], folder: Path) -> None:
    """results.json: everything measured."""
    content: list[dict[str, Any]] = [
        {**asdict(r), "step_ms": r.step_ms, "compile_s": r.compile_s} for r in results
    ]
    (folder / "results.json").write_text(json.dumps(content, indent=1), encoding="utf-8")


def draw(results: list[Result], path: Path) -> None:
    """A picture: loss by step, and time by step with the first call included."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for result in results:
        style = {
            "color": COLOURS[result.mode], "label": TITLES[result.mode], **STYLES[result.mode],
        }  # fmt: skip
        left.plot(_smooth(result.losses), **style)
        elapsed, total = [], 0.0
        for seconds in result.seconds:
            total += seconds
            elapsed.append(total)
        right.plot(elapsed, **style)
    left.set(title="Training loss (mean of 10 steps)", xlabel="step", yscale="log")
    right.set(title="Time, compiling included", xlabel="step", ylabel="seconds")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    left.legend(frameon=False)
    figure.savefig(path, dpi=140)


def _smooth(values: list[float], width: int = 10) -> list[float]:
    """Means of the last `width` values."""
    return [
        sum(values[max(0, i - width + 1) : i + 1]) / min(i + 1, width) for i in range(len(values))
    ]
