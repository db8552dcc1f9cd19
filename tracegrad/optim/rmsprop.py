"""RMSprop (Tieleman & Hinton 2012), optionally centered (Graves 2013) and with momentum."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import tracegrad as tg
from tracegrad.optim.optimizer import Optimizer, check_not_negative, options_of
from tracegrad.tracer.eager.pieces import pieces


class RMSprop(Optimizer):
    """v = alpha v + (1 - alpha) g^2;  p -= lr g / (sqrt(v) + eps): eps stands outside the root."""

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
        weight_decay: float = 0, momentum: float = 0, centered: bool = False,
        capturable: bool = False, foreach: bool | None = None, maximize: bool = False,
        differentiable: bool = False,
    ):  # fmt: skip
        check_not_negative("learning rate", lr)
        check_not_negative("epsilon", eps)
        check_not_negative("momentum", momentum)
        check_not_negative("weight_decay", weight_decay)
        check_not_negative("alpha", alpha)
        super().__init__(
            params,
            {
                "lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered,
                "weight_decay": weight_decay, "capturable": capturable, "foreach": foreach,
                "maximize": maximize, "differentiable": differentiable,
            },
        )  # fmt: skip

    def _update_group(self, group: Any) -> None:
        options = options_of(
            group, "lr", "alpha", "eps", "weight_decay", "momentum", "centered", "maximize"
        )  # fmt: skip
        for p in group["params"]:
            grad = p.grad
            if grad is None:
                continue
            step = self.init_slot(p, "step", lambda: tg.zeros((), dtype=tg.float32))
            names = ["square_avg"]
            names += ["grad_avg"] if options["centered"] else []
            names += ["momentum_buffer"] if options["momentum"] else []
            slots = [self.init_slot(p, name, partial(tg.zeros_like, p)) for name in names]
            step.add_(1.0)
            for grad_, p_, *slots_ in pieces(grad, p, *slots):
                self._update(options, grad_, p_, dict(zip(names, slots_)))

    def _update(self, options: dict[str, Any], grad: Any, p: Any, slots: dict[str, Any]) -> None:
        """One parameter, or a piece of it."""
        lr, alpha = options["lr"], options["alpha"]
        momentum, weight_decay = options["momentum"], options["weight_decay"]
        v = slots["square_avg"]
        if options["maximize"]:
            grad = -grad
        if weight_decay:
            grad = grad + p * weight_decay
        v.mul_(alpha).add_(grad * grad * (1 - alpha))
        if options["centered"]:
            mean = slots["grad_avg"].mul_(alpha).add_(grad * (1 - alpha))
            spread = (v - mean * mean).sqrt()
        else:
            spread = v.sqrt()
        update = grad / spread.add_(options["eps"])
        if momentum:
            update = slots["momentum_buffer"].mul_(momentum).add_(update)
        p.sub_(update * lr)
