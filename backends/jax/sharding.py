"""Device meshes: from the IR's plain description to jax's objects."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from tracegrad.backends.base import BackendError, Mesh, Options
from tracegrad.ir.graph import Graph


def device_named(name: str) -> Any:
    """The device "cpu", "gpu:1", ... Raises BackendError where XLA has none such."""
    platform, _, index = name.partition(":")
    try:
        return jax.devices(platform)[int(index or 0)]
    except (RuntimeError, IndexError, ValueError) as error:
        found = ", ".join(f"{d.platform}:{d.id}" for d in jax.devices())
        raise BackendError(
            f"there is no device {name!r}; XLA sees {found}"
            "\n  fix:   leave device= out, or name one of these"
        ) from error


def jax_mesh(mesh: Mesh) -> Any:
    """The first devices laid out as `mesh`. Raises BackendError where there are too few."""
    sizes = tuple(mesh.shape.values())
    needed = int(np.prod(sizes))
    devices = jax.devices()
    if len(devices) < needed:
        raise BackendError(
            f"the mesh {dict(mesh.shape)} needs {needed} devices, XLA sees {len(devices)}"
            f"\n  fix:   make the mesh smaller; on CPU, XLA_FLAGS=--xla_force_host_platform_device_count={needed} "
            "in the environment makes virtual devices"
        )
    return jax.sharding.Mesh(np.array(devices[:needed]).reshape(sizes), tuple(mesh.shape))


def input_shardings(options: Options, mesh: Any, count: int) -> list[Any] | None:
    """One sharding for each of `count` inputs; None where options name no mesh or device."""
    if mesh is None:
        if options.device is None:
            return None
        return [jax.sharding.SingleDeviceSharding(device_named(options.device))] * count
    specs = options.input_specs or (None,) * count
    if len(specs) != count:
        raise BackendError(f"{len(specs)} input_specs for {count} inputs")
    return [jax.NamedSharding(mesh, jax.P(*(spec or ()))) for spec in specs]


def output_shardings(graph: Graph, of_inputs: list[Any] | None, mesh: Any, count: int) -> list[Any]:
    """New states lie as the states they replace, flags are replicated, the rest is XLA's choice."""
    shardings: list[Any] = [None] * len(graph.outputs)
    if of_inputs is not None:
        for position, source in graph.updates.items():
            shardings[position] = of_inputs[source]
    return shardings + [jax.NamedSharding(mesh, jax.P())] * (count - len(shardings))
