"""Optimizer: parameter groups, per-parameter slots, and their state dict.

Note [Optimisers under tracing]
Numbers of a parameter group stay Python numbers; while recording, reading one gives a host
number, so a schedule never recompiles. Slots are made by `init_slot`: a real zero tensor at once,
which the trace captures as state, so the second call runs the graph of the first. Scalar
corrections (Adam's 1 - beta^t) are computed in float64: in float32 `1 - 0.999` is off by 1.3e-5.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from tracegrad.nn.grads import clear_grads
from tracegrad.optim.slots import Slots, SlotTable
from tracegrad.tracer import (
    Observed,
    ParamGroup,
    Tensor,
    enable_grad,
    new_state,
    no_grad,
    note_item,
)
from tracegrad.tracer.errors import ArgumentError, InvalidValueError, NotHere


class Optimizer(Observed):
    """Base of all optimisers. `params`: tensors, (name, tensor) pairs, or dicts with options."""

    _noted_elsewhere = frozenset({"state"})

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]):
        if isinstance(params, Tensor):
            raise ArgumentError(
                "params argument given to the optimizer should be an iterable of Tensors or "
                f"dicts, but got {type(params).__name__}; pass [tensor] for a single one"
            )
        if hasattr(params, "parameters"):
            raise ArgumentError(
                f"params is a {type(params).__name__}, parameters are needed",
                fix="give what the module has: model.parameters()",
            )
        self.defaults = defaults
        self.state: defaultdict[Tensor, dict[str, Any]] = SlotTable(Slots)
        self.param_groups: list[Any] = []
        groups = list(params)
        if not groups:
            raise InvalidValueError(
                "optimizer got an empty parameter list",
                fix="give model.parameters(), a fresh generator for each optimizer",
            )
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own, the defaults for those not given."""
        if not isinstance(param_group, dict):
            raise ArgumentError(f"param_group must be a dict, but got {type(param_group)}")
        group = dict(param_group)
        if "params" not in group:
            raise InvalidValueError(
                f"a parameter group without 'params': it has {sorted(group)}",
                fix="give {'params': [...], 'lr': ...}",
            )
        given = group["params"]
        if isinstance(given, set):
            raise ArgumentError(
                "optimizer parameters need to be organized in ordered collections, but the "
                "ordering of tensors in sets will change between runs. Please use a list instead."
            )
        entries = [given] if isinstance(given, Tensor) else list(given)
        if entries and isinstance(entries[0], tuple):
            group["param_names"] = [name for name, _ in entries]
            entries = [parameter for _, parameter in entries]
        for parameter in entries:
            if not isinstance(parameter, Tensor):
                raise ArgumentError(
                    "optimizer can only optimize Tensors, but one of the params is "
                    + type(parameter).__name__
                )
            if not parameter.is_leaf:
                raise InvalidValueError(
                    "can't optimize a non-leaf Tensor",
                    why="it was computed from others, so writing it would train nothing",
                    fix="give leaves: nn.Parameter(x), or x.detach().requires_grad_()",
                )
        for name, default in self.defaults.items():
            group.setdefault(name, default)
        if len({id(p) for p in entries}) < len(entries):
            raise InvalidValueError(
                "optimizer contains a parameter group with duplicate parameters",
                fix="give each parameter once; model.parameters() does",
            )
        known = {id(p) for other in self.param_groups for p in other["params"]}
        if any(id(p) in known for p in entries):
            raise InvalidValueError(
                "some parameters appear in more than one parameter group",
                fix="give each parameter to one group",
            )
        group["params"] = entries
        self.param_groups.append(ParamGroup(group))

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of all parameters (None, or zeros with set_to_none=False)."""
        for group in self.param_groups:
            clear_grads(group["params"], set_to_none)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update from the parameters' `.grad`; `closure`, if given, computes the loss."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        note_item(self.__dict__, "state", self.state)
        with no_grad():
            for group in self.param_groups:
                self._update_group(group)
        return loss

    def _update_group(self, group: Any) -> None:
        """Update every parameter of the group that has a gradient."""
        raise NotImplementedError(f"{type(self).__name__} defines no update")

    def init_slot(self, param: Tensor, name: str, factory: Callable[[], Tensor]) -> Tensor:
        """The slot `name` of `param`, made eagerly by `factory` at its first use."""
        slots = self.state[param]
        slot = dict.get(slots, name)
        if slot is None:
            slot = new_state(factory, lambda: self._drop_slot(param, name))
            dict.__setitem__(slots, name, slot)
        note_item(self.state, param, slots)
        note_item(slots, name, slot)
        return slot

    def _drop_slot(self, param: Tensor, name: str) -> None:
        """Forget a slot made by a recording that was thrown away."""
        slots = self.state[param]
        slots.pop(name, None)
        if not slots:
            del self.state[param]

    register_step_pre_hook = NotHere("do it before the call of step(), or override step()")
    register_step_post_hook = NotHere("do it after the call of step(), or override step()")
    register_state_dict_pre_hook = NotHere("override state_dict()")
    register_state_dict_post_hook = NotHere("change the dict that state_dict() returns")
    register_load_state_dict_pre_hook = NotHere("change the dict before load_state_dict()")
    register_load_state_dict_post_hook = NotHere("do it after load_state_dict()")

    def state_dict(self) -> dict[str, Any]:
        """Slots by parameter number, and the groups with numbers in place of tensors."""
        number: dict[int, int] = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                number.setdefault(id(parameter), len(number))
        groups = [
            {**group, "params": [number[id(p)] for p in group["params"]]}
            for group in self.param_groups
        ]
        state = {
            number[id(key)] if isinstance(key, Tensor) else key: dict(slots)
            for key, slots in self.state.items()
        }
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take slots and options from `state_dict`, matching parameters by position.

        Raises ValueError if the number or the sizes of groups differ. Slots are copied into the
        existing ones; new ones other than `step` take their parameter's dtype.
        """
        if not isinstance(state_dict, dict) or not {"state", "param_groups"} <= state_dict.keys():
            raise InvalidValueError(
                "this is not the state dict of an optimizer",
                why="it needs the keys 'state' and 'param_groups'",
                fix="give what optimizer.state_dict() returned, not the model's",
            )
        saved = state_dict["param_groups"]
        if len(saved) != len(self.param_groups):
            raise InvalidValueError(
                "loaded state dict has a different number of parameter groups "
                f"({len(saved)}, this optimizer has {len(self.param_groups)})"
            )
        parameter_of: dict[Any, Tensor] = {}
        for mine, theirs in zip(self.param_groups, saved):
            if len(mine["params"]) != len(theirs["params"]):
                raise InvalidValueError(
                    "loaded state dict contains a parameter group that doesn't match the size of "
                    "optimizer's group"
                )
            parameter_of.update(zip(theirs["params"], mine["params"]))
        loaded = {parameter_of.get(key, key): slots for key, slots in state_dict["state"].items()}
        with no_grad():
            for parameter, slots in loaded.items():
                self._load_slots(parameter, slots)
            for parameter in [p for p in self.state if p not in loaded]:
                del self.state[parameter]
        for mine, theirs in zip(self.param_groups, saved):
            options = {k: v for k, v in copy.deepcopy(dict(theirs)).items() if k != "params"}
            for key in [k for k in mine if k != "params" and k not in options]:
                del mine[key]
            mine.update(options)

    def _load_slots(self, parameter: Any, slots: dict[str, Any]) -> None:
        """Take over one parameter's slots.

        A slot that exists is written in place: a compiled step has captured it, and would go on
        with the old tensor if it were replaced.
        """
        own = self.state[parameter]
        for name in [name for name in own if name not in slots]:
            del own[name]  # it will be made anew, as before the first step
        for name, slot in slots.items():
            if not isinstance(slot, Tensor):
                own[name] = copy.deepcopy(slot)
                continue
            present = own.get(name)
            if isinstance(present, Tensor) and present.shape == slot.shape:
                present.copy_(slot)
            else:
                dtype = slot.dtype if name == "step" else getattr(parameter, "dtype", slot.dtype)
                own[name] = slot.detach().clone().to(dtype)

    def __repr__(self) -> str:
        lines = [type(self).__name__ + " ("]
        for index, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {index}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join([*lines, ")"])


_ABSENT = object()


def options_of(group: Any, *names: str) -> dict[str, Any]:
    """Options of a group (those it has), each read once for all its parameters."""
    found = {name: group.get(name, _ABSENT) for name in names}
    return {name: value for name, value in found.items() if value is not _ABSENT}


def check_not_negative(name: str, value: Any) -> None:
    """Raise InvalidValueError for a negative number, and for what is no number; None passes."""
    if isinstance(value, str) or not (value is None or hasattr(value, "__float__")):
        raise InvalidValueError(f"Invalid {name} value: {value!r}", fix="give a number")
    if value is not None and not value >= 0:
        raise InvalidValueError(f"Invalid {name} value: {value}", fix="give 0 or more")
