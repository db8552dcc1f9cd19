"""Module: registration, walking, state dicts, hooks, repr: as torch.nn.Module."""

import copy
import weakref
from collections import OrderedDict

import numpy as np
import pytest
import torch

import tracegrad as tg
from tracegrad import nn
from tracegrad.errors import StateDictError


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 4)
        self.scale = nn.Parameter(tg.ones(4))
        self.register_buffer("count", tg.zeros(1))
        self.register_buffer("scratch", tg.zeros(2), persistent=False)
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.ReLU()])
        self.shared = self.fc

    def forward(self, x):
        x = self.fc(x) * self.scale
        for layer in self.layers:
            x = layer(x)
        return x


class TorchBlock(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(3, 4)
        self.scale = torch.nn.Parameter(torch.ones(4))
        self.register_buffer("count", torch.zeros(1))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)
        self.layers = torch.nn.ModuleList([torch.nn.Linear(4, 4), torch.nn.ReLU()])
        self.shared = self.fc


def names(pairs):
    return [name for name, _ in pairs]


def test_names_and_order_are_torchs():
    ours, theirs = Block(), TorchBlock()
    for walk in ("named_parameters", "named_buffers", "named_modules", "named_children"):
        assert names(getattr(ours, walk)()) == names(getattr(theirs, walk)())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert names(ours.named_parameters(remove_duplicate=False)) == names(
        theirs.named_parameters(remove_duplicate=False)
    )
    assert names(ours.named_parameters(prefix="m", recurse=False)) == ["m.scale"]


def test_repr_is_torchs():
    def build(nn):
        return nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(3, 8, 3, padding=1, bias=False),
                norm=nn.BatchNorm2d(8),
                act=nn.ReLU(inplace=True),
                deep=nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2), nn.Dropout(0.1)]),
                table=nn.ModuleDict({"a": nn.LayerNorm(3), "b": nn.Identity()}),
                empty=nn.ModuleList(),
                pad=nn.ConstantPad1d(2, 3.5),
            )
        )

    assert repr(build(nn)) == repr(build(torch.nn))


def test_parameter_reads_are_instance_dictionary_reads():
    layer = nn.Linear(2, 2)
    assert layer.__dict__["weight"] is layer.weight
    assert "__getattr__" not in nn.Module.__dict__


def test_reassignment_moves_a_name_between_tables():
    block = Block()
    block.count = nn.Parameter(tg.ones(1))
    assert "count" in dict(block.named_parameters())
    assert "count" not in dict(block.named_buffers())
    del block.scale
    assert "scale" not in dict(block.named_parameters()) and not hasattr(block, "scale")
    with pytest.raises(TypeError, match="cannot assign 'Tensor' as parameter 'weight'"):
        block.fc.weight = tg.zeros(4, 3)
    with pytest.raises(TypeError, match="as child module 'fc'"):
        block.fc = 3
    block.fc.weight = nn.Parameter(tg.zeros(4, 3))
    assert names(block.fc.named_parameters()) == ["weight", "bias"]


def test_registration_errors():
    class Early(nn.Module):
        def __init__(self):
            self.weight = nn.Parameter(tg.zeros(1))

    with pytest.raises(AttributeError, match=r"before Module.__init__\(\) call"):
        Early()
    module = nn.Module()
    with pytest.raises(KeyError, match="can.{1,3}t contain"):
        module.register_parameter("a.b", None)
    with pytest.raises(KeyError, match="can.{1,3}t be empty"):
        module.register_buffer("", None)
    with pytest.raises(KeyError, match="already exists"):
        module.register_buffer("training", None)
    with pytest.raises(TypeError):
        module.register_parameter("w", tg.zeros(1))
    with pytest.raises(NotImplementedError, match="missing the required"):
        module(1)


def test_members_views_are_live():
    block = Block()
    assert list(block._modules) == ["fc", "layers", "shared"]
    replacement = nn.Linear(3, 4)
    block._modules["fc"] = replacement
    assert block.fc is replacement
    del block._modules["shared"]
    assert not hasattr(block, "shared")


def test_buffer_class_and_persistence():
    module = nn.Module()
    module.kept = nn.Buffer(tg.ones(2))
    module.passing = nn.Buffer(tg.ones(2), persistent=False)
    assert names(module.named_buffers()) == ["kept", "passing"]
    assert list(module.state_dict()) == ["kept"]
    module.kept = tg.zeros(2)  # a plain tensor may replace a buffer
    assert float(module.state_dict()["kept"].sum()) == 0


