"""Eager execution of a user-level op that has no hand-written fast path: look up the program, run, wrap, record."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.types import TensorType, dtype_of
from tracegrad.tracer.errors import ShapeError
from tracegrad.tracer.locate import here
from tracegrad.tracer.program import Program, program_for
from tracegrad.tracer.tape import Entry, Part, weak_category
from tracegrad.tracer.tensor import Tensor, as_tensor_operand, wrap

_dtypes: dict[np.dtype, Any] = {}
_NUMBERS = (bool, int, float, complex)


def run_eager(op: Any, operands: tuple[Any, ...], attrs: tuple[Any, ...], grad: bool) -> Any:
    """One op on real tensors. Raises ShapeError when the operands do not fit, with the user's line."""
    tensors: list[Any] = []
    values: list[Any] = []
    specs: list[Any] = []
    tracked = False
    for operand in operands:
        if operand is None:
            values.append(None)
            specs.append(None)
            tensors.append(None)
            continue
        if not isinstance(operand, Tensor):
            if isinstance(operand, _NUMBERS):
                values.append(operand)
                specs.append(weak_category(operand))
                tensors.append(None)
                continue
            operand = as_tensor_operand(operand, op.name)
            if operand.__class__ is float or isinstance(operand, _NUMBERS):
                values.append(operand)
                specs.append(weak_category(operand))
                tensors.append(None)
                continue
        array = operand._data
        values.append(array)
        dtype = _dtypes.get(array.dtype)
        if dtype is None:
            dtype = _dtypes[array.dtype] = dtype_of(array.dtype)
        specs.append(TensorType(array.shape, dtype))
        tensors.append(operand)
        if operand._entry is not None:
            tracked = True
    if op.eager_only:
        return run_eager_only(op, values, attrs)
    program = lookup(op, attrs, tuple(specs))
    arrays = program.arrays(values)
    if not (tracked and grad and program.differentiable):
        return op.pack([wrap(array) for array in program.run(arrays)])
    return record(program, tensors, values, arrays)


def lookup(op: Any, attrs: tuple, specs: tuple) -> Program:
    try:
        return program_for(op, attrs, specs)
    except IRTypeError as error:
        shown = ", ".join(str(s) for s in specs if s is not None)
        raise ShapeError(
            f"{op.name}({shown}): {error}", where=here(), fix="check the shapes and dtypes of the operands"
        ) from None


def record(program: Program, tensors: list[Any], values: list[Any], arrays: list[np.ndarray]) -> Any:
    """Run and leave a tape entry that keeps what the gradient program reads."""
    wanted = tuple(t is not None and t._entry is not None for t in tensors)
    flags = tuple(t.dtype.is_inexact for t in program.types)
    vjp = program.vjp(wanted, flags)
    outputs, saved = program.run_recording(vjp, arrays)
    parents = tuple(
        (t._entry if t._entry is not None else t._constant()) if t is not None else v
        for t, v in zip(tensors, values)
    )
    reads = {*vjp.reads_in, *program.vjp(wanted, flags, save=False).reads_in} if vjp.saved else vjp.reads_in
    for k in reads:
        if tensors[k] is not None:
            parents[k].value = values[k]
    results = []
    if len(outputs) == 1:
        out = outputs[0]
        entry = Entry(program, parents, out.shape, out.dtype)
        entry.saved = saved
        if vjp.reads_out:
            entry.value = out
        result = wrap(out)
        if flags[0]:
            result._entry = entry
        results.append(result)
    else:
        whole = Entry(program, parents, (), outputs[0].dtype)
        whole.saved = saved
        for k, out in enumerate(outputs):
            result = wrap(out)
            if flags[k]:
                part = Part(whole, k, out.shape, out.dtype)
                result._entry = part
            results.append(result)
        # Values that the gradient reads stand on the op's entry, one slot an output.
        whole.value = [outputs[k] if k in vjp.reads_out else None for k in range(len(outputs))]
    return program.op.pack(results)


def run_eager_only(op: Any, values: list[Any], attrs: tuple) -> Any:
    result = op.emit(*values, **dict(zip(op._static_names, attrs)))
    if isinstance(result, np.ndarray):
        return wrap(result)
    return op.pack([wrap(r) if isinstance(r, np.ndarray) else r for r in result])


