"""Data sets: something with `__getitem__` and `__len__`, or something to iterate over.

Note [Whole batches at once]
A data set that can build a whole collated batch from a list of indices has
`fetch_batch(indices)`: the DataLoader then indexes arrays once a batch instead of once a sample.
TensorDataset has it, and Subset passes it on.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, Generic, TypeVar

import numpy as np

import tracegrad as tg
from tracegrad.tracer import Tensor
from tracegrad.tracer.errors import InvalidValueError
from tracegrad.utils.data.seeds import generator_from

T = TypeVar("T")


class Dataset(Generic[T]):
    """Samples by index. Subclasses define `__getitem__` and usually `__len__`."""

    def __getitem__(self, index: Any) -> T:
        raise NotImplementedError("Subclasses of Dataset should implement __getitem__.")

    def __add__(self, other: Dataset[T]) -> ConcatDataset[T]:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T]):
    """Samples in a stream. Subclasses define `__iter__`."""

    def __iter__(self) -> Iterator[T]:
        raise NotImplementedError("Subclasses of IterableDataset should implement __iter__.")

    def __add__(self, other: Dataset[T]) -> Any:
        return ChainDataset([self, other])


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """Sample i is the tuple of row i of each tensor."""

    def __init__(self, *tensors: Tensor):
        if not tensors:
            raise InvalidValueError("TensorDataset needs at least one tensor")
        if any(t.shape[0] != tensors[0].shape[0] for t in tensors):
            raise InvalidValueError(
                "Size mismatch between tensors: their first dimensions are "
                f"{[t.shape[0] for t in tensors]}"
            )
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(tensor[index] for tensor in self.tensors)

    def __len__(self) -> int:
        return int(self.tensors[0].shape[0])

    def fetch_batch(self, indices: Sequence[int]) -> list[Tensor]:
        """The collated batch of these rows; see Note [Whole batches at once]."""
        rows = np.asarray(indices, dtype=np.int64)
        if all(not t.requires_grad for t in self.tensors):
            return [tg.from_numpy(np.take(t.numpy(), rows, axis=0)) for t in self.tensors]
        index = tg.from_numpy(rows)
        return [tensor[index] for tensor in self.tensors]


class StackDataset(Dataset[Any]):
    """Data sets side by side: sample i is the tuple (by keyword: the dict) of their samples i."""

    def __init__(self, *args: Dataset[Any], **kwargs: Dataset[Any]):
        if bool(args) == bool(kwargs):
            raise InvalidValueError("StackDataset takes either positional or keyword data sets")
        self.datasets: Any = kwargs or args
        members = list(kwargs.values() or args)
        self._length = len(members[0])  # type: ignore[arg-type]
        if any(len(member) != self._length for member in members):  # type: ignore[arg-type]
            raise InvalidValueError("Size mismatch between datasets")

    def __getitem__(self, index: Any) -> Any:
        if isinstance(self.datasets, dict):
            return {key: dataset[index] for key, dataset in self.datasets.items()}
        return tuple(dataset[index] for dataset in self.datasets)

    def __len__(self) -> int:
        return self._length


class ConcatDataset(Dataset[T]):
    """Data sets one after another."""

    def __init__(self, datasets: Iterable[Dataset[T]]):
        self.datasets = list(datasets)
        if not self.datasets:
            raise InvalidValueError("datasets should not be an empty iterable")
        if any(isinstance(d, IterableDataset) for d in self.datasets):
            raise InvalidValueError("ConcatDataset does not support IterableDataset")
        self.cumulative_sizes = list(accumulate(len(d) for d in self.datasets))  # type: ignore[arg-type]

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: int) -> T:
        size = len(self)
        if not -size <= index < size:
            raise IndexError(f"index {index} is out of range for {size} samples")
        index %= size
        member = bisect_right(self.cumulative_sizes, index)
        before = self.cumulative_sizes[member - 1] if member else 0
        return self.datasets[member][index - before]


class ChainDataset(IterableDataset[Any]):
    """Iterable data sets one after another."""

    def __init__(self, datasets: Iterable[Dataset[Any]]):
        self.datasets = list(datasets)

    def __iter__(self) -> Iterator[Any]:
        for dataset in self.datasets:
            yield from dataset  # type: ignore[misc]

    def __len__(self) -> int:
        return sum(map(len, self.datasets))  # type: ignore[arg-type]


class Subset(Dataset[T]):
    """The samples of `dataset` at `indices`."""

    def __init__(self, dataset: Dataset[T], indices: Sequence[int]):
        self.dataset = dataset
        self.indices = indices
        if hasattr(dataset, "fetch_batch"):
            self.fetch_batch = self._fetch_batch

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    def _fetch_batch(self, indices: Sequence[int]) -> Any:
        return self.dataset.fetch_batch([self.indices[i] for i in indices])  # type: ignore[attr-defined]

    def __len__(self) -> int:
        return len(self.indices)


def random_split(
    dataset: Dataset[T], lengths: Sequence[int | float], generator: tg.Generator | None = None
) -> list[Subset[T]]:
    """Disjoint random subsets of the given lengths, or fractions that sum to 1.

    Raises ValueError when the lengths do not add up to the size of `dataset`.
    """
    size = len(dataset)  # type: ignore[arg-type]
    sizes: list[Any] = list(lengths)
    if math.isclose(sum(sizes), 1) and sum(sizes) <= 1:
        if any(not 0 <= fraction <= 1 for fraction in sizes):
            raise InvalidValueError("fractions must lie between 0 and 1")
        sizes = [math.floor(size * fraction) for fraction in sizes]
        for index in range(size - sum(sizes)):
            sizes[index % len(sizes)] += 1
    if sum(sizes) != size:
        raise InvalidValueError(
            f"Sum of input lengths {sum(sizes)} does not equal the length of the input dataset "
            f"{size}"
        )
    order = generator_from(generator).permutation(size).tolist()
    ends = list(accumulate(int(n) for n in sizes))
    return [Subset(dataset, order[end - int(n) : end]) for end, n in zip(ends, sizes)]
