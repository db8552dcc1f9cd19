"""tracegrad: PyTorch-style deep learning whose training step becomes one compiled graph.

import tracegrad as tg
step = tg.compile(train_step)     # ordinary imperative code
step(x, y)                        # traced once, then one graph: forward, backward, optimiser
print(step.graph)
"""

import os.path as _path
from math import e, inf, nan, pi
from typing import TYPE_CHECKING as _TYPE_CHECKING

if _path.exists(_path.join(_root := _path.dirname(_path.dirname(__file__)), "pyproject.toml")):
    # A checkout: the stages stand at the repository's root (docs/decisions.md, "layout").
    __path__.append(_root)

from tracegrad.ir.types import bf16 as bfloat16
from tracegrad.ir.types import bool_ as bool
from tracegrad.ir.types import c64 as complex64
from tracegrad.ir.types import c128 as complex128
from tracegrad.ir.types import f16 as float16
from tracegrad.ir.types import f32 as float32
from tracegrad.ir.types import f64 as float64
from tracegrad.ir.types import i8 as int8
from tracegrad.ir.types import i16 as int16
from tracegrad.ir.types import i32 as int32
from tracegrad.ir.types import i64 as int64
from tracegrad.ir.types import u8 as uint8
from tracegrad.ir.types import u32 as uint32
from tracegrad.ir.types import u64 as uint64

# isort: split
from tracegrad.tracer.methods import attach as _attach  # gives Tensor its methods
from tracegrad.tracer import functions as _functions
from tracegrad.tracer.creation import random
from tracegrad.tracer.eager import quick as _quick
from tracegrad.tracer.arguments import explained as _explained
from tracegrad.tracer.methods.compatible import FUNCTIONS as _compatible
from tracegrad.tracer.methods.composed import FUNCTIONS as _composed
from tracegrad.tracer.creation.tensors import FUNCTIONS as _creation
from tracegrad.tracer.creation.random import (
    Generator,
    default_generator,
    get_rng_state,
    initial_seed,
    manual_seed,
    seed,
    set_rng_state,
)
from tracegrad.tracer.creation.ranges import FUNCTIONS as _ranges
from tracegrad.tracer.creation.sampling import FUNCTIONS as _sampling
from tracegrad.tracer.state import (
    enable_grad,
    get_default_dtype,
    inference_mode,
    is_grad_enabled,
    no_grad,
    set_default_dtype,
    set_grad_enabled,
)
from tracegrad.tracer.tensor import Device as device
from tracegrad.tracer.tensor import Size, Tensor
from tracegrad.tracer.memory.view_methods import FUNCTIONS as _views

from tracegrad.backends.base import Mesh
from tracegrad.ir.types import DType as dtype
from tracegrad.names import ELSEWHERE as _ELSEWHERE
from tracegrad.names import not_here as _not_here
from tracegrad.settings import (
    accelerator,
    are_deterministic_algorithms_enabled,
    get_default_device,
    get_float32_matmul_precision,
    get_num_threads,
    set_default_device,
    set_float32_matmul_precision,
    set_num_threads,
    set_printoptions,
    use_deterministic_algorithms,
)
from tracegrad.ir.errors import TracegradError

if _TYPE_CHECKING:
    from tracegrad import (
        amp,
        autograd,
        backends,
        cuda,
        errors,
        func,
        linalg,
        nn,
        optim,
        special,
        testing,
        utils,
    )
    from tracegrad.amp import GradScaler, autocast
    from tracegrad.compiling import compile
    from tracegrad.func import vmap
    from tracegrad.serialization import load, save
    from tracegrad.tracer.control_flow import cond, while_loop

# Imported when it is first asked for: tensors alone are there in half the time.
_LATER = {
    **dict.fromkeys((
        "amp", "autograd", "backends", "cuda", "errors", "func", "linalg", "nn", "optim", "special", "testing",
        "utils",
    )),
    "GradScaler": "amp", "autocast": "amp", "compile": "compiling", "vmap": "func",
    "load": "serialization", "save": "serialization", "cond": "tracer.control_flow",
    "while_loop": "tracer.control_flow",
}  # fmt: skip


def __getattr__(name):  # annotated, it would be unknown to mypy in import cycles
    if name not in _LATER:
        raise _not_here(__name__, name)
    from importlib import import_module

    module = import_module(f"{__name__}.{_LATER[name] or name}")
    value = globals()[name] = getattr(module, name) if _LATER[name] else module
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})


for _table in (
    _functions.FUNCTIONS, _views, _creation, _ranges, _sampling, _composed, _compatible,
):  # fmt: skip
    globals().update(
        {
            _key: _explained(_value, __name__)
            for _key, _value in _table.items()
            if _key not in _ELSEWHERE
        }
    )
globals().update(_quick.UNARY)

float, double, half, long, int = float32, float64, float16, int64, int32
cfloat, cdouble, short = complex64, complex128, int16
# Memory has one layout: these are accepted, without effect.
strided = contiguous_format = preserve_format = channels_last = None
newaxis = None

__version__ = "0.1.0"
