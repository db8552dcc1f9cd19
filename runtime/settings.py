"""What a function is compiled with, whatever the backend."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """The options of `tracegrad.compile`, which explains them; those of the backend are apart."""

    backend: str = "auto"
    fullgraph: bool = False
    keep_grads: bool | str = "auto"
    recheck: int | None = None
    max_paths: int = 8
    max_unroll: int = 10_000
    name: str = ""