def test_load_state_dict_strict_report():
    block = Block()
    state = block.state_dict()
    state["extra.w"] = tg.zeros(1)
    del state["scale"]
    state["count"] = tg.zeros(5)
    with pytest.raises(StateDictError) as caught:
        block.load_state_dict(state)
    text = str(caught.value)
    assert isinstance(caught.value, RuntimeError)
    assert 'Missing key(s) in state_dict: "scale"' in text
    assert 'Unexpected key(s) in state_dict: "extra.w"' in text
    assert "size mismatch for count" in text
    assert text.index("Missing") < text.index("Unexpected") < text.index("size mismatch")
    del state["count"]
    report = block.load_state_dict(state, strict=False)
    assert report.missing_keys == ["scale", "count"]
    assert report.unexpected_keys == ["extra.w"]
    assert repr(Block().load_state_dict(Block().state_dict())) == "<All keys matched successfully>"


def test_load_state_dict_copies_and_assigns():
    a, b = Block(), Block()
    weight = b.fc.weight
    b.load_state_dict(a.state_dict())
    assert b.fc.weight is weight
    np.testing.assert_array_equal(b.fc.weight.detach().numpy(), a.fc.weight.detach().numpy())
    c = Block()
    state = {k: v.clone() for k, v in a.state_dict().items()}
    c.load_state_dict(state, assign=True)
    assert isinstance(c.fc.weight, nn.Parameter)
    with tg.no_grad():
        state["shared.weight"].fill_(7.0)  # the last name of the shared layer
    assert float(c.fc.weight.detach()[0, 0]) == 7.0


def test_state_dict_shares_storage_and_is_detached():
    layer = nn.Linear(2, 2)
    entry = layer.state_dict()["weight"]
    assert not entry.requires_grad
    with tg.no_grad():
        layer.weight.fill_(3.0)
    assert float(entry.sum()) == 12.0


def test_torch_checkpoint_round_trip():
    theirs, ours = TorchBlock(), Block()
    ours.load_state_dict({k: tg.from_numpy(v.numpy()) for k, v in theirs.state_dict().items()})
    theirs.load_state_dict({k: torch.from_numpy(v.numpy()) for k, v in ours.state_dict().items()})


def test_extra_state():
    class Counting(nn.Module):
        n = 0

        def get_extra_state(self):
            return {"n": self.n}

        def set_extra_state(self, state):
            self.n = state["n"]

    a, b = nn.Sequential(Counting()), nn.Sequential(Counting())
    a[0].n = 5
    assert list(a.state_dict()) == ["0._extra_state"]
    b.load_state_dict(a.state_dict())
    assert b[0].n == 5
    with pytest.raises(StateDictError, match="_extra_state"):
        b.load_state_dict({})


def test_train_eval_apply_zero_grad_requires_grad():
    block = Block()
    assert block.eval() is block and not block.layers[1].training
    block.train()
    assert all(m.training for m in block.modules())
    seen = []
    block.apply(lambda m: seen.append(type(m).__name__))
    assert seen[-1] == "Block" and seen.count("Linear") == 2
    block(tg.ones(2, 3)).sum().backward()
    assert block.fc.weight.grad is not None
    block.zero_grad()
    assert all(p.grad is None for p in block.parameters())
    block.requires_grad_(False)
    assert not any(p.requires_grad for p in block.parameters())


def test_dtype_conversions_keep_identity():
    block = Block()
    weight = block.fc.weight
    block.register_buffer("steps", tg.tensor(3))
    block.double()
    assert block.fc.weight is weight and weight.dtype == tg.float64 and weight.requires_grad
    assert block.count.dtype == tg.float64 and block.steps.dtype == tg.int64
    assert block.to(tg.float32).fc.weight.dtype == tg.float32
    assert block.half().fc.weight.dtype == tg.float16
    assert block.to("cpu") is block
    with pytest.raises(TypeError, match="only accepts floating point"):
        block.to(tg.int64)
    block.float()(tg.ones(2, 3)).sum().backward()
    assert weight.grad.dtype == tg.float32


def test_hooks():
    layer = nn.Linear(2, 2)
    log = []
    layer.register_forward_hook(lambda m, args, out: log.append("second"))
    first = layer.register_forward_hook(lambda m, args, out: log.append("first"), prepend=True)
    pre = layer.register_forward_pre_hook(lambda m, args: (args[0] * 0,))
    out = layer(tg.ones(1, 2))
    assert log == ["first", "second"]
    np.testing.assert_array_equal(out.detach().numpy()[0], layer.bias.detach().numpy())
    first.remove()
    first.remove()
    pre.remove()
    layer.register_forward_hook(lambda m, args, kwargs, out: out * 0, with_kwargs=True)
    assert float(layer(tg.ones(1, 2)).abs().sum()) == 0
    assert log == ["first", "second", "second"]


def test_deepcopy_is_independent_and_keeps_sharing():
    block = Block()
    clone = copy.deepcopy(block)
    assert clone.shared is clone.fc and clone.fc is not block.fc
    assert isinstance(clone.fc.weight, nn.Parameter) and clone.fc.weight.requires_grad
    with tg.no_grad():
        clone.fc.weight.zero_()
    assert float(block.fc.weight.detach().abs().sum()) > 0
    assert names(clone.named_parameters()) == names(block.named_parameters())
    frozen = nn.Parameter(tg.ones(2), requires_grad=False)
    assert not copy.deepcopy(frozen).requires_grad


