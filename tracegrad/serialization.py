"""save and load: nested containers, numbers, strings and tensors, in a file that runs no code.

The file is a zip archive, stored uncompressed: `manifest.json` (format, version, structure) and
one raw little-endian buffer for each distinct tensor buffer. Tensors that share memory share it again
after loading (aliases of a whole buffer, contiguous parts of one; a strided view is a copy).
"""

from __future__ import annotations

import base64
import contextlib
import errno
import io
import json
import math
import os
import struct
import zlib
from collections import Counter, OrderedDict, defaultdict
from typing import IO, TYPE_CHECKING, Any

import numpy as np

import tracegrad as tg
from tracegrad.errors import (
    ArgumentError,
    CorruptFileError,
    MissingFileError,
    SerializationError,
    UnreadableFileError,
    WrongFileError,
)
from tracegrad.ir.types import DType, dtype_named, dtype_of
from tracegrad.nn.parameter import Buffer, Parameter
from tracegrad.tracer import Size, Tensor, no_grad

if TYPE_CHECKING:
    import zipfile  # at run time where it is used: importing it is slow

FORMAT = "tracegrad.save"
VERSION = 1
_MANIFEST = "manifest.json"
_KINDS: dict[str, type[Any]] = {"Tensor": Tensor, "Parameter": Parameter, "Buffer": Buffer}
# What zipfile raises for damaged headers: unknown compression, encryption, impossible offsets.
_DAMAGE = (EOFError, NotImplementedError, RuntimeError, OSError, struct.error, zlib.error)

PathLike = str | os.PathLike[str]


def save(obj: Any, f: PathLike | IO[bytes]) -> None:
    """Write `obj` to a path (atomically: a crash leaves the old file) or to an open binary file.

    `obj`: tensors, numbers, strings, bytes, None, dtypes, NumPy arrays, in dicts, lists, tuples,
    sets. Of a tensor with history (a loss) the values; it comes back as a leaf. Raises
    SerializationError, naming the place, for anything else.
    """
    _check_file(f, "write")
    writer = _Writer()
    with no_grad():
        root = writer.encode(obj, "obj")
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "buffers": [array.nbytes for array in writer.buffers],
        "root": root,
    }
    if hasattr(f, "write"):
        _write_archive(f, manifest, writer.buffers)
        return
    path = os.fsdecode(f)
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{os.urandom(8).hex()}")
    try:
        with open(temporary, "xb") as stream:
            _write_archive(stream, manifest, writer.buffers)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        if os.path.exists(temporary):
            os.unlink(temporary)
        if not isinstance(error, OSError):
            raise
        raise SerializationError(
            f"cannot write {path}: {error.strerror or error}",
            fix=f"give the path of a file; the folder {os.path.abspath(folder)} must exist, be writable and have room",
        ) from error


def _write_archive(stream: Any, manifest: dict[str, Any], buffers: list[np.ndarray]) -> None:
    import zipfile

    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        archive.writestr(_MANIFEST, json.dumps(manifest, allow_nan=False))
        for index, array in enumerate(buffers):
            with archive.open(f"data/{index}", "w", force_zip64=True) as entry:
                entry.write(array.reshape(-1).view(np.uint8).data)


