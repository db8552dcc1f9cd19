"""What a GPU gives against the NumPy kernels: every op sample, random bits, and a training step.

    python benchmarks/gpu_check.py [--device gpu] [--ops add,conv] [--steps 20]

Prints one line per disagreement and a summary; exits 1 when anything disagrees. `--device cpu` runs
the same checks without an accelerator. float32 products run in full float32
(Options.matmul_precision), so the tolerances are those of the CPU tests, times 10 for the different
order of summation and math library.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import numpy as np

import tracegrad.backends.jax as backend
from tests.agreement import assert_agree, narrowed
from tests.op_samples import SAMPLES
from tests.sampling import Sample
from tracegrad.backends.base import Options
from tracegrad.backends.numpy import interpret
from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, placeholder
from tracegrad.ir.types import TensorType, f32, u32

SCALE = 10.0
LINALG = {"cholesky", "triangular_solve", "qr", "eigh", "svd", "lu"}


Case = tuple[str, str, Sample]


def cases(names: set[str]) -> list[Case]:
    """Every sample as it is and, where it can be, in float32; the first of each op first."""
    found: list[tuple[int, Case]] = []
    for name, samples in SAMPLES.items():
        if names and name not in names:
            continue
        for index, sample in enumerate(samples):
            found.append((index, (name, f"{name}[{index} {sample.label}]", sample)))
            small = narrowed(sample, np.float32)
            if small is not None:
                found.append((index, (name, f"{name}[{index} {sample.label} as float32]", small)))
    return [case for _, case in sorted(found, key=lambda pair: pair[0])]


def judge(case: Case, options: Options) -> str:
    """What is wrong with this sample on the device; empty if nothing."""
    name, label, sample = case
    try:
        graph, arrays = sample.graph(name), sample.arrays()
        expected = interpret(graph, arrays)
        results = [backend.to_numpy(x) for x in backend.compile(graph, options)(arrays)]
        assert_agree(name, results, expected, SCALE * (50 if name in LINALG else 1))
    except Exception as error:
        text = "".join(traceback.format_exception_only(error))
        return f"{label}: {' '.join(text.split())[:300]}"
    return ""


def check_samples(options: Options, names: set[str], threads: int, seconds: float) -> list[str]:
    """Compile and compare in several threads until the time is up."""
    end = time.monotonic() + seconds
    chosen, wrong, left = cases(names), [], 0

    def in_time(case: Case) -> str | None:
        return judge(case, options) if time.monotonic() < end else None

    with ThreadPoolExecutor(threads) as pool:
        for verdict in pool.map(in_time, chosen):
            left += verdict is None
            if verdict:
                wrong.append(verdict)
                print("DIFFERS", verdict, flush=True)
    print(f"{len(chosen) - left} samples checked, {len(wrong)} differ, {left} not reached")
    return wrong


def check_random_bits(options: Options) -> list[str]:
    wrong = []
    for shape in ((), (7,), (3, 5), (1000, 1000)):
        key, number = placeholder(TensorType((2,), u32)), placeholder(TensorType((), u32))
        child = ops.fold_in(key, number)
        graph = Graph((key, number), (child, ops.random_bits(child, shape=shape)))
        arrays = [np.array([1, 2**31 + 5], np.uint32), np.array(77, np.uint32)]
        results = [backend.to_numpy(x) for x in backend.compile(graph, options)(arrays)]
        expected = interpret(graph, arrays)
        if not all(np.array_equal(a, b) for a, b in zip(results, expected)):
            wrong.append(f"random bits of shape {shape}")
            print("DIFFERS", wrong[-1])
    return wrong


def step_graph(batch: int, width: int) -> Graph:
    """SGD on a two-layer ReLU network with its backward written out; states w1, w2."""
    w1, w2 = (placeholder(TensorType(s, f32)) for s in ((width, width), (width, 1)))
    x, y = (placeholder(TensorType(s, f32)) for s in ((batch, width), (batch, 1)))
    hidden = ops.maximum(h := ops.matmul(x, w1), ops.zeros_like(h))
    error = ops.sub(ops.matmul(hidden, w2), y)
    loss = ops.sum_(ops.mul(error, error), axes=(0, 1))
    back = ops.matmul(error, ops.transpose(w2, perm=(1, 0)))
    back = ops.where(ops.lt(ops.zeros_like(h), h), back, ops.zeros_like(back))
    g1 = ops.matmul(ops.transpose(x, perm=(1, 0)), back)
    g2 = ops.matmul(ops.transpose(hidden, perm=(1, 0)), error)
    new1 = ops.sub(w1, ops.mul(g1, ops.splat(1e-6, g1.type)))
    new2 = ops.sub(w2, ops.mul(g2, ops.splat(1e-6, g2.type)))
    return Graph(
        (w1, w2, x, y),
        (new1, new2, loss),
        input_names=("w1", "w2", "x", "y"),
        input_roles=("state", "state", "argument", "argument"),
        output_roles=("state:w1", "state:w2", "result"),
    )


def check_step(options: Options, steps: int) -> list[str]:
    """Losses of a donated training step against NumPy, and the time of one step on the device."""
    batch, width = 512, 1024
    graph = step_graph(batch, width)
    rng = np.random.default_rng(0)
    start: list[Any] = [
        (rng.standard_normal(node.shape) * scale).astype(np.float32)
        for node, scale in zip(graph.inputs, (0.05, 0.05, 1.0, 1.0))
    ]
    executable = backend.compile(graph, replace(options, donate=(0, 1)))
    host, device = start, [backend.from_numpy(a, backend.device(options.device)) for a in start]
    wrong = []
    for step in range(3):
        *new, loss = interpret(graph, host)
        host = [*new, *host[2:]]
        *new, mine = executable(device, donate=True)
        device = [*new, *device[2:]]
        if not np.allclose(backend.to_numpy(mine), loss, rtol=1e-4):
            wrong.append(f"loss of step {step}: {backend.to_numpy(mine)} for {loss}")
            print("DIFFERS", wrong[-1])
    begun = time.perf_counter()
    for _ in range(steps):
        *new, mine = executable(device, donate=True)
        device = [*new, *device[2:]]
    mine.block_until_ready()
    seconds = (time.perf_counter() - begun) / steps
    print(f"step of a {batch}x{width} network: {seconds * 1e6:.0f} us on {mine.devices()}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="gpu")
    parser.add_argument("--ops", default="", help="comma-separated names; all by default")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=400, help="time for the samples")
    given = parser.parse_args()
    options = Options(device=given.device)
    print(f"jax {jax.__version__}, devices {jax.devices()}, numpy {np.__version__}")
    wrong = check_random_bits(options) + check_step(options, given.steps)
    print(f"random bits and step: {wrong or 'equal'}", flush=True)
    names = {name for name in given.ops.split(",") if name}
    wrong += check_samples(options, names, given.threads, given.seconds)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
