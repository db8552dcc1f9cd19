"""Making tensors from Python and NumPy values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import reduce
from operator import index
from typing import Any

import numpy as np

from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.types import DType, bool_, c64, c128, dtype_of, i64
from tracegrad.tracer.creation.fitting import check_all_fit, check_fits, stored
from tracegrad.tracer.dtypes import as_dtype
from tracegrad.tracer.errors import (
    ArgumentError,
    DevicePlacementError,
    InvalidValueError,
    UnsupportedError,
)
from tracegrad.tracer.locate import here
from tracegrad.tracer.operands import check_bools
from tracegrad.tracer.state import get_default_dtype, get_mode
from tracegrad.tracer.tape.entries import Leaf
from tracegrad.tracer.tensor import Device, Tensor, wrap


def array_from(data: Any, dtype: DType | None) -> np.ndarray:
    """A fresh C-contiguous array: Python floats are of the default dtype, ints of int64."""
    dtype = as_dtype(dtype)
    if isinstance(data, (np.ndarray, np.generic)):
        refuse_unknown(data, "tensor()")
        if data.dtype.kind == "b":
            data = np.asarray(data).view(np.uint8) != 0  # every byte is 0 or 1 from here on
        return np.array(data, dtype=dtype.np if dtype else None, order="C")
    try:
        array = np.array(data)
    except ValueError as error:
        raise ArgumentError(
            f"cannot make a tensor of ragged data: {error}",
            where=here(),
            fix="give every row the same length",
        ) from None
    kind = array.dtype.kind
    if kind == "u" and dtype is None and is_python(data) or dtype is not None and dtype.is_int:
        check_all_fit(array, dtype or i64)
    if dtype is not None and kind in ("biufVc" if dtype.is_complex else "biufV"):
        return stored(array, dtype)
    if kind in "fiu":
        if not is_python(data):
            return array.astype(common_dtype(data).np)
        return stored(array, get_default_dtype()) if kind == "f" else array.astype(i64.np)
    if kind == "c" and dtype is None:
        return array.astype(default_complex().np)
    if kind == "b":
        return array.astype(bool_.np)
    raise ArgumentError(
        f"cannot make a tensor of {type(data).__name__} (NumPy reads it as {array.dtype})"
        + (f" in {dtype.public_name}" if dtype else ""), where=here(),
        fix="give numbers, nested lists of numbers, or a NumPy array of numbers",
    )  # fmt: skip


def default_complex() -> DType:
    """The dtype of complex numbers whose parts are of the default dtype."""
    return c64 if get_default_dtype().itemsize == 4 else c128


def is_python(data: Any) -> bool:
    """Whether the first number in nested sequences is a Python number (an empty list counts as
    one).
    """
    while isinstance(data, (list, tuple)):
        if not data:
            return True
        data = data[0]
    return not isinstance(data, (np.ndarray, np.generic))


def refuse_unknown(array: Any, function: str) -> None:
    """Raise ArgumentError for an array of a dtype that tensors do not have."""
    try:
        dtype_of(array.dtype)
    except IRTypeError:
        if array.dtype.kind in "biufc" and not array.dtype.isnative:
            fix = "swap its bytes: array.astype(array.dtype.newbyteorder('='))"
        elif array.dtype.kind in "biufc":
            fix = "convert it: array.astype(np.float32), say"
        else:
            fix = "give an array of numbers"
        raise ArgumentError(
            f"{function} of a NumPy array of dtype {array.dtype.str!r}, which no tensor has",
            where=here(), fix=fix,
        ) from None  # fmt: skip


def common_dtype(data: Any) -> DType:
    """What nested lists of NumPy's and Python's numbers promote to."""
    from tracegrad.tracer.functions.promotion import promote_types, weak_dtype

    found = set()
    for number in leaves_of(data):
        if isinstance(number, (np.generic, np.ndarray)):
            found.add(dtype_of(number.dtype))
        else:
            kinds = (("bool", bool), ("int", int), ("float", float))
            found.add(weak_dtype(next(name for name, kind in kinds if isinstance(number, kind))))
    return reduce(promote_types, found)


def leaves_of(data: Any) -> Iterator[Any]:
    if isinstance(data, (list, tuple)):
        for part in data:
            yield from leaves_of(part)
    else:
        yield data


def check_device(device: Any) -> None:
    if device is not None and Device(device).type != "cpu":
        raise DevicePlacementError(
            f"device {str(device)!r}: eager tensors live on the CPU", where=here(),
            fix='run on an accelerator by compiling: tg.compile(step, backend="jax")',
        )  # fmt: skip


def finish(tensor: Tensor, requires_grad: bool) -> Tensor:
    trace = get_mode().trace
    if trace is not None:
        tensor = trace.adopt(tensor)
    return tensor.requires_grad_() if requires_grad else tensor


def contains_tensors(data: Any) -> bool:
    if isinstance(data, (list, tuple)):
        return any(map(contains_tensors, data))
    return isinstance(data, Tensor) or hasattr(data, "_traced_number")


def tensor(
    data: Any, *, dtype: DType | None = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A new tensor holding a copy of `data` (numbers, nested lists, arrays).

    Python floats become float32.
    """
    check_device(device)
    if isinstance(data, Tensor):
        result = data.detach().clone()
        result = result.to(dtype) if dtype else result
        return result.requires_grad_() if requires_grad else result
    if contains_tensors(data):
        if get_mode().trace is not None:
            return stack_nested(data, dtype)
        dtype = dtype or dtype_of_parts(data)
        data = plain(data)
    return finish(wrap(array_from(data, dtype)), requires_grad)