class _Writer:
    """Turns objects into JSON and collects buffers."""

    def __init__(self) -> None:
        self.buffers: list[np.ndarray] = []
        self._places: list[tuple[int, int, int]] = []  # address, bytes, buffer number
        self._tensors: dict[int, int] = {}
        self._kept: list[Any] = []  # arrays whose addresses stand in _places stay alive
        self._open: set[int] = set()

    def encode(self, obj: Any, where: str) -> Any:
        """JSON for `obj`; `where` names it in errors."""
        if obj is None or isinstance(obj, bool | str):
            return str(obj) if isinstance(obj, str) else obj
        if isinstance(obj, DType):
            return {"t": "dtype", "v": obj.name}
        if isinstance(obj, np.generic):
            return self.encode_array(np.asarray(obj), "scalar")
        if isinstance(obj, int):
            return int(obj)
        if isinstance(obj, float):
            return obj if math.isfinite(obj) else {"t": "float", "v": repr(obj)}
        if isinstance(obj, complex):
            return {"t": "complex", "v": [repr(obj.real), repr(obj.imag)]}
        if isinstance(obj, bytes):
            return {"t": "bytes", "v": base64.b64encode(obj).decode()}
        if isinstance(obj, Tensor):
            return self.encode_tensor(obj)
        if isinstance(obj, np.ndarray):
            return self.encode_array(obj, "ndarray")
        return self.encode_container(obj, where)

    def encode_container(self, obj: Any, where: str) -> Any:
        """Dicts, lists, tuples and sets."""
        if id(obj) in self._open:
            raise SerializationError(
                f"cannot save {where}: it contains itself", fix="remove the reference cycle"
            )
        self._open.add(id(obj))
        try:
            kind = type(obj)
            if kind in (dict, OrderedDict, Counter, defaultdict):
                items = [
                    [self.encode(k, f"a key of {where}"), self.encode(v, f"{where}[{k!r}]")]
                    for k, v in obj.items()
                ]
                name = {OrderedDict: "OrderedDict", Counter: "Counter"}.get(kind, "dict")
                encoded = {"t": name, "v": items}
                metadata = getattr(obj, "_metadata", None)
                if metadata is not None:
                    encoded["metadata"] = self.encode(metadata, f"{where}._metadata")
                return encoded
            if kind in (list, tuple, set, frozenset, Size):
                values = [self.encode(v, f"{where}[{i}]") for i, v in enumerate(obj)]
                return {"t": kind.__name__, "v": values}
        finally:
            self._open.discard(id(obj))
        raise SerializationError(
            f"cannot save {where}: {_name(type(obj))} is not plain data",
            why="files hold data only, so that loading one never runs code",
            fix="save model.state_dict(), optimizer.state_dict(), vars(args) instead of the objects",
        )

    def encode_tensor(self, tensor: Tensor) -> Any:
        """A tensor, or a reference to one met before."""
        known = self._tensors.get(id(tensor))
        if known is not None:
            return {"t": "again", "v": known}
        self._tensors[id(tensor)] = len(self._tensors)
        self._kept.append(tensor)
        encoded = self.encode_array(tensor.detach().numpy(), "tensor")
        for kind in ("Parameter", "Buffer"):
            if isinstance(tensor, _KINDS[kind]):
                encoded["kind"] = kind
        if tensor.requires_grad:
            encoded["requires_grad"] = True
        return encoded

    def encode_array(self, array: np.ndarray, kind: str) -> dict[str, Any]:
        """Type, shape, and where in which buffer the values are."""
        try:
            dtype = dtype_of(array.dtype)
        except TypeError as error:
            raise SerializationError(f"cannot save an array: {error}") from error
        number, offset = self._buffer(array)
        return {
            "t": kind,
            "dtype": dtype.name,
            "shape": list(array.shape),
            "buffer": number,
            "offset": offset,
        }

    def _buffer(self, array: np.ndarray) -> tuple[int, int]:
        """(buffer number, byte offset) of an array's values."""
        whole = array
        while isinstance(whole.base, np.ndarray):
            whole = whole.base
        if not whole.flags.c_contiguous or not array.flags.c_contiguous:
            whole = array = np.ascontiguousarray(array)
        address = array.__array_interface__["data"][0]
        for start, size, number in self._places:
            if array.size and start <= address and address + array.nbytes <= start + size:
                return number, address - start
        start = whole.__array_interface__["data"][0]
        stored = whole.astype(whole.dtype.newbyteorder("<"), copy=False)
        self.buffers.append(np.ascontiguousarray(stored))
        self._kept.append(whole)
        self._places.append((start, whole.nbytes, len(self.buffers) - 1))
        return len(self.buffers) - 1, address - start


