"""What a compiled call costs around its work: 100 captured parameters, read in a trivial body or
all updated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from interleave import Bench, Skip

bench = Bench("call overhead", cases=["read", "update"], baseline="jax-jit", unit="us")
COUNT = 100
REPEAT = 200


def repeated(call: Callable[[], Any], wait: Callable[[Any], Any]) -> Callable[[], Any]:
    def step() -> None:
        for _ in range(REPEAT):
            result = call()
        wait(result)

    step.inner = REPEAT  # type: ignore[attr-defined]
    return step


@bench.implementation("jax-jit")
def jax_jit(case: str) -> Callable[[], Any]:
    """The floor: jax.jit with a flat list of arrays, donated where it updates."""
    try:
        import jax
        import jax.numpy as jnp
    except ImportError as error:
        raise Skip(str(error)) from None
    state = [[jnp.ones(8) for _ in range(COUNT)]]
    x = jnp.ones(8)
    if case == "read":
        function = jax.jit(lambda x, p: x + p[0] + p[-1])

        def call() -> Any:
            return function(x, state[0])
    else:
        update = jax.jit(lambda p, x: ([a + x for a in p], x * 2), donate_argnums=0)

        def call() -> Any:
            state[0], out = update(state[0], x)
            return out

    return repeated(call, lambda out: out.block_until_ready())


def tracegrad_call(backend: str) -> Callable[[str], Callable[[], Any]]:
    def prepare(case: str) -> Callable[[], Any]:
        import tracegrad as tg

        parameters = [tg.nn.Parameter(tg.ones(8)) for _ in range(COUNT)]
        x = tg.ones(8)

        if case == "read":

            @tg.no_grad()
            def body(x: Any) -> Any:
                for p in parameters:
                    p + x  # captured; its value is not needed
                return x + parameters[0] + parameters[-1]
        else:

            @tg.no_grad()
            def body(x: Any) -> Any:
                for p in parameters:
                    p.add_(x)
                return x * 2

        compiled = tg.compile(body, backend=backend)
        return repeated(lambda: compiled(x), lambda out: out.numpy())

    return prepare


bench.implementation("tracegrad-numpy")(tracegrad_call("numpy"))
bench.implementation("tracegrad-jax")(tracegrad_call("jax"))

if __name__ == "__main__":
    bench.main()
