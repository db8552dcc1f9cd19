"""Adam (Kingma & Ba 2015), AMSGrad (Reddi et al. 2018), AdamW (Loshchilov & Hutter 2019)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import tracegrad as tg
from tracegrad.optim.optimizer import Optimizer, check_not_negative, options_of
from tracegrad.tracer.eager.pieces import pieces
from tracegrad.tracer.errors import InvalidValueError


class Adam(Optimizer):
    """m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  p -= lr m^ / (sqrt(v^) + eps).

    m^ = m / (1 - b1^t) and v^ likewise. `weight_decay` is coupled (added to the gradient) unless
    `decoupled_weight_decay`, which is AdamW.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0,
        amsgrad: bool = False, *, foreach: bool | None = None, maximize: bool = False,
        capturable: bool = False, differentiable: bool = False, fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ):  # fmt: skip
        check_not_negative("learning rate", lr)
        check_not_negative("epsilon", eps)
        check_not_negative("weight_decay", weight_decay)
        for index, beta in enumerate(betas):
            if not 0.0 <= beta < 1.0:
                raise InvalidValueError(
                    f"Invalid beta parameter at index {index}: {beta}",
                    fix="give numbers from 0 to below 1",
                )
        super().__init__(
            params,
            {
                "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
                "amsgrad": amsgrad, "maximize": maximize, "foreach": foreach,
                "capturable": capturable, "differentiable": differentiable, "fused": fused,
                "decoupled_weight_decay": decoupled_weight_decay,
            },
        )  # fmt: skip

    def _update_group(self, group: Any) -> None:
        options = options_of(
            group, "lr", "betas", "eps", "weight_decay", "amsgrad", "maximize", "decoupled_weight_decay"
        )  # fmt: skip
        for p in group["params"]:
            grad = p.grad
            if grad is None:
                continue
            step = self.init_slot(p, "step", lambda: tg.zeros((), dtype=tg.float32))
            m = self.init_slot(p, "exp_avg", partial(tg.zeros_like, p))
            v = self.init_slot(p, "exp_avg_sq", partial(tg.zeros_like, p))
            step.add_(1.0)
            t = step.item()  # a float64 number, in a trace too
            slots = [m, v]
            if options["amsgrad"]:
                slots.append(self.init_slot(p, "max_exp_avg_sq", partial(tg.zeros_like, p)))
            for grad_, p_, *slots_ in pieces(grad, p, *slots):
                self._update(options, t, grad_, p_, *slots_)

    def _update(
        self,
        options: dict[str, Any],
        t: Any,
        grad: Any,
        p: Any,
        m: Any,
        v: Any,
        largest: Any = None,
    ) -> None:
        """Step `t` of one parameter, or of a piece of it."""
        lr, weight_decay = options["lr"], options["weight_decay"]
        beta1, beta2 = options["betas"]
        if options["maximize"]:
            grad = -grad
        if weight_decay:
            if options["decoupled_weight_decay"]:
                p.mul_(1 - lr * weight_decay)
            else:
                grad = grad + p * weight_decay
        m.mul_(beta1).add_(grad * (1 - beta1))
        v.mul_(beta2).add_(grad * grad * (1 - beta2))
        correction1 = 1 - beta1**t
        root_correction2 = (1 - beta2**t) ** 0.5
        if largest is not None:
            v = largest.copy_(tg.maximum(largest, v))
        denominator = v.sqrt().div_(root_correction2).add_(options["eps"])
        p.sub_(m / denominator * (lr / correction1))


class AdamW(Adam):
    """Adam with decoupled weight decay: p *= 1 - lr weight_decay before the update."""

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 1e-2,
        amsgrad: bool = False, *, maximize: bool = False, foreach: bool | None = None,
        capturable: bool = False, differentiable: bool = False, fused: bool | None = None,
    ):  # fmt: skip
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, foreach=foreach, maximize=maximize,
            capturable=capturable, differentiable=differentiable, fused=fused,
            decoupled_weight_decay=True,
        )  # fmt: skip