def stack_nested(data: Any, dtype: DType | None) -> Tensor:
    """A list holding traced values, as a stack of them (so that they stay in the graph)."""
    from tracegrad.tracer import functions

    if isinstance(data, (list, tuple)):
        return functions.stack([stack_nested(item, dtype) for item in data])
    if hasattr(data, "_traced_number"):
        return data.as_tensor(dtype)
    result = data.detach() if isinstance(data, Tensor) else wrap(array_from(data, dtype))
    if isinstance(data, Tensor) and data.numel() == 1:
        result = result.reshape(())
    return result.to(dtype) if dtype else result


def dtype_of_parts(data: Any) -> DType:
    """The dtype that tensors and numbers in nested sequences promote to."""
    from tracegrad.tracer.functions.promotion import promote_types

    if isinstance(data, (list, tuple)):
        return reduce(promote_types, map(dtype_of_parts, data))
    return data.dtype if isinstance(data, Tensor) else dtype_of(array_from(data, None).dtype)


def plain(data: Any) -> Any:
    if isinstance(data, (list, tuple)):
        return [plain(item) for item in data]
    if isinstance(data, Tensor):
        return data.item() if data.numel() == 1 else data.tolist()
    return data


def as_tensor(data: Any, dtype: DType | None = None, device: Any = None) -> Tensor:
    """`data` as a tensor: itself if it is one of that dtype, sharing memory with a NumPy array."""
    check_device(device)
    if isinstance(data, Tensor):
        return data if dtype is None else data.to(dtype)
    if isinstance(data, np.ndarray) and (dtype is None or dtype.np == data.dtype):
        return from_numpy(data)
    return tensor(data, dtype=dtype)


asarray = as_tensor


def from_numpy(array: np.ndarray) -> Tensor:
    """A tensor on the array's own memory: writes are seen both ways."""
    if not isinstance(array, np.ndarray):
        raise ArgumentError(
            f"from_numpy() needs a NumPy array, got {type(array).__name__}",
            fix="use tg.tensor(values)",
        )
    refuse_unknown(array, "from_numpy()")
    check_bools(array, "from_numpy()")
    if any(stride < 0 for stride in array.strides):
        raise UnsupportedError(
            "from_numpy() of an array with negative strides",
            where=here(),
            fix="copy it first: array.copy()",
        )
    trace = get_mode().trace
    if trace is not None:
        result = trace.adopt(wrap(array))
        result._traced.cell.of_numpy = True
        return result
    result = wrap(array)
    from tracegrad.tracer.memory.storage import Storage

    result._storage = Storage(result)
    result._storage.export(array)  # an alias from the start
    return result


def rebuild_tensor(array: np.ndarray, requires_grad: bool, kind: type) -> Tensor:
    """For copy and multiprocessing: a tensor of class `kind`."""
    result: Tensor = object.__new__(kind)
    result._data = array
    if requires_grad:
        result._entry = Leaf(result)
    return result


