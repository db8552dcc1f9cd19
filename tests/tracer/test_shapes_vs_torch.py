"""Shapes at the edge, of every function that takes them: 0-d, empty, one element, broadcast, views
that are not contiguous, negative dims, keepdim. Values and gradients as in PyTorch, in every mode.
"""

import numpy as np
import pytest
from everywhere import MODES, agree_everywhere

RNG = np.random.default_rng(11)


def values(*shape):
    """Away from 0, 1 and ties, where gradients jump."""
    return RNG.uniform(0.1, 0.9, shape).astype(np.float32)


def shapes_of(t, x, y):
    """Of x[3, 4, 5] and y[4, 1]: an element, nothing, one, a broadcast, three kinds of views."""
    return {
        "0-d": x[0, 0, 0], "empty": x[:, :0], "one": x[:1, :1, 0], "column": y,
        "transposed": x[0].t(), "strided": x[:, ::2, 1::3], "permuted": x.permute(2, 0, 1),
    }  # fmt: skip


UNARY = """
abs acos asin asinh atan atanh ceil cos cosh deg2rad digamma erf erfc erfinv exp exp2 expm1 floor
frac lgamma log log10 log1p log2 logit neg positive rad2deg reciprocal relu round rsqrt sigmoid sign
sin sinc sinh sqrt square tan tanh trunc nan_to_num clone isnan isinf isfinite isposinf isneginf
signbit logical_not isreal sgn ravel flatten
""".split()
ACTIVATIONS = """
celu elu gelu hardshrink hardsigmoid hardswish hardtanh leaky_relu logsigmoid mish relu6 selu silu
softplus softshrink softsign tanhshrink
""".split()
BINARY = """
add sub mul div true_divide maximum minimum fmax fmin atan2 hypot pow remainder fmod copysign
logaddexp logaddexp2 xlogy eq ne lt le gt ge logical_and logical_or logical_xor isclose float_power
nextafter floor_divide
""".split()
REDUCTIONS = "sum mean prod amax amin std var nansum nanmean logsumexp norm any all".split()
RUNNING = "cumsum cumprod logcumsumexp softmax log_softmax flip roll diff".split()
PICKED = "max min median mode sort cummax cummin".split()
SKIPPED_GRADIENTS = {"nextafter", "floor_divide"}  # PyTorch has others, or none


