"""Sequences of different lengths: padded into one tensor, or packed for a recurrent layer.

A packed sequence is kept padded, with its lengths: so recurrent layers record one graph for all
lengths. What PyTorch keeps (`data`: all elements of step 0, of step 1, ..., longest sequence first,
and how many each step has) is made of that when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import tracegrad as tg
from tracegrad.names import public
from tracegrad.tracer import Tensor
from tracegrad.tracer.errors import ArgumentError, InvalidValueError
from tracegrad.tracer.observed import Record

__all__ = [
    "PackedSequence", "invert_permutation", "pack_padded_sequence", "pack_sequence",
    "pad_packed_sequence", "pad_sequence", "unpack_sequence", "unpad_sequence",
]  # fmt: skip


class PackedSequence(Record):
    """Sequences for a recurrent layer, as `pack_padded_sequence` makes them.

    Of `data` and `batch_sizes`, as in PyTorch; it unpacks into data, batch_sizes, sorted_indices and
    unsorted_indices.
    """

    def __init__(
        self, data: Tensor, batch_sizes: Tensor, sorted_indices: Tensor | None = None,
        unsorted_indices: Tensor | None = None,
    ):  # fmt: skip
        sizes = np.array(batch_sizes.tolist())
        if sizes.sum() != data.shape[0]:
            raise InvalidValueError(f"{data.shape[0]} elements, in steps of {sizes.tolist()}")
        starts = np.cumsum(sizes) - sizes
        row = np.arange(sizes[0])
        there = row < sizes[:, None]
        padded = data[tg.tensor(np.where(there, starts[:, None] + row, 0))]
        lengths = tg.tensor(there.sum(0))
        if sorted_indices is not None and unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        if unsorted_indices is not None:
            padded, lengths = padded[:, unsorted_indices], lengths[unsorted_indices]
        self._set(padded, lengths, sorted_indices)

    def _set(self, padded: Tensor, lengths: Tensor, order: Tensor | None) -> None:
        self.padded = padded  # [T, N, ...] in the order of the batch; nobody reads behind a length
        self.lengths = lengths  # int64 [N]
        self.sorted_indices = order

    def with_padded(self, padded: Tensor) -> PackedSequence:
        """Other elements for the same sequences."""
        return packed(padded, self.lengths, self.sorted_indices)

    @property
    def unsorted_indices(self) -> Tensor | None:
        return invert_permutation(self.sorted_indices)

    @property
    def data(self) -> Tensor:
        lengths = np.array(self.lengths.tolist())
        order = np.argsort(-lengths, kind="stable")
        if self.sorted_indices is not None:
            order = np.array(self.sorted_indices.tolist())
        step, row = np.nonzero(np.arange(lengths.max())[:, None] < lengths[order])
        return self.padded[tg.tensor(step), tg.tensor(order[row])]

    @property
    def batch_sizes(self) -> Tensor:
        lengths = np.array(self.lengths.tolist())
        return tg.tensor((np.arange(lengths.max())[:, None] < lengths).sum(1))

    def __iter__(self) -> Iterator[Any]:
        return iter((self.data, self.batch_sizes, self.sorted_indices, self.unsorted_indices))

    def __getitem__(self, index: Any) -> Any:
        return tuple(self)[index]

    def __len__(self) -> int:
        return 4

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """The elements as `Tensor.to` gives them."""
        return self.with_padded(self.padded.to(*args, **kwargs))

    def float(self) -> PackedSequence:
        """The elements as float32."""
        return self.to(tg.float32)

    def double(self) -> PackedSequence:
        """The elements as float64."""
        return self.to(tg.float64)

    def cpu(self) -> PackedSequence:
        """Itself: eager tensors live on the CPU."""
        return self

    @property
    def is_cuda(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "PackedSequence(data={!r}, batch_sizes={!r}, sorted_indices={!r}, unsorted_indices={!r})".format(
            *self
        )


def packed(padded: Tensor, lengths: Tensor, order: Tensor | None) -> PackedSequence:
    made: PackedSequence = object.__new__(PackedSequence)
    made._set(padded, lengths, order)
    return made


def within(steps: int, lengths: Tensor) -> Tensor:
    """bool [steps, N]: which steps each sequence has."""
    return tg.arange(steps).unsqueeze(1) < lengths


def filled(padded: Tensor, lengths: Tensor, value: float) -> Tensor:
    """[T, N, ...] with `value` behind every sequence's end."""
    mask = within(padded.shape[0], lengths)
    return tg.where(
        mask.reshape(*mask.shape, *(1,) * (padded.dim() - 2)),
        padded,
        tg.full((), value, dtype=padded.dtype),
    )


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """Where each place went."""
    return None if permutation is None else tg.argsort(permutation)


