"""DataLoader: batches of a data set, in this process or prepared ahead by threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import tracegrad as tg
from tracegrad.errors import DataLoaderError
from tracegrad.tracer.errors import InvalidValueError
from tracegrad.utils.data.collate import default_collate, default_convert
from tracegrad.utils.data.dataset import Dataset, IterableDataset
from tracegrad.utils.data.sampler import BatchSampler, RandomSampler, SequentialSampler


def get_worker_info() -> None:
    """None: there are no worker processes (`num_workers` are threads of this one)."""
    return None


class DataLoader:
    """Iterates over a data set in batches, in PyTorch's order of arguments.

    `num_workers > 0` prepares batches ahead in that many threads, in order: useful where loading
    releases the interpreter lock (files, NumPy, images). `pin_memory`, `timeout`,
    `multiprocessing_context`, `worker_init_fn` and `persistent_workers` are accepted and have no
    effect.
    """

    def __init__(
        self, dataset: Dataset[Any], batch_size: int | None = 1, shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None, batch_sampler: Iterable[list[Any]] | None = None,
        num_workers: int = 0, collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False, drop_last: bool = False, timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None, multiprocessing_context: Any = None,
        generator: tg.Generator | None = None, *, prefetch_factor: int | None = None,
        persistent_workers: bool = False,
    ):  # fmt: skip
        if num_workers < 0:
            raise InvalidValueError(
                "num_workers option should be non-negative; use 0 to disable threads"
            )
        if prefetch_factor is not None and (num_workers == 0 or prefetch_factor < 1):
            raise InvalidValueError("prefetch_factor must be positive and needs num_workers > 0")
        self.dataset = dataset
        self.num_workers = num_workers
        self.prefetch_factor = 2 if prefetch_factor is None else prefetch_factor
        self.generator = generator
        self._iterable = isinstance(dataset, IterableDataset)
        if self._iterable:
            if shuffle or sampler is not None or batch_sampler is not None:
                raise InvalidValueError(
                    "DataLoader with IterableDataset: expected unspecified shuffle, sampler and "
                    "batch_sampler options; the data set decides its own order"
                )
            if num_workers:
                raise DataLoaderError(
                    "num_workers > 0 with an IterableDataset",
                    why="a stream cannot be divided between threads",
                    fix="use num_workers=0, or a Dataset with __getitem__",
                )
        if sampler is not None and shuffle:
            raise InvalidValueError("sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise InvalidValueError(
                    "batch_sampler option is mutually exclusive with batch_size, shuffle, "
                    "sampler, and drop_last"
                )
            batch_size = None
        elif batch_size is None and drop_last:
            raise InvalidValueError(
                "batch_size=None option disables auto-batching and is mutually exclusive with "
                "drop_last"
            )
        if sampler is None and not self._iterable:
            if shuffle:
                sampler = RandomSampler(dataset, generator=generator)  # type: ignore[arg-type]
            else:
                sampler = SequentialSampler(dataset)  # type: ignore[arg-type]
        if batch_size is not None and batch_sampler is None and sampler is not None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        if batch_size is not None and batch_size <= 0:
            raise InvalidValueError(
                f"batch_size should be a positive integer value, but got batch_size={batch_size}"
            )
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self._batched = batch_size is not None or batch_sampler is not None
        self._whole = collate_fn is None and hasattr(dataset, "fetch_batch")
        self.collate_fn = collate_fn or (default_collate if self._batched else default_convert)

    def __len__(self) -> int:
        if self._iterable:
            size = len(self.dataset)  # type: ignore[arg-type]
            if self.batch_size is None:
                return size
            whole, rest = divmod(size, self.batch_size)
            return whole + (1 if rest and not self.drop_last else 0)
        return len(self.batch_sampler if self._batched else self.sampler)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        if self._iterable:
            return self._stream()
        keys: Iterable[Any] = self.batch_sampler if self._batched else self.sampler  # type: ignore[assignment]
        if self.num_workers:
            return self._threaded(iter(keys))
        return map(self._load, keys)

    def _load(self, key: Any) -> Any:
        """The batch of a list of indices, or the sample of one index where batching is off."""
        if not self._batched:
            return self.collate_fn(self.dataset[key])
        if self._whole:
            return self.dataset.fetch_batch(key)  # type: ignore[attr-defined]
        return self.collate_fn([self.dataset[index] for index in key])

    def _threaded(self, keys: Iterator[Any]) -> Iterator[Any]:
        """Batches in order, `num_workers * prefetch_factor` of them under way."""
        from concurrent.futures import ThreadPoolExecutor

        pending: deque[Any] = deque()  # of futures
        with ThreadPoolExecutor(self.num_workers, "tracegrad-data") as pool:
            try:
                for key in keys:
                    pending.append(pool.submit(self._load, key))
                    if len(pending) >= self.num_workers * self.prefetch_factor:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()

    def _stream(self) -> Iterator[Any]:
        """Batches of an IterableDataset."""
        if not self._batched:
            yield from map(self.collate_fn, self.dataset)  # type: ignore[call-overload]
            return
        batch: list[Any] = []
        for sample in self.dataset:  # type: ignore[attr-defined]
            batch.append(sample)
            if len(batch) == self.batch_size:
                yield self.collate_fn(batch)
                batch = []
        if batch and not self.drop_last:
            yield self.collate_fn(batch)
