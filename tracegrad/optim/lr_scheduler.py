"""Learning-rate schedules with PyTorch's names and chainable formulas.

Here: the one-cycle policy, schedules made of schedules, and the one that watches a metric. The
curves stand in `schedule_curves.py`, the base in `schedule.py`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from tracegrad.names import public
from tracegrad.optim.optimizer import Optimizer
from tracegrad.optim.schedule import LRScheduler, per_group, set_rate, shown_as
from tracegrad.optim.schedule_curves import (
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)
from tracegrad.tracer import host_action
from tracegrad.tracer.errors import ArgumentError, InvalidValueError

_LRScheduler = LRScheduler  # its older name, which classes in repositories are derived from


class OneCycleLR(LRScheduler):
    """One cycle up and down, momentum the other way (Smith & Topin 2019)."""

    def __init__(
        self, optimizer: Optimizer, max_lr: float | list[float], total_steps: int | None = None,
        epochs: int | None = None, steps_per_epoch: int | None = None, pct_start: float = 0.3,
        anneal_strategy: str = "cos", cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85, max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0, final_div_factor: float = 1e4, three_phase: bool = False,
        last_epoch: int = -1,
    ):  # fmt: skip
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise InvalidValueError(
                    "You must define either total_steps OR (epochs AND steps_per_epoch)"
                )
            total_steps = epochs * steps_per_epoch
        if total_steps <= 0:
            raise InvalidValueError(f"Expected positive integer total_steps, but got {total_steps}")
        if not 0 <= pct_start <= 1:
            raise InvalidValueError(
                f"Expected float between 0 and 1 pct_start, but got {pct_start}"
            )
        if anneal_strategy not in ("cos", "linear"):
            raise InvalidValueError(
                f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}"
            )
        self.total_steps = total_steps
        self._anneal_func_type = anneal_strategy
        low, high, least = "initial_lr", "max_lr", "min_lr"
        if three_phase:
            ends = (pct_start * total_steps - 1, 2 * pct_start * total_steps - 2, total_steps - 1)
            self._phases = [(ends[0], low, high), (ends[1], high, low), (ends[2], low, least)]
        else:
            self._phases = [
                (pct_start * total_steps - 1, low, high),
                (total_steps - 1, high, least),
            ]
        self.cycle_momentum = cycle_momentum
        groups = optimizer.param_groups
        if last_epoch == -1:
            for group, peak in zip(groups, per_group(max_lr, optimizer, "max_lr")):
                group["initial_lr"] = peak / div_factor
                group["max_lr"] = peak
                group["min_lr"] = group["initial_lr"] / final_div_factor
        if cycle_momentum:
            if "momentum" not in optimizer.defaults and "betas" not in optimizer.defaults:
                raise InvalidValueError(
                    "optimizer must support momentum or beta1 with `cycle_momentum` option enabled"
                )
            self.use_beta1 = "betas" in optimizer.defaults
            if last_epoch == -1:
                bases = per_group(base_momentum, optimizer, "base_momentum")
                peaks = per_group(max_momentum, optimizer, "max_momentum")
                for group, base, peak in zip(groups, bases, peaks):
                    self._set_momentum(group, peak)
                    group["max_momentum"] = peak
                    group["base_momentum"] = base
        super().__init__(optimizer, last_epoch)

    def _set_momentum(self, group: Any, value: float) -> None:
        if self.use_beta1:
            group["betas"] = (value, *group["betas"][1:])
        else:
            group["momentum"] = value

    def _anneal(self, start: float, end: float, done: float) -> float:
        if self._anneal_func_type == "linear":
            return (end - start) * done + start
        return end + (start - end) / 2.0 * (math.cos(math.pi * done) + 1)

    def get_lr(self) -> list[float]:
        step = self.last_epoch
        if step > self.total_steps:
            raise InvalidValueError(
                f"Tried to step {step} times. The specified number of total steps is "
                f"{self.total_steps}"
            )
        opposite = {"initial_lr": "max_momentum", "max_lr": "base_momentum",
                    "min_lr": "max_momentum"}  # fmt: skip
        rates = []
        for group in self.optimizer.param_groups:
            begin = 0.0
            for index, (end, low, high) in enumerate(self._phases):
                if step <= end or index == len(self._phases) - 1:
                    done = (step - begin) / (end - begin)
                    rates.append(self._anneal(group[low], group[high], done))
                    if self.cycle_momentum:
                        first, last = group[opposite[low]], group[opposite[high]]
                        self._set_momentum(group, self._anneal(first, last, done))
                    break
                begin = end
        return rates


class _Composite(LRScheduler):
    """A scheduler made of schedulers; its state dict holds theirs."""

    _skip = ("optimizer", "_schedulers")
    _schedulers: list[LRScheduler]

    def _undo_initial_steps(self) -> None:
        for scheduler in self._schedulers:
            if isinstance(scheduler, _Composite):
                scheduler._undo_initial_steps()
            else:
                scheduler.last_epoch -= 1

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimiser, with the schedulers' own states."""
        return {**super().state_dict(), "_schedulers": [s.state_dict() for s in self._schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` holds."""
        state = dict(state_dict)
        for scheduler, inner in zip(self._schedulers, state.pop("_schedulers")):
            scheduler.load_state_dict(inner)
        super().load_state_dict(state)


class SequentialLR(_Composite):
    """Runs schedulers one after another, changing at each milestone."""

    def __init__(
        self, optimizer: Optimizer, schedulers: list[LRScheduler], milestones: list[int],
        last_epoch: int = -1,
    ):  # fmt: skip
        if not schedulers:
            raise InvalidValueError(
                "SequentialLR expects at least one scheduler, but got no scheduler."
            )
        for index, scheduler in enumerate(schedulers):
            if isinstance(scheduler, ReduceLROnPlateau):
                raise InvalidValueError(
                    "SequentialLR does not support `ReduceLROnPlateau` scheduler, whose step needs "
                    f"a metric, but got one at index {index}"
                )
            if scheduler.optimizer is not optimizer:
                raise InvalidValueError(
                    "SequentialLR expects all schedulers to belong to the same optimizer, but got "
                    f"scheduler {type(scheduler).__name__} at index {index} with another one"
                )
        if len(milestones) != len(schedulers) - 1:
            raise InvalidValueError(
                "Sequential Schedulers expects number of schedulers provided to be one more than "
                f"the number of milestone points, but got number of schedulers {len(schedulers)} "
                f"and the number of milestones to be equal to {len(milestones)}"
            )
        self._schedulers = schedulers
        self._milestones = milestones
        self.last_epoch = last_epoch + 1
        self.optimizer = optimizer
        # Each scheduler took its initial step when it was made; only the first one's counts.
        for group in optimizer.param_groups:
            set_rate(group, group["initial_lr"])
        self._undo_initial_steps()
        first = schedulers[bisect_right(milestones, 0)]
        first._initial_step()
        self._last_lr = first.get_last_lr()

    def _advance(self, epoch: float | None = None) -> None:
        self.last_epoch += 1
        index = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[index]
        if index > 0 and self._milestones[index - 1] == self.last_epoch:
            scheduler._restart()
        else:
            scheduler._advance()
        self._last_lr = scheduler.get_last_lr()


class ChainedScheduler(_Composite):
    """Steps several schedulers at once; their factors multiply."""

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None):
        if not schedulers:
            raise InvalidValueError(
                "ChainedScheduler expects at least one scheduler, but got none."
            )
        optimizer = optimizer or schedulers[0].optimizer
        for index, scheduler in enumerate(schedulers):
            if isinstance(scheduler, ReduceLROnPlateau) or scheduler.optimizer is not optimizer:
                raise InvalidValueError(
                    "ChainedScheduler expects schedulers of one optimizer, none of them "
                    f"ReduceLROnPlateau; index {index} ({type(scheduler).__name__}) is not"
                )
        self._schedulers = list(schedulers)
        self.optimizer = optimizer
        self._last_lr = self._current()

    def _initial_step(self) -> None:
        for scheduler in self._schedulers:
            scheduler._initial_step()
        self._last_lr = self._current()

    def _advance(self, epoch: float | None = None) -> None:
        for scheduler in self._schedulers:
            scheduler._advance()
        self._last_lr = self._current()


class ReduceLROnPlateau(LRScheduler):
    """Multiplies by `factor` when a metric has not improved for more than `patience` epochs."""

    def __init__(
        self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: int = 10,
        threshold: float = 1e-4, threshold_mode: str = "rel", cooldown: int = 0,
        min_lr: float | list[float] = 0, eps: float = 1e-8,
    ):  # fmt: skip
        if factor >= 1.0:
            raise InvalidValueError("Factor should be < 1.0.")
        if mode not in ("min", "max"):
            raise InvalidValueError(f"mode {mode} is unknown!")
        if threshold_mode not in ("rel", "abs"):
            raise InvalidValueError(f"threshold mode {threshold_mode} is unknown!")
        if not isinstance(optimizer, Optimizer):
            raise ArgumentError(f"{type(optimizer).__name__} is not an Optimizer")
        self.optimizer = optimizer
        self.mode = mode
        self.factor = factor
        self.patience = patience
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.cooldown = cooldown
        self.min_lrs = per_group(min_lr, optimizer, "min_lr")
        self.eps = eps
        self.last_epoch = 0
        self._last_lr = self._current()
        self._reset()

    def _reset(self) -> None:
        """Forget the best value and all counters."""
        self.best = math.inf if self.mode == "min" else -math.inf
        self.cooldown_counter = 0
        self.num_bad_epochs = 0

    def is_better(self, value: float, best: float) -> bool:
        """Whether `value` improves on `best` by more than the threshold."""
        sign = 1 if self.mode == "max" else -1
        if self.threshold_mode == "rel":
            bound = best * (1 + sign * self.threshold)
        else:
            bound = best + sign * self.threshold
        return value > bound if self.mode == "max" else value < bound

    def step(self, metrics: Any, epoch: int | None = None) -> None:  # type: ignore[override]
        """Look at the metric of one epoch (a number or a one-element tensor)."""
        self._refuse_tensors()
        self._host_look(metrics, epoch)

    @host_action
    @shown_as("step")
    def _host_look(self, metrics: Any, epoch: int | None) -> None:
        current = float(metrics)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        if self.is_better(current, self.best):
            self.best = current
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            for group, least in zip(self.optimizer.param_groups, self.min_lrs):
                lowered = max(group["lr"] * self.factor, least)
                if group["lr"] - lowered > self.eps:
                    set_rate(group, lowered)
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0
        self._last_lr = self._current()


__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
]

public(__name__)