def groups(names, size=9):
    return [names[k : k + size] for k in range(0, len(names), size)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("names", groups(UNARY), ids=" ".join)
def test_unary(names, mode):
    def call(t, F, x, y):
        return [getattr(t, n)(v) for n in names for v in shapes_of(t, x, y).values()]

    agree_everywhere(mode, call, values(3, 4, 5), values(4, 1), rtol=1e-3, atol=1e-4, legal=True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("names", groups(ACTIVATIONS), ids=" ".join)
def test_activations(names, mode):
    def call(t, F, x, y):
        return [getattr(F, n)(v - 0.5) for n in names for v in shapes_of(t, x, y).values()]

    agree_everywhere(mode, call, values(3, 4, 5), values(4, 1), rtol=1e-3, atol=1e-4, legal=True)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("names", groups(BINARY, 6), ids=" ".join)
def test_binary(names, mode):
    def call(t, F, x, y):
        pairs = [
            (x[0, 0, 0], x[1]), (x[1], x[0, 0, 0]), (x[:, :, 0], y.t()), (y, x[0, 0]),
            (x[:0], x[:1]), (x[0].t(), x[1, :, :1].t()), (x[..., 1::2], x[..., ::3]), (x[0], 0.5),
        ]  # fmt: skip
        results = []
        for name in names:
            for a, b in pairs:
                if name in SKIPPED_GRADIENTS:
                    a, b = a.detach(), b.detach() if hasattr(b, "detach") else b
                if isinstance(b, float) and name not in ("add", "sub", "mul", "div", "pow", "lt"):
                    b = t.tensor(b)
                results.append(getattr(t, name)(a, b))
        return results

    agree_everywhere(mode, call, values(3, 4, 5), values(4, 1), rtol=1e-3, atol=1e-4, legal=True)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name, mode):
    def call(t, F, x, y):
        reduce = getattr(t, name)
        views = shapes_of(t, x, y)
        results = [
            reduce(v, dim=dim, keepdim=keepdim)
            for v in (views["transposed"], views["strided"], views["permuted"])
            for dim in (0, -1)
            for keepdim in (False, True)
        ]
        results += [reduce(views["one"], dim=1), reduce(views["column"], dim=-1, keepdim=True)]
        if name not in ("prod", "amax", "amin"):
            results += [reduce(x, dim=(0, -1)), reduce(x, dim=(-2, 0), keepdim=True)]
        if name not in ("std", "var"):
            results.append(reduce(views["0-d"], dim=0))
        if name not in ("amax", "amin", "logsumexp"):
            results += [reduce(v) for k, v in views.items() if k not in ("empty", "0-d")]
        if name in ("sum", "prod", "mean", "nansum", "any", "all", "logsumexp"):
            results += [reduce(views["empty"], dim=1), reduce(views["empty"], dim=0)]
        return results

    agree_everywhere(mode, call, values(3, 4, 5), values(4, 1), rtol=1e-3, atol=1e-4, legal=True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", RUNNING)
def test_along_a_dimension(name, mode):
    def call(t, F, x, y):
        function = getattr(t, name)
        results = []
        for kind, v in shapes_of(t, x, y).items():
            for dim in {0, -1} if v.ndim else {0}:
                if name in ("flip", "roll"):
                    if v.ndim:
                        arguments = ((dim,),) if name == "flip" else (2, dim)
                        results.append(function(v, *arguments))
                elif name == "diff":
                    if v.ndim and kind not in ("empty", "one", "column"):
                        results.append(function(v, dim=dim))
                else:
                    results.append(function(v, dim))
        return results

    agree_everywhere(mode, call, values(3, 4, 5), values(4, 1), rtol=1e-3, atol=1e-4, legal=True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PICKED)
def test_values_and_indices(name, mode):
    def call(t, F, x, y):
        function = getattr(t, name)
        results = []
        for kind, v in shapes_of(t, x, y).items():
            if kind != "empty":
                results += [function(v, dim) for dim in ({0, -1} if v.ndim else {0})]
        if name in ("max", "min", "median", "mode"):
            results.append(function(x, -2, keepdim=True))
        return results

    agree_everywhere(mode, call, values(3, 4, 5), values(4, 1), legal=True)


OTHERS = {
    "joined": lambda t, F, x, y: [
        t.cat([x[0], x[0, :, :2]], -1), t.stack([x[0].t(), x[1].t()], -1), t.hstack([y, y]),
        t.vstack([y, y]), t.cat([x[:, :0], x], 1), t.stack([x[0, 0, 0], x[1, 1, 1]]),
    ],
    "repeated": lambda t, F, x, y: [
        y.repeat(2, 1, 3), y.expand(2, 4, 3) * 1, t.tile(x[0, 0], (2,)), x[0, 0, 0].repeat(3),
        y.repeat_interleave(2, -1), x[:, :0].repeat(1, 2, 1),
    ],
    "triangles": lambda t, F, x, y: [
        x.tril(-1), x.triu(1), x[0].t().tril(), x[:, :0].triu(), t.trace(x[0]), t.diag(x[0, 0], 1),
        t.diag_embed(x[0]), x[0].rot90(1, (0, 1)), t.flipud(x[0]), t.fliplr(x[0].t()),
    ],
    "products": lambda t, F, x, y: [
        x @ x.transpose(1, 2), x[0] @ x[1, 0], x[0, :, 0] @ x[0], x[:0] @ x[:0].mT, x[0].t() @ y,
        t.outer(x[0, 0], y[:, 0]), t.kron(y, x[0, :1]), t.dot(x[0, 0], x[1, 1]), t.bmm(x, x.mT),
        t.einsum("bij,ik->bjk", x, y), t.tensordot(x, x, ([0, 1], [0, 1])), F.linear(x, x[0]),
        t.addmm(y, x[0], x[1].t()), t.cdist(x, x[:1]),
    ],
    "where": lambda t, F, x, y: [
        t.where(y > 0.5, x[..., :1], 0.0), x.masked_fill(y.t()[..., None] > 0.5, 2.0),
        t.where(x[:, :0] > 0, x[:, :0], 1.0), x[0].t().clamp(0.2, 0.7), x.clamp(min=y),
    ],
    "selected": lambda t, F, x, y: [
        x.index_select(-2, t.tensor([3, 0])), x.gather(-1, t.zeros(3, 4, 2, dtype=t.int64)),
        x.take(t.tensor([[0, -1]])), x[..., [0, 2]], x[[0, 1], :, [1, 2]], x[t.tensor(1)],
        x[None, ..., 0], x[:, -1:, ::2], x.unfold(-1, 2, 2), x.topk(2, 1)[0], x.kthvalue(2, -1)[0],
        x.diagonal(1, -2, -1), x.movedim(0, -1), x.unflatten(-2, (2, -1)), x[0, 0].unsqueeze(-1),
    ],
    "written": lambda t, F, x, y: [
        x.index_add(1, t.tensor([0, 0]), x[:, :2]), x.scatter(-1, t.zeros(3, 4, 1).long(), 1.5),
        x.scatter_add(0, t.zeros(1, 4, 5).long(), x[:1]), x.index_fill(-1, t.tensor([1]), 0.0),
        x.index_copy(0, t.tensor([2]), x[:1]), x.scatter_reduce(
            1, t.zeros(3, 4, 5).long(), x * 0.9, "amax", include_self=False),
    ],
    "padded": lambda t, F, x, y: [
        F.pad(x, (1, 2)), F.pad(x, (1, 0, 0, 1), value=3.0), F.pad(x, (-1, 1)), F.pad(x[:, :0], (1, 1)),
        F.pad(x, (1, 1), mode="reflect"), F.pad(x, (2, 1), mode="replicate"),
        F.pad(x, (2, 1), mode="circular"),
    ],
    "normalised": lambda t, F, x, y: [
        F.layer_norm(x, (4, 5)), F.layer_norm(x[0].t(), (4,)), F.normalize(x, dim=-1),
        F.group_norm(x, 2), F.instance_norm(x), F.rms_norm(x, (5,)), F.normalize(y, p=1.0, dim=0),
        F.batch_norm(x, None, None, training=True), F.local_response_norm(x, 2),
    ],
    "pooled": lambda t, F, x, y: [
        F.max_pool1d(x, 2), F.avg_pool1d(x, 3, 1, 1), F.adaptive_avg_pool1d(x, 2),
        F.adaptive_max_pool1d(x, 2), F.max_pool2d(x, 2, ceil_mode=True), F.avg_pool2d(x[None], (2, 1)),
        F.adaptive_avg_pool2d(x, (1, 3)), F.adaptive_max_pool2d(x, 2), F.lp_pool2d(x[None], 2, 2),
        F.max_pool3d(x[None, None], 2), F.avg_pool3d(x[None], 2), F.adaptive_avg_pool3d(x[None], 1),
        F.max_pool2d(x, 2, return_indices=True), F.max_pool1d(x, 2, stride=1, dilation=2),
    ],
    "convolved": lambda t, F, x, y: [
        F.conv1d(x, x[:2, :, :3]), F.conv1d(x, x.permute(1, 0, 2)[:, :1, :2], groups=4), F.conv1d(x[0], x[:, :, :1]),
        F.conv_transpose1d(x, x[:2].permute(1, 0, 2), stride=2, output_padding=1),
        F.conv2d(x[None], x[:2, :3, :2].unsqueeze(-1), dilation=2, padding=1),
        F.conv_transpose2d(x[None], x[:, None, :2, :2]), F.conv3d(
            x[None, None], x[None, None, :2, :2, :2], padding="same"),
        F.conv_transpose3d(x[None, None], x[None, None, :1, :2, :2], stride=2),
    ],
    "resized": lambda t, F, x, y: [
        F.interpolate(x, scale_factor=2.0), F.interpolate(x, size=3, mode="linear"),
        F.interpolate(x[None], scale_factor=0.5, mode="area"), F.pixel_shuffle(x[:1].view(4, 1, 5), 2),
        F.unfold(x[None], 2), F.fold(x.view(1, 12, 5)[..., :4], (3, 3), 2),
        F.interpolate(x[None], size=(6, 3), mode="bilinear", align_corners=True),
    ],
    "losses": lambda t, F, x, y: [
        loss(a, b, reduction=how)
        for loss in (F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.binary_cross_entropy,
                     F.binary_cross_entropy_with_logits)
        for how in ("none", "sum", "mean")
        for a, b in ((x[0].t(), x[1].t()), (x[0, 0, 0], x[1, 1, 1]))
    ],
    "class losses": lambda t, F, x, y: [
        loss(*pair, reduction=how)
        for loss in (F.cross_entropy, F.nll_loss)
        for how in ("none", "sum", "mean")
        for pair in ((x, t.ones(3, 5).long()), (x[0, :, 0], t.tensor(2)), (x[0], t.arange(4)),
                     (x[:, :, :0], t.ones(3, 0).long()))
        if how != "mean" or pair[0].numel()
    ],
    "questions": lambda t, F, x, y: [
        x[0].t().argmax(), x.argmax(-1), x.argmin(0, keepdim=True), t.equal(x, x), t.allclose(x, x),
        t.count_nonzero(x, -1), x[:, :0].numel(), t.is_tensor(x), t.result_type(x, 1),
        t.result_type(x, np.float64(1)), t.result_type(np.int32(1), x),
        t.searchsorted(y[:, 0].sort()[0].detach(), x[0, 0].detach()), t.isin(x, x[0]),
        t.bincount(t.tensor([1, 1, 3]), minlength=6), x.size(-1), x[0].t().is_contiguous(),
        x[0].t().stride(), t.finfo(x.dtype).max,
    ],
    "complex": lambda t, F, x, y: [
        t.view_as_real(t.view_as_complex(x[..., :2].contiguous())), t.polar(x[0], x[1]).abs(),
        t.complex(x[0], x[1]).real, t.complex(x[0], x[1]).angle(),
    ],
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", OTHERS)
def test_others(name, mode):
    def call(t, F, x, y):
        kinds = {"torch.float32": "f32", "tracegrad.float32": "f32"}
        return [kinds.get(str(r), r) for r in OTHERS[name](t, F, x, y)]

    agree_everywhere(mode, call, values(3, 4, 5), values(4, 1), rtol=2e-3, atol=2e-4, legal=True)
