"""Adagrad (Duchi, Hazan & Singer 2011)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tracegrad as tg
from tracegrad.optim.optimizer import Optimizer, check_not_negative


class Adagrad(Optimizer):
    """s += g^2;  p -= lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps)."""

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-2, lr_decay: float = 0,
        weight_decay: float = 0, initial_accumulator_value: float = 0, eps: float = 1e-10,
        foreach: bool | None = None, *, maximize: bool = False, differentiable: bool = False,
        fused: bool | None = None,
    ):  # fmt: skip
        check_not_negative("learning rate", lr)
        check_not_negative("lr_decay", lr_decay)
        check_not_negative("weight_decay", weight_decay)
        check_not_negative("initial_accumulator_value", initial_accumulator_value)
        check_not_negative("epsilon", eps)
        super().__init__(
            params,
            {
                "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
                "initial_accumulator_value": initial_accumulator_value, "foreach": foreach,
                "maximize": maximize, "differentiable": differentiable, "fused": fused,
            },
        )  # fmt: skip
        for group in self.param_groups:
            for p in group["params"]:
                self._slots(p, group)

    def _slots(self, p: Any, group: Any) -> tuple[Any, Any]:
        step = self.init_slot(p, "step", lambda: tg.zeros((), dtype=tg.float32))
        start = float(dict.__getitem__(group, "initial_accumulator_value"))
        return step, self.init_slot(p, "sum", lambda: tg.full_like(p, start))

    def _update_group(self, group: Any) -> None:
        lr, lr_decay, weight_decay = group["lr"], group["lr_decay"], group["weight_decay"]
        for p in group["params"]:
            grad = p.grad
            if grad is None:
                continue
            step, total = self._slots(p, group)
            step.add_(1.0)
            if group["maximize"]:
                grad = -grad
            if weight_decay:
                grad = grad + p * weight_decay
            rate = lr / (1 + (step.item() - 1) * lr_decay)
            total.add_(grad * grad)
            p.sub_(grad / total.sqrt().add_(group["eps"]) * rate)
