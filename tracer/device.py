"""Devices as users name them."""

from __future__ import annotations

from tracegrad.tracer.errors import InvalidValueError

NAMES = ("cpu", "cuda", "mps", "xpu", "meta", "xla", "hpu", "mtia", "ipu")


class Device:
    """Where a tensor lives, as users name it. Equal to its own name: `t.device == "cpu"`."""

    __slots__ = ("type", "index")

    def __init__(self, type: str, index: int | None = None):
        if isinstance(type, Device):
            type, index = type.type, type.index
        name, _, number = str(type).partition(":")
        if name not in NAMES:
            raise InvalidValueError(
                f"no device is called {name!r}", fix=f"use one of {', '.join(NAMES)}"
            )
        self.type = name
        self.index = int(number) if number else index

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            other = Device(other)
        return isinstance(other, Device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        index = "" if self.index is None else f", index={self.index}"
        return f"device(type={self.type!r}{index})"


CPU = Device("cpu")
