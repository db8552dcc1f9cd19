"""Eager execution of a user-level op that has no hand-written fast path: look up the program, run,
wrap, record.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.types import TensorType, dtype_of
from tracegrad.tracer.errors import ShapeError
from tracegrad.tracer.locate import here
from tracegrad.tracer.program import CACHE_SIZE, LRU, Program, program_for
from tracegrad.tracer.tape import Entry, Part, weak_category
from tracegrad.tracer.tensor import Tensor, as_tensor_operand, wrap

_NUMBERS = {bool: "bool", int: "int", float: "float", complex: "complex"}
_programs: LRU = LRU(CACHE_SIZE)  # by shapes and NumPy dtypes, which are cheaper keys than types


def run_eager(op: Any, operands: tuple[Any, ...], attrs: tuple[Any, ...], grad: bool) -> Any:
    """One op on real tensors.

    Raises ShapeError when the operands do not fit, with the user's line.
    """
    values: list[Any] = []
    key: list[Any] = [op, attrs]
    tracked = False
    operands = tuple(
        [
            o if o is None or isinstance(o, Tensor) or o.__class__ in _NUMBERS else operand(o, op)
            for o in operands
        ]
    )
    for given in operands:
        if isinstance(given, Tensor):
            array = given._data
            values.append(array)
            key.append(array.shape)
            key.append(array.dtype)
            if given._entry is not None:
                tracked = True
        else:
            values.append(given)
            key.append(given.__class__)
    if op.eager_only:
        return run_eager_only(op, values, attrs)
    if attrs and attrs is not getattr(op, "default_attrs", None):
        key.append(tuple(map(type, attrs)))  # 1, 1.0 and True are equal, but different attributes
    lookup_key = tuple(key)
    program = _programs.get(lookup_key)
    if program is None:
        program = _programs.add(lookup_key, find_program(op, attrs, values))
    arrays = program.arrays(values) if program.has_numbers else values
    if not (tracked and grad and program.differentiable):
        return op.pack([wrap(array) for array in program.run(arrays)])
    return record(program, operands, values, arrays)


def operand(value: Any, op: Any) -> Any:
    """An operand that is neither a tensor nor a plain number."""
    if isinstance(value, tuple(_NUMBERS)):  # a subclass, an enum's member
        return next(kind for kind in _NUMBERS if isinstance(value, kind))(value)
    return as_tensor_operand(value, op.name)


def find_program(op: Any, attrs: tuple, values: list[Any]) -> Program:
    specs = tuple(
        TensorType(v.shape, dtype_of(v.dtype))
        if isinstance(v, np.ndarray)
        else None
        if v is None
        else weak_category(v)
        for v in values
    )
    try:
        return program_for(op, attrs, specs)
    except IRTypeError as error:
        shown = ", ".join(str(s) for s in specs if s is not None)
        raise ShapeError(
            f"{op.name}({shown}): {error}",
            where=here(),
            fix="check the shapes and dtypes of the operands",
        ) from None


def record(
    program: Program, operands: tuple[Any, ...], values: list[Any], arrays: list[np.ndarray]
) -> Any:
    """Run and leave a tape entry that keeps what the gradient program reads."""
    plan = program.plan(
        tuple(
            [
                o.__class__ not in _NUMBERS and o is not None and o._entry is not None
                for o in operands
            ]
        )
    )
    outputs, saved = program.run_recording(plan.vjp, arrays)
    parents = tuple([
        (o._entry or o._const or o._constant()) if isinstance(o, Tensor) else o for o in operands
    ])  # fmt: skip
    for k in plan.reads_in:
        if isinstance(operands[k], Tensor):
            parents[k].value = values[k]
    flags = plan.differentiable
    if len(outputs) == 1:
        out = outputs[0]
        entry = Entry(program, parents, out.shape, out.dtype)
        entry.saved = saved
        if plan.reads_out:
            entry.value = out
        result = wrap(out)
        if flags[0]:
            result._entry = entry
        return program.op.pack([result])
    whole = Entry(program, parents, (), outputs[0].dtype)
    whole.saved = saved
    # Values that the gradient reads stand on the op's entry, one slot an output.
    whole.value = [out if k in plan.reads_out else None for k, out in enumerate(outputs)]
    results = []
    for k, out in enumerate(outputs):
        result = wrap(out)
        if flags[k]:
            result._entry = Part(whole, k, out.shape, out.dtype)
        results.append(result)
    return program.op.pack(results)


def run_eager_only(op: Any, values: list[Any], attrs: tuple) -> Any:
    result = op.emit(*values, **dict(zip(op._static_names, attrs)))
    if isinstance(result, np.ndarray):
        return wrap(result)
    return op.pack([wrap(r) if isinstance(r, np.ndarray) else r for r in result])
