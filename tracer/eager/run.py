"""Eager execution of a user-level op that has no hand-written fast path: look up the program, run,
wrap, record.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.ir.errors import IRTypeError, MissingVJPError
from tracegrad.ir.exact import exact
from tracegrad.ir.types import DType, TensorType, dtype_of
from tracegrad.tracer.creation.fitting import check_fits
from tracegrad.tracer.custom import Context, Function, leave_entry
from tracegrad.tracer.eager.program import CACHE_SIZE, LRU, Program, program_for
from tracegrad.tracer.errors import ShapeError
from tracegrad.tracer.locate import here
from tracegrad.tracer.operands import as_tensor_operand
from tracegrad.tracer.state import DEFAULT_DTYPE
from tracegrad.tracer.tape.entries import Entry, Part, weak_category
from tracegrad.tracer.tensor import Tensor, bare, wrap

_NUMBERS = {bool: "bool", int: "int", float: "float", complex: "complex"}
_programs = LRU(CACHE_SIZE)  # by shapes and NumPy dtypes, which are cheaper keys than types


def run_eager(op: Any, operands: tuple[Any, ...], attrs: tuple[Any, ...], grad: bool) -> Any:
    """One op on real tensors.

    Raises ShapeError when the operands do not fit, with the user's line.
    """
    if op.known is not None:
        numbers, known = op.known
        first, number = operands
        if (number.__class__ is int or number.__class__ is float) and number in numbers:
            return run_eager(known, (first,), (number,), grad)
    values: list[Any] = []
    key: list[Any] = [op]
    tracked = False
    for given in operands:
        if isinstance(given, Tensor):
            array = given._data
            values.append(array)
            key += (array.shape, array.dtype)
            if given._entry is not None:
                tracked = True
        elif given is None or given.__class__ in _NUMBERS:
            values.append(given)
            key.append(given.__class__)
        else:
            usual = tuple([o if is_usual(o) else operand(o, op) for o in operands])
            return run_eager(op, usual, attrs, grad)
    if op.eager_only and tracked and grad:
        return without_gradient(op, operands, run_eager_only(op, values, attrs))
    if op.eager_only:
        return run_eager_only(op, values, attrs)
    key.append(DEFAULT_DTYPE[0])
    if attrs and attrs is not getattr(op, "default_attrs", None):
        for value in attrs:  # most are an int, a name or None, which need no call
            kind = value.__class__
            key.append(value if kind is int or kind is str or value is None else exact(value))
    lookup_key = tuple(key)
    program = _programs[lookup_key]
    if program is None:
        program = _programs.add(lookup_key, find_program(op, attrs, values))
    if op.stores:
        check_stored(op, operands, program.types[0].dtype)
    if tracked and grad and program.differentiable:
        return record(program, operands, values)
    if program.single:
        result = bare(Tensor)
        result._data = program.run(values)[0]
        return result
    return op.pack(list(map(wrap, program.run(values))))


def check_stored(op: Any, operands: tuple[Any, ...], dtype: DType) -> None:
    """Raises InvalidValueError for a number that an op cannot store in its result."""
    for given in operands:
        if given.__class__ in _NUMBERS:
            check_fits(given, dtype, halves=op.stores == "exact")


def is_usual(value: Any) -> bool:
    return value is None or isinstance(value, Tensor) or value.__class__ in _NUMBERS


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
            f"{getattr(op, 'shown', op.name)}({shown}): {error}",
            where=here(),
            fix="check the shapes and dtypes of the operands",
        ) from None


def record(program: Program, operands: tuple[Any, ...], values: list[Any]) -> Any:
    """Run and leave a tape entry that keeps what the gradient program reads."""
    parents: list[Any] = []
    wanted: list[bool] = []
    for given in operands:
        if isinstance(given, Tensor):
            entry = given._entry
            wanted.append(entry is not None)
            parents.append(entry or given._const or given._constant())
        else:
            wanted.append(False)
            parents.append(given)
    plan = program.plan(tuple(wanted))
    results = plan.run(values)
    for k in plan.reads_in:
        if isinstance(operands[k], Tensor):
            parents[k].value = values[k]
    flags = plan.differentiable
    count = len(flags)
    if count == 1:
        out = results[0]
        result = bare(Tensor)
        result._data = out
        if flags[0]:
            result._entry = entry = Entry(program, tuple(parents), out.shape, out.dtype)
            if plan.vjp.saved:
                entry.saved = results[1:]
            if plan.reads_out:
                entry.value = out
        return result if program.single else program.op.pack([result])
    outputs = results[:count]
    whole = Entry(program, tuple(parents), (), outputs[0].dtype)
    whole.saved = results[count:]
    # Values that the gradient reads stand on the op's entry, one slot an output.
    whole.value = [out if k in plan.reads_out else None for k, out in enumerate(outputs)]
    tensors = []
    for k, out in enumerate(outputs):
        result = wrap(out)
        if flags[k]:
            result._entry = Part(whole, k, out.shape, out.dtype)
        tensors.append(result)
    return program.op.pack(tensors)


def run_eager_only(op: Any, values: list[Any], attrs: tuple) -> Any:
    result = op.emit(*values, **dict(zip(op._static_names, attrs)))
    if isinstance(result, np.ndarray):
        return wrap(result)
    return op.pack([wrap(r) if isinstance(r, np.ndarray) else r for r in result])


def without_gradient(op: Any, operands: tuple[Any, ...], results: Any) -> Any:
    """The results of an op on arrays, for a backward that arrives there to be refused."""
    context = Context(())
    context.name, context.why, context.where = op.shown, op.eager_only, here()  # type: ignore[attr-defined]
    tensors = [results] if isinstance(results, Tensor) else list(results)
    leave_entry(Refused, context, operands, tensors)
    return results


class Refused(Function):
    """The gradient of an op that runs on arrays alone."""

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        raise MissingVJPError(
            f"{ctx.name} at {ctx.where} has no gradient: {ctx.why}\n"
            "  fix:   to stop the gradient here call .detach() on its input; else compute this value "
            f"by differentiable operations  [{MissingVJPError.code}]"
        )
