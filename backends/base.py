"""What every backend shares: its errors, its options, what it offers, and what its `compile` returns."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from tracegrad.ir.errors import TracegradError
from tracegrad.ir.loc import UNKNOWN, Loc

if TYPE_CHECKING:
    from tracegrad.ir.graph import Graph


class BackendError(TracegradError, RuntimeError):
    """A compiled or interpreted program failed. Says which op, at which line of the user's code.

    `op` is the name of the op, `loc` where the user wrote it (None while a kernel, which knows no
    lines, is still running; the interpreter fills it in with `located`).
    """

    code = "TG030"  # see docs/errors.md
    fix = ""  # advice that is right for every error of the class
    names_op = True

    def __init__(self, message: str, op: str = "", loc: Loc | None = None):
        super().__init__(message)
        self.message = message
        self.op = op
        self.loc = loc

    def located(self, op: str, loc: Loc) -> BackendError:
        """The same error, naming the op and the user's line."""
        return type(self)(self.message, self.op or op, loc)

    def __str__(self) -> str:
        named = self.names_op and self.op not in ("", "check")
        text = f"{self.op}: {self.message}" if named else self.message
        if self.loc is not None and self.loc is not UNKNOWN:
            text += f"\n  where: {self.loc}"
        if self.fix:
            text += f"\n  fix:   {self.fix}"
        return f"{text}  [{self.code}]"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.op, self.loc)


class KernelError(BackendError):
    """A kernel stopped for its own reason (no memory, a bad argument); the cause is chained."""

    unexpected = True


class IndexOutOfRange(BackendError, IndexError):
    """gather, scatter, take_along or scatter_along was given an index outside its axis."""

    code = "TG031"
    fix = "print the smallest and the largest index and the sizes of the tensors on that line"
    names_op = False  # an embedding, a loss and x[i] are all a gather: the line says more


class DivisionByZero(BackendError, ZeroDivisionError):
    """An integer floor_div or rem, or a division of numbers read from tensors, had a zero divisor: as
    Python's numbers, they have no inf or nan to answer.
    """

    code = "TG032"
    fix = "test the divisor, or divide tensors of floats"


class LinAlgError(BackendError, np.linalg.LinAlgError):
    """A factorisation does not exist for this matrix (not positive definite, did not converge)."""

    code = "TG033"
    fix = "look at the matrix; adding a small multiple of the identity makes it regular"


class CheckFailed(BackendError):
    """A `check` node read False; the message is the node's."""

    code = "TG034"


class ValueOutOfRange(BackendError):
    """An operand holds a value that the op is not defined for."""

    code = "TG035"
    fix = "print the smallest and the largest value of the tensors on that line"


class TooManyTrips(BackendError):
    """The condition of a bounded loop still holds after its last trip."""

    code = "TG036"
    fix = "raise max_trips, or look at what the condition reads"


# What a `check` node raises, by its kind.
CHECKS: dict[str, type[BackendError]] = {
    "check": CheckFailed,
    "value": ValueOutOfRange,
    "linalg": LinAlgError,
    "division": DivisionByZero,
}


class UnsupportedOp(BackendError, NotImplementedError):
    """The op has neither a kernel nor a decomposition on this backend."""


@dataclass(frozen=True)
class Mesh:
    """Devices laid out as a grid with named axes: `Mesh.of(data=4, model=2)`."""

    axes: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, **sizes: int) -> Mesh:
        return cls(tuple(sizes.items()))

    @property
    def shape(self) -> dict[str, int]:
        return dict(self.axes)


@dataclass(frozen=True)
class Options:
    """How to compile; hashable, part of a cache key. Backends ignore what they do not have.

    donate      indices of inputs whose storage the executable may overwrite or return as an output
    threads     threads of the NumPy pool and BLAS; None: as many as there are cores
    fuse        run the fusion pass (NumPy)
    tile_bytes  working set of one tile of a fused group (NumPy)
    poison      fill every buffer with nan after its last read, to test the memory plan (NumPy)
    device      "cpu", "gpu", "gpu:1", ...; None: the backend's default (JAX)
    mesh        device mesh of `shard` annotations and of `input_specs`; excludes `device` (JAX)
    input_specs one per input: mesh axis name or None per array axis; None: replicated (JAX)
    cache_dir   folder of the persistent compilation cache; None: off (JAX)
    matmul_precision  "highest" (true float32), "high", "default": what accelerators may round (JAX)
    hazards     report indices out of range and integer divisions by zero at the next sync (JAX)
    """

    donate: tuple[int, ...] = ()
    threads: int | None = None
    fuse: bool = True
    tile_bytes: int = 256 * 1024
    poison: bool = False
    device: str | None = None
    mesh: Mesh | None = None
    input_specs: tuple[tuple[str | None, ...] | None, ...] = ()
    cache_dir: str | None = None
    matmul_precision: str = "highest"
    hazards: bool = True


DEFAULT_OPTIONS = Options()


@runtime_checkable
class Executable(Protocol):
    """A compiled graph: call it with one array per graph input, get one array per graph output.

    backend  "numpy" or "jax"
    source   what runs, as text a person can read (Python, or the backend's own IR)
    memory   the memory plan (a mapping or a plan object; None where the backend has none)
    history  (name, graph) after each pass of the backend's own, "numpy/fuse" say; made when asked for
    """

    backend: str

    @property
    def source(self) -> str: ...

    @property
    def memory(self) -> Any: ...

    @property
    def history(self) -> list[tuple[str, Graph]]: ...

    def __call__(self, arrays: list[Any]) -> list[Any]: ...

    def relabelled(self, graph: Any) -> Executable:
        """The executable of an equal graph from other lines: it shares the code, errors name its own."""
        ...


class Backend(Protocol):
    """What a backend's package offers; found by `backend_named`.

    SOURCE_FILE  what a dump calls the text that runs
    """

    SOURCE_FILE: str

    def compile(self, graph: Graph, options: Options = ...) -> Executable:
        """An executable for `graph`, which has been through `optimise`. Raises BackendError."""
        ...

    def claimed(self) -> frozenset[str]:
        """Names of the composite ops that it runs whole."""
        ...

    def own_array(self, array: np.ndarray[Any, Any]) -> Any:
        """A copy of `array` as what executables are called with most cheaply."""
        ...


def backend_named(name: str) -> Backend:
    """The backend "numpy" or "jax", imported when it is first asked for."""
    backend: Backend = importlib.import_module(f"tracegrad.backends.{name}")  # type: ignore[assignment]
    return backend
