"""Data sets, samplers, collation and the DataLoader."""

from collections import OrderedDict, namedtuple

import numpy as np
import pytest
import torch
import torch.utils.data as torch_data

import tracegrad as tg
from tracegrad.errors import DataLoaderError
from tracegrad.utils import data as tg_data
from tracegrad.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    random_split,
)


class Squares(Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, index):
        return index, float(index**2)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(5))


def table(n=10):
    return TensorDataset(tg.arange(n), tg.arange(n * 2).reshape(n, 2).float())


def test_tensor_dataset():
    rows = table()
    assert len(rows) == 10
    x, y = rows[3]
    assert x.item() == 3 and y.tolist() == [6.0, 7.0]
    with pytest.raises(ValueError, match="Size mismatch"):
        TensorDataset(tg.zeros(3), tg.zeros(4))


def test_fast_path_equals_sample_by_sample():
    rows = table()
    fast = [[t.tolist() for t in batch] for batch in DataLoader(rows, batch_size=4)]
    slow = [
        [t.tolist() for t in batch]
        for batch in DataLoader(rows, batch_size=4, collate_fn=default_collate)
    ]
    assert fast == slow and isinstance(next(iter(DataLoader(rows, 4))), list)
    part = Subset(rows, [9, 0, 5])
    assert [b[0].tolist() for b in DataLoader(part, 2)] == [[9, 0], [5]]
    grad = TensorDataset(tg.ones(4, 2).requires_grad_())
    assert next(iter(DataLoader(grad, 2)))[0].requires_grad


def test_a_batch_does_not_alias_the_data():
    rows = table()
    batch = next(iter(DataLoader(rows, 2)))[1]
    batch.zero_()
    assert rows[1][1].tolist() == [2.0, 3.0]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("size", [1, 3, 5, 11])
def test_lengths_and_drop_last(size, drop_last):
    ours = DataLoader(Squares(), size, drop_last=drop_last)
    theirs = torch_data.DataLoader(range(10), size, drop_last=drop_last)
    assert len(ours) == len(theirs) == len(list(ours))


def test_shuffle_follows_the_seed_and_covers_everything():
    tg.manual_seed(1)
    loader = DataLoader(table(), 3, shuffle=True)
    first = [i for b in loader for i in b[0].tolist()]
    second = [i for b in loader for i in b[0].tolist()]
    assert sorted(first) == sorted(second) == list(range(10)) and first != second
    tg.manual_seed(1)
    assert [i for b in loader for i in b[0].tolist()] == first
    g = tg.Generator().manual_seed(7)
    own = DataLoader(table(), 10, shuffle=True, generator=g)
    a = next(iter(own))[0].tolist()
    g.manual_seed(7)
    assert next(iter(own))[0].tolist() == a


def test_threads_give_the_same_batches_in_order():
    plain = [b[1].tolist() for b in DataLoader(Squares(), 3)]
    ahead = [b[1].tolist() for b in DataLoader(Squares(), 3, num_workers=2)]
    assert plain == ahead

    class Broken(Squares):
        def __getitem__(self, index):
            raise OSError("no such picture")

    with pytest.raises(OSError, match="no such picture"):
        list(DataLoader(Broken(), 3, num_workers=2))
    stopped = iter(DataLoader(Squares(), 1, num_workers=2))
    next(stopped)
    stopped.close()


def test_iterable_dataset():
    assert [b.tolist() for b in DataLoader(Stream(), 2)] == [[0, 1], [2, 3], [4]]
    assert len(list(DataLoader(Stream(), 2, drop_last=True))) == 2
    assert list(DataLoader(Stream(), None)) == [0, 1, 2, 3, 4]
    assert len(list(Stream() + Stream())) == 10
    with pytest.raises(ValueError, match="IterableDataset"):
        DataLoader(Stream(), 2, shuffle=True)
    with pytest.raises(DataLoaderError, match="num_workers"):
        DataLoader(Stream(), 2, num_workers=2)


