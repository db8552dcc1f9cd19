"""Stochastic gradient descent with momentum (Sutskever et al. 2013, in PyTorch's form)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tracegrad as tg
from tracegrad.optim.optimizer import Optimizer, check_range
from tracegrad.tracer import new_state, note_item


class SGD(Optimizer):
    """b = momentum b + (1 - dampening) g;  p -= lr b,  where the first b is g itself.

    `weight_decay` is coupled: it is added to the gradient. `nesterov` steps along g + momentum b.
    """

    _noted_elsewhere = Optimizer._noted_elsewhere | {"_started"}

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, momentum: float = 0, dampening: float = 0,
        weight_decay: float = 0, nesterov: bool = False, *, maximize: bool = False,
        foreach: bool | None = None, differentiable: bool = False, fused: bool | None = None,
    ):  # fmt: skip
        check_range("learning rate", lr)
        check_range("momentum", momentum)
        check_range("weight_decay", weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        super().__init__(
            params,
            {
                "lr": lr, "momentum": momentum, "dampening": dampening,
                "weight_decay": weight_decay, "nesterov": nesterov, "maximize": maximize,
                "foreach": foreach, "differentiable": differentiable, "fused": fused,
            },
        )  # fmt: skip

        self._started: dict[Any, Any] = {}

    def _update_group(self, group: Any) -> None:
        lr, momentum, weight_decay = group["lr"], group["momentum"], group["weight_decay"]
        dampening = group["dampening"]
        for p in group["params"]:
            grad = p.grad
            if grad is None:
                continue
            if group["maximize"]:
                grad = -grad
            if weight_decay:
                grad = grad + p * weight_decay
            if momentum:
                # From zero, momentum b + g is g: the first step needs no case of its own...
                fresh = self.state[p].get("momentum_buffer") is None
                buffer = self.init_slot(p, "momentum_buffer", lambda p=p: tg.zeros_like(p))
                if dampening:
                    added = grad * (1 - dampening * self._damped(p, fresh))
                else:
                    added = grad
                buffer.mul_(momentum).add_(added)
                grad = grad + buffer * momentum if group["nesterov"] else buffer
            p.sub_(grad * lr)

    def _damped(self, p: Any, fresh: bool) -> Any:
        """... except with dampening, which spares the first step: 0 there, 1 afterwards.

        The flag is a tensor, so that one graph serves the first step and all others.
        """
        flag = None if fresh else self._started.get(p)
        if flag is None:
            start = 0.0 if fresh else 1.0
            flag = self._started[p] = new_state(
                lambda: tg.full((), start, dtype=tg.float64), lambda: self._started.pop(p, None)
            )
        note_item(self._started, p, flag)
        before = flag.item()
        flag.fill_(1.0)
        return before
