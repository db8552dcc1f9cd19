"""Samples to batches: stack tensors, arrays and numbers, through nested dicts, lists and tuples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import tracegrad as tg
from tracegrad.errors import DataLoaderError
from tracegrad.tracer import Tensor


def default_collate(batch: Sequence[Any]) -> Any:
    """One batch of a list of equally structured samples, as PyTorch's function of that name.

    Floats become a float64 tensor and ints an int64 one; strings and bytes stay a list.
    Raises DataLoaderError for samples that cannot be put together.
    """
    first = batch[0]
    if isinstance(first, Tensor):
        shapes = {tuple(sample.shape) for sample in batch}
        if len(shapes) > 1:
            raise DataLoaderError(
                f"stack expects each tensor to be equal size, but a batch has {sorted(shapes)}",
                fix="give all samples one shape, or pass collate_fn= to pad them",
            )
        return tg.stack(list(batch))
    if isinstance(first, np.ndarray):
        if first.dtype.kind in "SUO":
            raise _cannot(first)
        return default_collate([tg.from_numpy(np.ascontiguousarray(sample)) for sample in batch])
    if isinstance(first, np.generic):
        return tg.from_numpy(np.stack([np.asarray(sample) for sample in batch]))
    if isinstance(first, bool):
        return tg.tensor(list(batch))
    if isinstance(first, float):
        return tg.tensor(list(batch), dtype=tg.float64)
    if isinstance(first, int):
        return tg.tensor(list(batch))
    if isinstance(first, str | bytes):
        return list(batch)
    if isinstance(first, Mapping):
        collated = {key: default_collate([sample[key] for sample in batch]) for key in first}
        try:
            return type(first)(collated)  # type: ignore[call-arg]
        except TypeError:  # a mapping without that constructor
            return collated
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*(default_collate(column) for column in zip(*batch)))
    if isinstance(first, Sequence):
        if any(len(sample) != len(first) for sample in batch):
            raise DataLoaderError(
                "each element in list of batch should be of equal size, but a batch has lengths "
                f"{sorted({len(sample) for sample in batch})}",
                fix="return samples of one structure, or pass collate_fn=",
            )
        columns = [default_collate(column) for column in zip(*batch)]
        if isinstance(first, tuple):
            return columns  # as PyTorch: a batch of tuples is a list
        try:
            return type(first)(columns)  # type: ignore[call-arg]
        except TypeError:  # a sequence without that constructor (a range)
            return columns
    raise _cannot(first)


def default_convert(data: Any) -> Any:
    """Arrays to tensors, through nested containers; what a DataLoader with batch_size=None does."""
    if isinstance(data, np.ndarray) and data.dtype.kind not in "SUO":
        return tg.from_numpy(np.ascontiguousarray(data))
    if isinstance(data, Mapping):
        return type(data)({k: default_convert(v) for k, v in data.items()})  # type: ignore[call-arg]
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*map(default_convert, data))
    if isinstance(data, tuple):
        return [default_convert(item) for item in data]
    if isinstance(data, list):
        return [default_convert(item) for item in data]
    return data


def _cannot(sample: Any) -> DataLoaderError:
    kind = f"array of dtype {sample.dtype}" if isinstance(sample, np.ndarray) else type(sample)
    return DataLoaderError(
        "default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; "
        f"found {kind}",
        fix="return one of those from __getitem__, or pass collate_fn=",
    )