def test_samplers_and_batch_sampler():
    assert list(SequentialSampler(range(3))) == [0, 1, 2]
    assert len(list(RandomSampler(range(5), num_samples=12))) == 12
    drawn = list(RandomSampler(range(3), replacement=True, num_samples=50))
    assert set(drawn) == {0, 1, 2}
    assert sorted(SubsetRandomSampler([4, 7, 9])) == [4, 7, 9]
    assert set(WeightedRandomSampler([0.0, 1.0, 0.0], 20)) == {1}
    assert list(BatchSampler(range(5), 2, False)) == [[0, 1], [2, 3], [4]]
    batches = BatchSampler(SequentialSampler(range(10)), 4, True)
    assert [b[0].tolist() for b in DataLoader(table(), batch_sampler=batches)] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
    ]
    assert [b[0].tolist() for b in DataLoader(table(), 2, sampler=[5, 1, 2])] == [[5, 1], [2]]


def test_no_batching():
    samples = list(DataLoader(table(3), batch_size=None))
    assert [s[0].item() for s in samples] == [0, 1, 2]


@pytest.mark.parametrize(
    "options",
    [
        {"sampler": [1], "shuffle": True},
        {"batch_sampler": [[1]], "batch_size": 2},
        {"batch_size": 0},
        {"batch_size": None, "drop_last": True},
        {"num_workers": -1},
        {"prefetch_factor": 2},
    ],
    ids=str,
)
def test_contradictory_options(options):
    with pytest.raises(ValueError):
        DataLoader(table(), **options)


Pair = namedtuple("Pair", "a b")
SAMPLES = [
    [1, 2],
    [1.5, 2.5],
    [True, False],
    ["a", "b"],
    [b"a", b"b"],
    [np.arange(3), np.arange(3)],
    [np.float32(1), np.float32(2)],
    [np.int16(1), np.int16(2)],
    [(1, 2.0), (3, 4.0)],
    [[1, 2.0], [3, 4.0]],
    [{"x": 1, "y": (2.0, "s")}, {"x": 3, "y": (4.0, "t")}],
    [Pair(1, 2.0), Pair(3, 4.0)],
    [OrderedDict(q=np.ones(2)), OrderedDict(q=np.zeros(2))],
]


def same(ours, theirs):
    if isinstance(theirs, torch.Tensor):
        assert str(ours.dtype).split(".")[1] == str(theirs.dtype).split(".")[1]
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    elif isinstance(theirs, dict):
        assert type(ours) is type(theirs) and list(ours) == list(theirs)
        for key in theirs:
            same(ours[key], theirs[key])
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs)
        assert isinstance(theirs, Pair) == isinstance(ours, Pair)
        for a, b in zip(ours, theirs):
            same(a, b)
    else:
        assert ours == theirs


@pytest.mark.parametrize("samples", SAMPLES, ids=str)
def test_collate_is_torchs(samples):
    same(default_collate(samples), torch_data.default_collate(samples))


def test_collate_errors():
    with pytest.raises(DataLoaderError, match="equal size"):
        default_collate([tg.zeros(2), tg.zeros(3)])
    with pytest.raises(DataLoaderError, match="equal size"):
        default_collate([[1, 2], [1]])
    with pytest.raises(DataLoaderError, match="found"):
        default_collate([object(), object()])
    with pytest.raises(DataLoaderError, match="array of dtype"):
        default_collate([np.array(["a"]), np.array(["b"])])


def test_concat_and_split():
    both = Squares() + table()
    assert isinstance(both, ConcatDataset) and len(both) == 20
    assert both[3] == (3, 9.0) and both[-1][0].item() == 9 and both[10][0].item() == 0
    with pytest.raises(IndexError):
        both[20]
    parts = random_split(table(), [7, 3], generator=tg.Generator().manual_seed(0))
    assert sorted(i for p in parts for i in p.indices) == list(range(10))
    assert [len(p) for p in random_split(table(), [0.55, 0.45])] == [6, 4]
    with pytest.raises(ValueError, match="Sum of input lengths 11"):
        random_split(table(), [7, 4])


def test_stack_dataset():
    named = tg_data.StackDataset(x=table(), y=Squares())
    assert named[2]["y"] == (2, 4.0) and len(named) == 10
    assert tg_data.StackDataset(Squares(), Squares())[1] == ((1, 1.0), (1, 1.0))
    with pytest.raises(ValueError, match="Size mismatch"):
        tg_data.StackDataset(table(3), table(4))