def _name(kind: type[Any]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def load(f: PathLike | IO[bytes], map_location: Any = None, weights_only: bool = True) -> Any:
    """Read what `save` wrote. Nothing in the file is executed, whatever `weights_only` says.

    `map_location`: a device, a dict of devices or a function; tensors are on the CPU in any case.
    Raises MissingFileError, UnreadableFileError (an OSError), WrongFileError (not a file of `save`)
    or CorruptFileError (damaged).
    """
    import zipfile

    _check_file(f, "read")
    # Everything was saved on the CPU, where the usual function leaves it.
    target = map_location.get("cpu") if isinstance(map_location, dict) else map_location
    if target is not None and not callable(target):
        tg.zeros((), device=target)  # raises the usual error for a device that is not there
    name = str(getattr(f, "name", "the stream")) if hasattr(f, "read") else os.fspath(f)
    try:
        with zipfile.ZipFile(f) as archive:
            manifest, buffers = _read_archive(archive, name)
    except zipfile.BadZipFile as error:
        raise _not_a_zip(f, name, error) from error
    except SerializationError:
        raise
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise _unreadable(name, error) from None
        raise CorruptFileError(
            f"{name} is damaged: {error}", fix="copy or save the file again"
        ) from error
    try:
        return _Reader(buffers).decode(manifest["root"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CorruptFileError(
            f"the structure in {name} does not make sense: {error!r}", fix="save the file again"
        ) from error


def _check_file(f: Any, use: str) -> None:
    if isinstance(f, io.TextIOBase):
        mode = {"read": "rb", "write": "wb"}[use]
        raise ArgumentError("the file is open as text", fix=f"open it with open(path, {mode!r})")
    if not isinstance(f, (str, bytes, os.PathLike)) and not hasattr(f, use):
        raise ArgumentError(
            f"the file is of type {type(f).__name__}, a path or an open binary file is needed",
            fix="tg.save(obj, path) and tg.load(path) take the path last",
        )


def _unreadable(name: str, error: Any) -> UnreadableFileError:
    if isinstance(error, FileNotFoundError):
        fix = f"look at the path, and at the folder that the program runs in: {os.getcwd()}"
        return MissingFileError(f"there is no file {name}", fix=fix)
    fix = "give the path of a file that may be read"
    return UnreadableFileError(f"cannot read {name}: {error.strerror or error}", fix=fix)


def _not_a_zip(f: Any, name: str, error: Exception) -> SerializationError:
    """Tell a damaged file of ours from one of another kind."""
    with contextlib.nullcontext(f) if hasattr(f, "read") else open(f, "rb") as stream:
        stream.seek(0)
        head = stream.read(4)
    if head[:2] == b"PK" or not head:
        return CorruptFileError(
            f"{name} is empty, damaged or cut short ({error})", fix="copy or save the file again"
        )
    return WrongFileError(
        f"{name} is not a file written by tracegrad.save (it starts with {head!r})",
        fix="load it with the library that wrote it, and save plain arrays with tracegrad.save",
    )


def _read_archive(archive: zipfile.ZipFile, name: str) -> tuple[dict[str, Any], list[bytearray]]:
    members = archive.namelist()
    if _MANIFEST not in members:
        if any(member.endswith("data.pkl") for member in members):
            raise WrongFileError(
                f"{name} is a PyTorch checkpoint",
                why="it holds a pickle, which can run code when it is read",
                fix="in PyTorch: numpy.savez(path, **{k: v.numpy() for k, v in state.items()}); "
                "here: model.load_state_dict({k: tg.from_numpy(v) for k, v in "
                "numpy.load(path).items()})",
            )
        raise WrongFileError(
            f"{name} is a zip archive, but not one that tracegrad.save wrote (it has no "
            f"{_MANIFEST})",
            fix="load it with the library that wrote it",
        )
    try:
        manifest = json.loads(archive.read(_MANIFEST))
        kind, version = manifest["format"], manifest["version"]
        sizes = manifest["buffers"]
        if kind != FORMAT:
            raise WrongFileError(f"{name} has format {kind!r}, not {FORMAT!r}")
        if version > VERSION:
            raise WrongFileError(
                f"{name} has format version {version}; this release reads up to {VERSION}",
                fix="update tracegrad",
            )
        buffers = []
        for index, size in enumerate(sizes):
            info = archive.getinfo(f"data/{index}")
            if info.file_size != size:
                raise CorruptFileError(
                    f"{name}: buffer {index} has {info.file_size} bytes, {size} expected",
                    fix="copy or save the file again",
                )
            values = bytearray(size)
            with archive.open(info) as entry:
                # readinto in pieces; the zip layer checks the CRC at the end.
                view, done = memoryview(values), 0
                while done < size:
                    count = entry.readinto(view[done:])  # type: ignore[attr-defined]
                    if not count:
                        break
                    done += count
                entry.read(1)
            buffers.append(values)
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFileError(
            f"{name} is damaged: {error!r}", fix="copy or save the file again"
        ) from error
    return manifest, buffers


class _Reader:
    """Turns JSON back into objects."""

    def __init__(self, buffers: list[bytearray]):
        self.buffers = buffers
        self._bases: dict[int, Tensor] = {}
        self._tensors: list[Tensor] = []

    def decode(self, encoded: Any) -> Any:
        """The object that `encoded` stands for."""
        if not isinstance(encoded, dict):
            return encoded
        kind: str = encoded["t"]
        value: Any = encoded.get("v")
        if kind in ("tensor", "ndarray", "scalar"):
            return self.decode_array(encoded)
        if kind == "again":
            return self._tensors[value]
        if kind in ("dict", "OrderedDict", "Counter"):
            pairs = {self.decode(key): self.decode(item) for key, item in value}
            result = {"dict": dict, "OrderedDict": OrderedDict, "Counter": Counter}[kind](pairs)
            if "metadata" in encoded:
                result._metadata = self.decode(encoded["metadata"])
            return result
        if kind in ("list", "tuple", "set", "frozenset", "Size"):
            made = {
                "list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "Size": Size,
            }[kind]  # fmt: skip
            return made([self.decode(item) for item in value])
        if kind == "float":
            return float(value)
        if kind == "complex":
            return complex(float(value[0]), float(value[1]))
        if kind == "bytes":
            return base64.b64decode(value)
        if kind == "dtype":
            return dtype_named(value)
        raise ValueError(f"unknown kind {kind!r}")

    def decode_array(self, encoded: dict[str, Any]) -> Any:
        """An array, NumPy scalar or tensor on (a part of) its buffer."""
        dtype, shape = dtype_named(encoded["dtype"]), tuple(encoded["shape"])
        number, offset = encoded["buffer"], encoded["offset"]
        count = math.prod(shape)
        flat = np.frombuffer(self.buffers[number], dtype.np, count, offset) if count else np.empty(
            0, dtype.np
        )  # fmt: skip
        if encoded["t"] != "tensor":
            array = flat.reshape(shape).copy()
            return array if encoded["t"] == "ndarray" else array[()]
        tensor = self._alias(number, flat, offset, shape)
        kind = _KINDS[encoded.get("kind", "Tensor")]
        if kind is not Tensor:
            tensor = kind(tensor)
        tensor.requires_grad = encoded.get("requires_grad", False)
        self._tensors.append(tensor)
        return tensor

    def _alias(self, number: int, flat: np.ndarray, offset: int, shape: tuple[int, ...]) -> Tensor:
        """A new tensor on buffer `number`; all tensors of one buffer share one storage."""
        if offset % flat.itemsize or len(self.buffers[number]) % flat.itemsize:
            # Bytes seen as another dtype: it begins, or its base ends, within an element.
            return tg.from_numpy(flat.copy()).reshape(shape)
        base = self._bases.get(number)
        if base is None or base.dtype != dtype_of(flat.dtype):
            whole = np.frombuffer(self.buffers[number], flat.dtype)
            base = self._bases[number] = tg.from_numpy(whole)
        if flat.size == 0:
            return tg.zeros(shape, dtype=base.dtype)
        start = offset // flat.itemsize
        part = base if flat.size == base.numel() else base[start : start + flat.size]
        return part.reshape(shape).detach()