def size_of(size: tuple[Any, ...]) -> tuple[int, ...]:
    if len(size) == 1 and isinstance(size[0], (tuple, list)):
        size = tuple(size[0])
    for s in size:
        if not hasattr(s, "__index__"):
            raise ArgumentError(
                f"a size is {s!r}, not an integer", fix="give the sizes as integers"
            )
    sizes = tuple(map(index, size))
    if sizes and min(sizes) < 0:
        raise InvalidValueError(
            f"a tensor of the sizes {list(sizes)}", fix="give sizes that are not negative"
        )
    return sizes


ZERO = 0.0  # the very object that `zeros` fills with: np.full is slower than np.zeros


def filled(
    shape: tuple[int, ...], value: Any, dtype: DType | None, device: Any, requires_grad: bool
) -> Tensor:
    check_device(device)
    dtype = as_dtype(dtype)
    if dtype is None:
        kinds = ((bool, bool_), ((int, np.integer), i64), (complex, default_complex()))
        dtype = next((d for kind, d in kinds if isinstance(value, kind)), get_default_dtype())
    if not isinstance(value, (bool, int, float, complex, np.generic, np.ndarray)):
        raise ArgumentError(f"the value is {value!r}, not a number", fix="give a number")
    if value is ZERO:
        return finish(wrap(np.zeros(shape, dtype.np)), requires_grad)
    check_fits(value, dtype, halves=math.prod(shape) != 1)  # PyTorch lets one element be inf
    array = np.empty(shape, dtype.np)
    array[...] = stored(value, dtype)
    return finish(wrap(array), requires_grad)


def zeros(
    *sizes: Any,
    size: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of zeros (float32 unless dtype says otherwise)."""
    return filled(size_of(sizes if size is None else (size,)), ZERO, dtype, device, requires_grad)


def ones(
    *sizes: Any,
    size: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of ones (float32 unless dtype says otherwise)."""
    return filled(size_of(sizes if size is None else (size,)), 1.0, dtype, device, requires_grad)


def empty(
    *sizes: Any,
    size: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor whose values mean nothing yet: zeros here, so that no run depends on old memory."""
    return filled(size_of(sizes if size is None else (size,)), ZERO, dtype, device, requires_grad)


def full(
    size: Any,
    fill_value: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of one value; its dtype follows the value's kind."""
    if isinstance(fill_value, Tensor):
        fill_value = fill_value.item()
    if hasattr(fill_value, "_traced_number"):
        check_device(device)
        dtype = as_dtype(dtype)
        number = fill_value.as_tensor(dtype)
        result: Tensor = number.expand(size_of((size,))).clone()
        return result.requires_grad_() if requires_grad else result
    return filled(size_of((size,)), fill_value, dtype, device, requires_grad)


def like(function: Any, value: float) -> Any:
    def made_like(
        input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
    ) -> Tensor:
        return filled(tuple(input.shape), value, dtype or input.dtype, device, requires_grad)

    made_like.__name__ = made_like.__qualname__ = f"{function.__name__}_like"
    made_like.__doc__ = f"`{function.__name__}` with the shape and dtype of `input`."
    return made_like


zeros_like, ones_like, empty_like = like(zeros, ZERO), like(ones, 1.0), like(empty, ZERO)


def full_like(
    input: Tensor,
    fill_value: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of one value with the shape and dtype of `input`."""
    return full(
        tuple(input.shape),
        fill_value,
        dtype=dtype or input.dtype,
        device=device,
        requires_grad=requires_grad,
    )


def new_method(function: Any) -> Any:
    def new(
        self: Tensor, *args: Any, dtype: Any = None, device: Any = None,
        requires_grad: bool = False, **named: Any,
    ) -> Tensor:  # fmt: skip
        return function(
            *args, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad, **named
        )

    new.__name__ = new.__qualname__ = f"new_{function.__name__}"
    new.__doc__ = f"`{function.__name__}` with this tensor's dtype unless given."
    return new


def eye(
    n: int,
    m: int | None = None,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """The identity matrix, n by m (n)."""
    check_device(device)
    rows, columns = size_of((n, n if m is None else m))
    return finish(
        wrap(np.eye(rows, columns, dtype=(dtype or get_default_dtype()).np)), requires_grad
    )


FUNCTIONS = {
    f.__name__: f
    for f in (
        tensor, as_tensor, from_numpy, zeros, ones, empty, full, zeros_like, ones_like, empty_like, full_like,
        eye,
    )
} | {"asarray": as_tensor}  # fmt: skip
NEW_METHODS = {f"new_{f.__name__}": new_method(f) for f in (zeros, ones, empty, full, tensor)}
