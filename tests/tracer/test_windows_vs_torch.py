"""Convolutions, pooling, patches and resampling against PyTorch."""

import pytest
import torch
from torch_oracle import agree, convert, floats

from tracegrad.tracer import functions as F

TF = torch.nn.functional
CONV = [
    {}, {"stride": 2}, {"padding": 1}, {"padding": "same"}, {"padding": "valid"},
    {"dilation": 2, "padding": 2},
    {"stride": 2, "padding": 1, "dilation": 2},
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("options", CONV, ids=str)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv(rank, options):
    size = (7, 6, 5)[:rank]
    kernel = (3, 2, 3)[:rank]
    ours, theirs = getattr(F, f"conv{rank}d"), getattr(TF, f"conv{rank}d")
    agree(ours, theirs, floats(2, 4, *size), floats(6, 4, *kernel), floats(6), **options)
    agree(ours, theirs, floats(2, 4, *size), floats(6, 2, *kernel), None, groups=2, **options)
    agree(ours, theirs, floats(4, *size), floats(4, 1, *kernel), floats(4), groups=4, **options)


@pytest.mark.parametrize(
    "options",
    [{}, {"stride": 2}, {"stride": 2, "padding": 1, "output_padding": 1}, {"dilation": 2},
    {"stride": 3, "padding": 2, "dilation": 2}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv_transpose(rank, options):
    size, kernel = (5, 4, 3)[:rank], (3, 4, 3)[:rank]
    ours, theirs = getattr(F, f"conv_transpose{rank}d"), getattr(TF, f"conv_transpose{rank}d")
    agree(ours, theirs, floats(2, 4, *size), floats(4, 6, *kernel), floats(6), **options)
    agree(ours, theirs, floats(2, 4, *size), floats(4, 3, *kernel), groups=2, **options)


def test_conv_refuses():
    (mine, _) = convert((floats(1, 3, 8, 8), floats(4, 2, 3, 3)), False)
    with pytest.raises((RuntimeError, TypeError), match="3 channels"):
        F.conv2d(*mine)
    (mine, _) = convert((floats(1, 2, 2, 2), floats(4, 2, 3, 3)), False)
    with pytest.raises((RuntimeError, TypeError), match="reach 3"):
        F.conv2d(*mine)


POOLS = [
    {"kernel_size": 2}, {"kernel_size": 3, "stride": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": 2, "stride": 3, "ceil_mode": True}, {"kernel_size": 2, "stride": 1},
]  # fmt: skip


@pytest.mark.parametrize("options", POOLS, ids=str)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_pools(rank, options):
    size = (8, 7, 6)[:rank]
    name = f"max_pool{rank}d"
    agree(getattr(F, name), getattr(TF, name), floats(2, 3, *size), **options)
    agree(getattr(F, name), getattr(TF, name), floats(2, 3, *size), **options, return_indices=True)
    name = f"avg_pool{rank}d"
    agree(getattr(F, name), getattr(TF, name), floats(2, 3, *size), **options)
    agree(
        getattr(F, name), getattr(TF, name), floats(2, 3, *size), **options, count_include_pad=False
    )
    agree(getattr(F, name), getattr(TF, name), floats(3, *size), **options)


def test_more_pools():
    agree(F.max_pool2d, TF.max_pool2d, floats(2, 3, 9, 8), 2, dilation=2, stride=1)
    ties = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    agree(F.max_pool2d, TF.max_pool2d, ties, 2)  # the first gets the gradient
    agree(F.avg_pool2d, TF.avg_pool2d, floats(2, 3, 6, 6), (3, 2), (2, 1), divisor_override=5)
    agree(F.lp_pool2d, TF.lp_pool2d, floats(2, 3, 6, 6, low=0.1, high=2), 2.0, 3, 2)


@pytest.mark.parametrize("kind", ["avg", "max"])
@pytest.mark.parametrize(
    "size, target",
    [((8, 6), (4, 3)), ((7, 5), (3, 2)), ((4, 4), 1), ((5, 7), (None, 3)), ((3, 3), (5, 7))],
)
def test_adaptive_pools(kind, size, target):
    name = f"adaptive_{kind}_pool2d"
    agree(getattr(F, name), getattr(TF, name), floats(2, 3, *size), target)
    if isinstance(target, tuple) and None not in target:
        name = f"adaptive_{kind}_pool1d"
        agree(getattr(F, name), getattr(TF, name), floats(2, 3, size[0]), target[0])


def test_adaptive_windows_keep_nan_and_inf_to_themselves():
    x = floats(1, 2, 7, 5)
    x[0, 0, 0, 1], x[0, 1, 3, 4] = float("nan"), float("inf")
    for kind in ("avg", "max"):
        name = f"adaptive_{kind}_pool2d"
        agree(getattr(F, name), getattr(TF, name), x, (3, 2))
    agree(F.interpolate, TF.interpolate, x, size=(3, 2), mode="area")


def test_patches():
    for options in (
        {"kernel_size": 2},
        {"kernel_size": (2, 3), "stride": 2, "padding": 1},
        {"kernel_size": 2, "dilation": 2},
    ):
        agree(F.unfold_image, TF.unfold, floats(2, 3, 6, 7), **options)
        columns = TF.unfold(floats(2, 3, 6, 7), **options)
        agree(F.fold_image, TF.fold, columns, (6, 7), **options)


RESIZE = [
    {"size": (7, 9)}, {"scale_factor": 2}, {"scale_factor": (1.5, 0.6)}, {"size": (2, 3)},
]  # fmt: skip


@pytest.mark.parametrize("options", RESIZE, ids=str)
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear", "bicubic", "area"])
def test_interpolate(options, mode):
    agree(
        F.interpolate,
        TF.interpolate,
        floats(2, 3, 4, 5),
        mode=mode,
        **options,
        rtol=1e-6,
        atol=1e-7,
    )
    if mode in ("bilinear", "bicubic"):
        agree(
            F.interpolate,
            TF.interpolate,
            floats(2, 3, 4, 5),
            mode=mode,
            align_corners=True,
            **options,
            rtol=1e-6,
            atol=1e-7,
        )


def test_other_ranks_of_interpolate():
    agree(F.interpolate, TF.interpolate, floats(2, 3, 5), scale_factor=2, mode="linear")
    agree(
        F.interpolate,
        TF.interpolate,
        floats(1, 2, 3, 4, 3),
        size=(5, 3, 4),
        mode="trilinear",
        rtol=1e-6,
    )
    agree(F.interpolate, TF.interpolate, floats(1, 2, 3, 4, 3), size=5, mode="nearest")


def test_pixels():
    agree(F.pixel_shuffle, TF.pixel_shuffle, floats(2, 12, 3, 4), 2)
    agree(F.pixel_unshuffle, TF.pixel_unshuffle, floats(2, 3, 4, 6), 2)
    agree(F.channel_shuffle, torch.channel_shuffle, floats(2, 6, 3, 2), 3)


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_grid_sample(align, padding):
    agree(F.affine_grid, TF.affine_grid, floats(2, 2, 3), (2, 3, 4, 5), align_corners=align)
    for mode in ("bilinear", "nearest"):
        agree(
            F.grid_sample,
            TF.grid_sample,
            floats(2, 3, 5, 6),
            floats(2, 4, 3, 2, low=-1.3, high=1.3),
            mode=mode,
            padding_mode=padding,
            align_corners=align,
            rtol=1e-7,
        )