def test_deepcopy_leaves_gradients_of_parameters_behind():
    """As in PyTorch: what is copied from a model in training accumulates from nothing."""
    model = nn.Linear(2, 1)
    model(tg.ones(1, 2)).sum().backward()
    clone = copy.deepcopy(model)
    assert [p.grad for p in clone.parameters()] == [None, None]
    clone(tg.ones(1, 2)).sum().backward()
    assert clone.weight.grad.tolist() == [[1.0, 1.0]] == model.weight.grad.tolist()
    plain = tg.ones(2, requires_grad=True)
    plain.sum().backward()
    assert copy.deepcopy(plain).grad.tolist() == [1.0, 1.0]


def test_sequential():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    assert len(model) == 3 and isinstance(model[-1], nn.Linear)
    assert list(model.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    head = model[:2]
    assert isinstance(head, nn.Sequential) and head[0] is model[0]
    model.append(nn.Tanh())
    model.insert(0, nn.Identity())
    assert [type(m).__name__ for m in model] == ["Identity", "Linear", "ReLU", "Linear", "Tanh"]
    assert isinstance(model.pop(0), nn.Identity) and len(model) == 4
    model[1] = nn.Sigmoid()
    assert isinstance(model[1], nn.Sigmoid)
    with pytest.raises(IndexError):
        model[9]
    named = nn.Sequential(OrderedDict(a=nn.Linear(1, 1), b=nn.ReLU()))
    assert named.a is named[0] and list(named[1:]._modules) == ["b"]


def test_slices_go_by_place():
    """Not by what stands there: one activation may stand in several places."""
    relu = nn.ReLU()
    model = nn.Sequential(nn.Linear(2, 3), relu, nn.Linear(3, 1), relu)
    assert [type(m).__name__ for m in model[:2]] == ["Linear", "ReLU"]
    assert [type(m).__name__ for m in model[2:]] == ["Linear", "ReLU"]
    assert list(model[::-1]) == list(model)[::-1]
    assert list(nn.ModuleList(model)[1::2]) == [relu, relu]


def test_module_list_and_dict():
    layers = nn.ModuleList([nn.Linear(1, 1)])
    layers += [nn.ReLU()]
    layers.extend([nn.Tanh()])
    assert len(layers) == 3 and isinstance(layers[1:], nn.ModuleList)
    del layers[0]
    assert list(layers._modules) == ["0", "1"]
    table = nn.ModuleDict({"a": nn.Linear(1, 1)})
    table["b"] = nn.ReLU()
    table.update({"c": nn.Tanh()})
    assert list(table) == ["a", "b", "c"] and "b" in table and len(table) == 3
    assert isinstance(table.pop("a"), nn.Linear) and list(table.keys()) == ["b", "c"]
    with pytest.raises(KeyError):
        table["keys"] = nn.ReLU()
    weights = nn.ParameterList([tg.ones(2), nn.Parameter(tg.zeros(3))])
    assert len(list(weights.parameters())) == 2 and weights[0].requires_grad
    weights += [tg.ones(1)]
    assert len(weights) == 3
    assert list(nn.ParameterDict({"w": tg.ones(1)}).state_dict()) == ["w"]
    unsorted = {"b": tg.ones(1), "a": tg.ones(1)}
    assert list(nn.ParameterDict(unsorted)) == ["a", "b"]  # as PyTorch does
    assert list(nn.ParameterDict(OrderedDict(unsorted))) == ["b", "a"]
    pairs = nn.ParameterDict(unsorted.items())
    pairs.update({"d": tg.ones(1), "c": tg.ones(1)})
    assert list(pairs) == ["b", "a", "c", "d"]


def test_get_by_path():
    block = Block()
    assert block.get_submodule("layers.0") is block.layers[0]
    assert block.get_submodule("") is block
    assert block.get_parameter("fc.weight") is block.fc.weight
    assert block.get_buffer("count") is block.count
    with pytest.raises(AttributeError):
        block.get_submodule("layers.9")
    with pytest.raises(AttributeError):
        block.get_parameter("fc.count")


def test_scope_names_skip_containers_that_are_never_called():
    block = Block()
    assert block.layers[0]._scope_name == "layers.0"
    block.tail = nn.Sequential(nn.Linear(4, 4))
    assert block.tail[0]._scope_name == "0" and block.tail._scope_name == "tail"
    late = nn.ModuleList()
    block.late = late
    late.append(nn.ReLU())
    assert late[0]._scope_name == "late.0"
    outer = nn.ModuleList([nn.ModuleList([nn.ReLU()])])
    block.nest = outer
    assert outer[0][0]._scope_name == "nest.0.0"


def test_a_state_dict_that_was_loaded_goes_with_its_last_name():
    model = nn.Sequential(nn.Linear(2, 2))
    state = model.state_dict()
    alive = weakref.ref(state)
    model.load_state_dict(state)
    del state
    assert alive() is None