def pack_padded_sequence(
    input: Tensor, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Sequences [T, N, ...] ([N, T, ...] with batch_first) of these lengths, for a recurrent layer.

    enforce_sorted: refuse lengths that do not fall.
    """
    padded = input.transpose(0, 1) if batch_first else input
    lengths = tg.as_tensor(lengths, dtype=tg.int64)
    if tuple(lengths.shape) != tuple(padded.shape[1:2]):
        raise InvalidValueError(
            f"{list(lengths.shape)} lengths for a batch of {padded.shape[1]} sequences",
            fix="give one length for each sequence; is batch_first right?",
        )
    if not bool(((lengths > 0) & (lengths <= padded.shape[0])).all()):
        raise InvalidValueError(
            f"a length is not between 1 and {padded.shape[0]}, the number of steps of the input"
        )
    if enforce_sorted:
        if not bool((lengths[:-1] >= lengths[1:]).all()):
            raise InvalidValueError(
                "`lengths` are not sorted in decreasing order", fix="give enforce_sorted=False"
            )
        return packed(padded, lengths, None)
    return packed(padded, lengths, tg.sort(lengths, descending=True, stable=True)[1])


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(elements [T, N, ...] padded to the longest sequence or to total_length, lengths)."""
    if not isinstance(sequence, PackedSequence):
        raise ArgumentError(
            f"pad_packed_sequence() of {type(sequence).__name__}",
            fix="give what pack_padded_sequence, or a recurrent layer that was given it, returned",
        )
    padded, lengths = sequence.padded, sequence.lengths
    # With total_length only a comparison is asked of the lengths: one graph for all of them.
    longest = lengths.max().item()
    steps = int(longest) if total_length is None else total_length
    if longest > steps:
        raise InvalidValueError(
            f"total_length={total_length} is less than the longest sequence, of {int(longest)}"
        )
    padded = padded[:steps]
    missing = steps - padded.shape[0]
    if missing:
        padded = tg.cat([padded, padded.new_zeros(missing, *padded.shape[1:])])
    padded = filled(padded, lengths, padding_value)
    return padded.transpose(0, 1) if batch_first else padded, lengths


def pad_sequence(
    sequences: Sequence[Tensor] | Tensor, batch_first: bool = False, padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:  # fmt: skip
    """Sequences [L, ...] of different lengths as one tensor [T, N, ...] ([N, T, ...])."""
    if padding_side not in ("left", "right"):
        raise InvalidValueError(f"padding_side={padding_side!r}: it is 'left' or 'right'")
    listed = list(sequences)
    if not listed or not all(isinstance(s, Tensor) and s.dim() for s in listed):
        raise InvalidValueError(
            "pad_sequence() takes a list of one or more tensors, each of a dimension or more"
        )
    steps = max(len(s) for s in listed)
    rows = []
    for s in listed:
        parts = [s, s.new_full((steps - len(s), *s.shape[1:]), padding_value)]
        rows.append(tg.cat(parts if padding_side == "right" else parts[::-1]))
    return tg.stack([row.to(rows[0].dtype) for row in rows], 0 if batch_first else 1)


def unpad_sequence(
    padded_sequences: Tensor, lengths: Tensor, batch_first: bool = False
) -> list[Tensor]:
    """The sequences of a padded tensor, each cut to its length."""
    rows = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    return [row[:length] for row, length in zip(rows, lengths.tolist())]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Sequences [L, ...] of different lengths, for a recurrent layer."""
    lengths = [len(s) for s in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The sequences, each of its length."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)


public(__name__)
