"""Compare implementations in one interleaved run: each in its own process, blocks of calls in turn.

A benchmark file registers implementations and calls `main`:

    bench = Bench("mlp", cases=["b64", "b512"], baseline="torch")

    @bench.implementation("torch")
    def torch_step(case):        # set-up; returns a blocking zero-argument step
        ...

    if __name__ == "__main__":
        bench.main()

Reported: the median of the block medians, and the ratio to the baseline as the median of the per-
round ratios with their range. A step may have an attribute `inner`: how many units one call does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any


class Skip(Exception):
    """Raised by an implementation that cannot run here; the message says why."""


class Bench:
    """Named implementations of one workload."""

    def __init__(
        self,
        name: str,
        cases: list[str],
        baseline: str,
        unit: str = "ms",
        seconds: float = 0.5,
        rounds: int = 5,
    ):
        self.name, self.cases, self.baseline, self.unit = name, cases, baseline, unit
        self.seconds, self.rounds = seconds, rounds
        self.implementations: dict[str, Callable[[str], Callable[[], Any]]] = {}

    def implementation(self, name: str) -> Callable[[Any], Any]:
        def register(setup: Any) -> Any:
            self.implementations[name] = setup
            return setup

        return register

    def main(self) -> None:
        parser = argparse.ArgumentParser(description=self.name)
        parser.add_argument("--only", help="comma-separated implementations")
        parser.add_argument("--case", help="one case")
        parser.add_argument("--rounds", type=int, default=self.rounds)
        parser.add_argument("--seconds", type=float, default=self.seconds)
        parser.add_argument("--json", help="write results to this file")
        parser.add_argument("--worker", help=argparse.SUPPRESS)
        options = parser.parse_args()
        if options.worker:
            work(self.implementations[options.worker], options.case)
            return
        names = options.only.split(",") if options.only else list(self.implementations)
        results = []
        for case in [options.case] if options.case else self.cases:
            results.append(self.compare(case, names, options.rounds, options.seconds))
        if options.json:
            with open(options.json, "w") as file:
                json.dump({"machine": machine(), "results": results}, file, indent=1)

    def compare(self, case: str, names: list[str], rounds: int, seconds: float) -> dict[str, Any]:
        workers = {}
        for name in names:
            process = subprocess.Popen(
                [sys.executable, sys.argv[0], "--worker", name, "--case", case],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            ready = json.loads(process.stdout.readline() or '{"skip": "died"}')  # type: ignore[union-attr]
            if "skip" in ready:
                print(f"  {name}: skipped: {ready['skip']}")
                process.wait()
            else:
                workers[name] = process
        blocks: dict[str, list[float]] = {name: [] for name in workers}
        for _ in range(rounds):
            for name, process in workers.items():
                print(seconds, file=process.stdin, flush=True)
                blocks[name].append(json.loads(process.stdout.readline())["median"])  # type: ignore[union-attr]
        for process in workers.values():
            process.stdin.close()  # type: ignore[union-attr]
            process.wait()
        scale = {"s": 1, "ms": 1e3, "us": 1e6}[self.unit]
        base = blocks.get(self.baseline)
        print(f"{self.name} / {case} ({self.unit}; ratio to {self.baseline})")
        rows = {}
        for name, times in blocks.items():
            row = {"median": statistics.median(times), "times": times}
            text = f"  {name:<18} {row['median'] * scale:10.3f}"
            if base:
                ratios = [a / b for a, b in zip(times, base)]
                row["ratio"] = statistics.median(ratios)
                text += f"   {row['ratio']:.2f} [{min(ratios):.2f}..{max(ratios):.2f}]"
            print(text, flush=True)
            rows[name] = row
        return {"workload": self.name, "case": case, "rows": rows}


def work(setup: Callable[[str], Callable[[], Any]], case: str) -> None:
    """A worker process: set up, warm up, then time a block for every line on standard input."""
    protocol = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a framework prints must not mix with the protocol
    try:
        step = setup(case)
    except Skip as skip:
        print(json.dumps({"skip": str(skip)}), file=protocol)
        return
    for _ in range(3):
        step()
    print(json.dumps({"ready": True}), file=protocol)
    inner = getattr(step, "inner", 1)
    for line in sys.stdin:
        seconds = float(line)
        step()
        times = []
        end = time.perf_counter() + seconds
        while len(times) < 3 or time.perf_counter() < end:
            started = time.perf_counter()
            step()
            times.append((time.perf_counter() - started) / inner)
        print(json.dumps({"median": statistics.median(times)}), file=protocol)


def machine() -> dict[str, Any]:
    """What a figure depends on besides the code."""
    import numpy

    return {
        "processor": platform.processor() or platform.machine(), "cores": os.cpu_count(),
        "python": platform.python_version(), "numpy": numpy.__version__,
        "OPENBLAS_CORETYPE": os.environ.get("OPENBLAS_CORETYPE", "unset"),
    }  # fmt: skip
