"""The base of learning-rate schedules.

A scheduler takes one step when it is made, then one for each `step()` after `optimizer.step()`.
`step` is a host action: inside a compiled function it is registered while recording and runs in
Python on every call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tracegrad.optim.optimizer import Optimizer
from tracegrad.tracer import Observed, Tensor, get_mode, host_action
from tracegrad.tracer.errors import ArgumentError, InvalidValueError


def shown_as(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: errors call the function by the name that users called."""

    def named(function: Callable[..., Any]) -> Callable[..., Any]:
        function.__name__ = name
        return function

    return named


class LRScheduler(Observed):
    """Base: subclasses give `get_lr()`, the rates for `last_epoch`."""

    _skip: tuple[str, ...] = ("optimizer",)
    _host_numbers = frozenset({"_last_lr", "last_epoch", "_step_count"})

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1):
        if not isinstance(optimizer, Optimizer):
            raise ArgumentError(f"{type(optimizer).__name__} is not an Optimizer")
        self.optimizer = optimizer
        if last_epoch == -1:
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", number_now(group["lr"]))
        else:
            for index, group in enumerate(optimizer.param_groups):
                if "initial_lr" not in group:
                    raise KeyError(
                        f"param 'initial_lr' is not specified in param_groups[{index}] when "
                        "resuming scheduler with last_epoch >= 0; load the optimizer's state first"
                    )
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._initial_step()

    @host_action
    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _initial_step(self) -> None:
        self._step_count = 0
        self._is_initial = True
        try:
            self._advance()
        finally:
            self._is_initial = False

    def get_lr(self) -> list[float]:
        """The rates for `last_epoch`."""
        raise NotImplementedError

    def get_last_lr(self) -> list[float]:
        """The rates that the last step set."""
        return self._last_lr

    def step(self, epoch: float | None = None) -> None:
        """Move to the next epoch (or to `epoch`) and set the rates."""
        self._refuse_tensors()
        self._host_step(epoch)

    @host_action
    @shown_as("step")
    def _host_step(self, epoch: float | None) -> None:
        self._advance(epoch)

    def _advance(self, epoch: float | None = None) -> None:
        self._step_count += 1
        self._update(epoch)

    def _update(self, epoch: float | None) -> None:
        if epoch is None:
            self.last_epoch += 1
            rates = self.get_lr()
        else:
            self.last_epoch = int(epoch)
            closed = getattr(self, "_closed_form", None)
            rates = self.get_lr() if closed is None else closed()
        self._set(rates)

    def _restart(self) -> None:
        """Begin at epoch 0, as a member of a SequentialLR whose turn has come."""
        self._update(0)

    def _set(self, rates: Sequence[float]) -> None:
        groups = self.optimizer.param_groups
        if len(rates) != len(groups):
            raise InvalidValueError(
                f"{type(self).__name__} knows {len(rates)} parameter groups, the optimizer has "
                f"{len(groups)}",
                fix="make the schedule after add_param_group()",
            )
        for group, rate in zip(groups, rates):
            set_rate(group, rate)
        self._last_lr = list(self._current())

    def _current(self) -> list[float]:
        return [number_now(group["lr"]) for group in self.optimizer.param_groups]

    def _refuse_tensors(self) -> None:
        """Inside a compiled function a step cannot write rates that are tensors: it runs in Python,
        before the graph that reads them.
        """
        trace = get_mode().trace
        rates = [dict.get(group, "lr") for group in self.optimizer.param_groups]
        if trace is not None and any(isinstance(rate, Tensor) for rate in rates):
            trace.refuse(
                f"{type(self).__name__}.step() of a learning rate that is a tensor",
                "give the learning rate as a number (it never recompiles), or step outside",
            )

    def _scaled(self, factor: float) -> list[float]:
        return [group["lr"] * factor for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimiser."""
        return {key: getattr(self, key) for key in self.__dict__ if key not in self._skip}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` holds."""
        for name, value in state_dict.items():
            setattr(self, name, value)


def number_now(rate: Any) -> Any:
    """A rate that later steps do not change: a tensor is copied, as steps write it in place."""
    return rate.detach().clone() if isinstance(rate, Tensor) else rate


def set_rate(group: Any, rate: Any) -> None:
    """Set a group's rate; a tensor is written in place: whoever holds it sees the new rate."""
    present = group["lr"]
    if isinstance(present, Tensor):
        present.fill_(rate)
    else:
        group["lr"] = rate


def per_group(value: Any, optimizer: Optimizer, name: str) -> list[Any]:
    count = len(optimizer.param_groups)
    if not isinstance(value, list | tuple):
        return [value] * count
    if len(value) != count:
        raise InvalidValueError(f"Expected {count} values for {name}, but got {len(value)}")
    return list(value)
