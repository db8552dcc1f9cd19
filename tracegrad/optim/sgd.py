"""Stochastic gradient descent with momentum (Sutskever et al. 2013, in PyTorch's form)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import tracegrad as tg
from tracegrad.optim.optimizer import Optimizer, check_not_negative, options_of
from tracegrad.tracer import new_state, note_item
from tracegrad.tracer.eager.pieces import pieces
from tracegrad.tracer.errors import InvalidValueError


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
        check_not_negative("learning rate", lr)
        check_not_negative("momentum", momentum)
        check_not_negative("weight_decay", weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise InvalidValueError("Nesterov momentum requires a momentum and zero dampening")
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
        options = options_of(
            group, "lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize"
        )  # fmt: skip
        momentum, dampening = options["momentum"], options["dampening"]
        for p in group["params"]:
            grad = p.grad
            if grad is None:
                continue
            slots, damping = [], 1
            if momentum:
                # From zero, momentum b + g is g: the first step needs no case of its own...
                fresh = dict.get(self.state[p], "momentum_buffer") is None
                slots.append(self.init_slot(p, "momentum_buffer", partial(tg.zeros_like, p)))
                if dampening:
                    damping = 1 - dampening * self._damped(p, fresh)
            for grad_, p_, *slots_ in pieces(grad, p, *slots):
                self._update(options, damping, grad_, p_, *slots_)

    def _update(
        self, options: dict[str, Any], damping: Any, grad: Any, p: Any, buffer: Any = None
    ) -> None:
        """One parameter, or a piece of it; the gradient enters the buffer times `damping`."""
        momentum, weight_decay = options["momentum"], options["weight_decay"]
        if options["maximize"]:
            grad = -grad
        if weight_decay:
            grad = grad + p * weight_decay
        if buffer is not None:
            buffer.mul_(momentum).add_(grad * damping if options["dampening"] else grad)
            grad = grad + buffer * momentum if options["nesterov"] else buffer
        p.sub_(grad * options["lr"])

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
