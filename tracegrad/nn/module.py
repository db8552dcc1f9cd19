"""Module: a tree of parameters, buffers and sub-modules with PyTorch's names and rules.

Note [Where members live]
Every parameter, buffer and sub-module stands in the instance `__dict__` under its attribute name,
so `self.weight` is an ordinary attribute read (through `__getattr__` it costs 0.43 us each, which
a training step pays hundreds of times). Three ordered name tables say which entries are
registered, and `_parameters`, `_buffers`, `_modules` are live mapping views over both.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from tracegrad.ir.types import DType
from tracegrad.nn.grads import clear_grads, present_grad
from tracegrad.nn.hooks import Hooks, RemovableHandle
from tracegrad.nn.members import Members, WalkMixin
from tracegrad.nn.parameter import Buffer, Parameter
from tracegrad.nn.state import StateDictMixin
from tracegrad.tracer import Observed, Tensor, current_trace, scope
from tracegrad.tracer.arguments import NOTICED, explain
from tracegrad.tracer.dtypes import as_dtype
from tracegrad.tracer.errors import ArgumentError, InvalidValueError, NotHere
from tracegrad.tracer.locate import is_own_code

USE_TENSOR_HOOKS = "register them on tensors, tensor.register_hook(), in forward or a forward hook"
_TABLES = ("_parameter_names", "_buffer_names", "_module_names")


class Module(WalkMixin, StateDictMixin, Observed):
    """Base of layers and models. Subclasses define `forward`; `super().__init__()` comes first."""

    training: bool
    _forward_hooks: Hooks
    _forward_pre_hooks: Hooks
    # Never rebound; their entries are observed.
    _noted_elsewhere = frozenset({"_forward_hooks", "_forward_pre_hooks"})

    def __init__(self) -> None:
        super().__init__()
        for table in (*_TABLES, "_transient_names"):
            object.__setattr__(self, table, {})
        object.__setattr__(self, "_forward_hooks", Hooks())
        object.__setattr__(self, "_forward_pre_hooks", Hooks())
        object.__setattr__(self, "_scope_name", type(self).__name__)
        object.__setattr__(self, "training", True)

    # ---- members -------------------------------------------------------------------------------

    @property
    def _parameters(self) -> Members:
        return Members(self, self._parameter_names)

    @property
    def _buffers(self) -> Members:
        return Members(self, self._buffer_names)

    @property
    def _modules(self) -> Members:
        return Members(self, self._module_names)

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        if isinstance(value, Parameter):
            self._check_initialised("parameters")
            self._forget_member(name, keep="_parameter_names")
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self._check_initialised("modules")
            self._forget_member(name, keep="_module_names")
            self._put_member(own["_module_names"], name, value)
            value._set_scope_name(self._child_scope_name(name))
        elif isinstance(value, Buffer):
            self._check_initialised("buffers")
            self._forget_member(name, keep="_buffer_names")
            self.register_buffer(name, value, value.persistent)
        elif name in own.get("_parameter_names", ()):
            if value is not None:
                raise ArgumentError(
                    f"cannot assign '{type(value).__name__}' as parameter '{name}' "
                    "(tracegrad.nn.Parameter or None expected); wrap it in nn.Parameter(...), or "
                    f"write into the existing one: self.{name}.copy_(value) under no_grad"
                )
            super().__setattr__(name, None)
        elif name in own.get("_module_names", ()):
            if value is not None:
                raise ArgumentError(
                    f"cannot assign '{type(value).__name__}' as child module '{name}' "
                    "(tracegrad.nn.Module or None expected)"
                )
            super().__setattr__(name, None)
        elif name in own.get("_buffer_names", ()):
            if value is not None and not isinstance(value, Tensor):
                raise ArgumentError(
                    f"cannot assign '{type(value).__name__}' as buffer '{name}' "
                    "(tracegrad.Tensor or None expected)"
                )
            super().__setattr__(name, value)
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        for table in (*_TABLES, "_transient_names"):
            self.__dict__[table].pop(name, None)
        super().__delattr__(name)

    def _check_initialised(self, what: str) -> None:
        if "_parameter_names" not in self.__dict__:
            raise AttributeError(
                f"cannot assign {what} before Module.__init__() call; "
                f"call super().__init__() first in {type(self).__name__}.__init__"
            )

    def _forget_member(self, name: str, keep: str) -> None:
        """Drop what `name` was before, unless it stands in table `keep`: then it stays there."""
        own = self.__dict__
        if name in own and name not in own[keep]:
            self.__delattr__(name)

    def _put_member(self, table: dict[str, None], name: str, value: Any) -> None:
        table[name] = None
        super().__setattr__(name, value)

    def _check_member_name(self, kind: str, name: str, table: dict[str, None]) -> None:
        if not isinstance(name, str):
            raise ArgumentError(f"{kind} name should be a string. Got {type(name).__name__}")
        if "." in name:
            raise KeyError(f'{kind} name can\'t contain ".", got: {name}')
        if name == "":
            raise KeyError(f'{kind} name can\'t be empty string ""')
        if hasattr(self, name) and name not in table:
            raise KeyError(f"attribute '{name}' already exists")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter under `name`; None reserves the name (a layer without bias, say)."""
        self._check_initialised("parameters")
        self._check_member_name("parameter", name, self._parameter_names)
        if param is not None and not isinstance(param, Parameter):
            raise ArgumentError(
                f"cannot assign '{type(param).__name__}' object to parameter '{name}' "
                "(tracegrad.nn.Parameter or None required)"
            )
        self._put_member(self._parameter_names, name, param)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add state that is not a parameter, in `state_dict()` only if persistent."""
        self._check_initialised("buffers")
        self._check_member_name("buffer", name, self._buffer_names)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise ArgumentError(
                f"cannot assign '{type(tensor).__name__}' object to buffer '{name}' "
                "(tracegrad.Tensor or None required)"
            )
        self._put_member(self._buffer_names, name, tensor)
        if persistent:
            self._transient_names.pop(name, None)
        else:
            self._transient_names[name] = None

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a child under `name`."""
        self._check_initialised("modules")
        if module is not None and not isinstance(module, Module):
            raise ArgumentError(f"{type(module).__name__} is not a Module subclass")
        self._check_member_name("module", name, self._module_names)
        self._put_member(self._module_names, name, module)
        if module is not None:
            module._set_scope_name(self._child_scope_name(name))

    register_module = add_module

    # ---- calling -------------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; every subclass defines it."""
        raise NotImplementedError(
            f'Module [{type(self).__name__}] is missing the required "forward" function'
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if current_trace() is not None:
            with scope(object.__getattribute__(self, "_scope_name")):
                return self._call_with_hooks(args, kwargs)
        if self._forward_hooks or self._forward_pre_hooks:
            return self._call_with_hooks(args, kwargs)
        try:
            return self.forward(*args, **kwargs)
        except NOTICED as error:
            self._explain(args, kwargs, error)
            raise

    def _call_with_hooks(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for hook, with_kwargs in self._forward_pre_hooks:
            if with_kwargs:
                replaced = hook(self, args, kwargs)
                if replaced is not None:
                    args, kwargs = replaced
            else:
                replaced = hook(self, args)
                if replaced is not None:
                    args = replaced if isinstance(replaced, tuple) else (replaced,)
        try:
            result = self.forward(*args, **kwargs)
        except NOTICED as error:
            self._explain(args, kwargs, error)
            raise
        for hook, with_kwargs in self._forward_hooks:
            replaced = hook(self, args, kwargs, result) if with_kwargs else hook(self, args, result)
            if replaced is not None:
                result = replaced
        return result

    def _explain(self, args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception) -> None:
        """What one of the library's modules was given that it does not take."""
        code = getattr(self.forward, "__code__", None)
        if code is not None and is_own_code(code):
            explain(self.forward, type(self).__name__, args, kwargs, error)

    def _set_scope_name(self, name: str) -> None:
        """What this module is called in source locations: its attribute in the parent."""
        object.__setattr__(self, "_scope_name", name)

    def _child_scope_name(self, name: str) -> str:
        """Containers that are never called themselves put their own name in front."""
        return name

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """`hook(module, args)` runs before forward and may return new arguments."""
        return self._forward_pre_hooks.add(hook, with_kwargs, prepend)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """`hook(module, args, output)` runs after forward and may return a new output."""
        return self._forward_hooks.add(hook, with_kwargs, prepend)

    register_backward_hook = NotHere(USE_TENSOR_HOOKS)
    register_full_backward_hook = NotHere(USE_TENSOR_HOOKS)
    register_full_backward_pre_hook = NotHere(USE_TENSOR_HOOKS)
    register_state_dict_pre_hook = NotHere("override state_dict()")
    register_state_dict_post_hook = NotHere("change the dict that state_dict() returns")
    register_load_state_dict_pre_hook = NotHere("override load_state_dict()")
    register_load_state_dict_post_hook = NotHere("override load_state_dict()")
    to_empty = NotHere("there is no device without memory: make the module, and load its state")
    share_memory = NotHere("give the state_dict() to the other process")
    set_submodule = NotHere("set the attribute of the parent: get_submodule(parent)")
    type = NotHere("to(dtype)")

    # ---- changing ------------------------------------------------------------------------------

    def apply(self, fn: Callable[[Module], Any]) -> Module:
        """Call `fn` on every module, children first."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def train(self, mode: bool = True) -> Module:
        """Set training mode on the whole tree (dropout, batch norm)."""
        if not isinstance(mode, bool):
            raise InvalidValueError("training mode is expected to be boolean")
        self.training = mode
        for child in self.children():
            child.train(mode)
        return self

    def eval(self) -> Module:
        """Set evaluation mode on the whole tree."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        """Switch gradients of every parameter on or off."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear every parameter's gradient."""
        clear_grads(self.parameters(), set_to_none)

    def _apply(self, fn: Callable[[Tensor], Tensor]) -> Module:
        """Replace the data of every parameter, gradient and buffer by `fn` of it."""
        for tensor in itertools.chain(self.parameters(), self.buffers()):
            grad = present_grad(tensor)
            before = tensor.data
            after = fn(before)
            if after is before:
                continue
            tensor.data = after
            if grad is not None:
                tensor.grad = fn(grad)
        return self

    def to(self, *args: Any, **kwargs: Any) -> Module:
        """Convert floating-point parameters and buffers to a dtype, in place; returns self.

        `to(dtype)`, `to(tensor)`, `to("cpu")` and the keywords `dtype=`, `device=` are understood.
        """
        dtype = as_dtype(kwargs.pop("dtype", None))
        device = kwargs.pop("device", None)
        kwargs.pop("non_blocking", None)
        if kwargs:
            raise ArgumentError(f"to() got unexpected arguments {sorted(kwargs)}")
        for argument in args:
            if isinstance(argument, Tensor):
                dtype = argument.dtype
            elif isinstance(argument, (DType, type)):
                dtype = as_dtype(argument)
            elif argument is not None and not isinstance(argument, bool):
                device = argument
        if dtype is not None and not dtype.is_inexact:
            raise ArgumentError(
                "nn.Module.to only accepts floating point or complex dtypes, but got desired "
                f"dtype={dtype}"
            )

        def convert(tensor: Tensor) -> Tensor:
            moved = tensor if device is None else tensor.to(device)
            return moved.to(dtype) if dtype is not None and tensor.is_floating_point() else moved

        return self._apply(convert)

    def float(self) -> Module:
        """Floating-point members to float32."""
        return self._apply(lambda t: t.float() if t.is_floating_point() else t)

    def double(self) -> Module:
        """Floating-point members to float64."""
        return self._apply(lambda t: t.double() if t.is_floating_point() else t)

    def half(self) -> Module:
        """Floating-point members to float16."""
        return self._apply(lambda t: t.half() if t.is_floating_point() else t)

    def bfloat16(self) -> Module:
        """Floating-point members to bfloat16."""
        return self._apply(lambda t: t.bfloat16() if t.is_floating_point() else t)

    def cpu(self) -> Module:
        """Here for scripts written for several devices; parameters stand in host memory already."""
        return self

    def cuda(self, device: Any = None) -> Module:
        """Refused: eager tensors live on the CPU; compiled functions run on accelerators."""
        return self.to("cuda" if device is None else f"cuda:{device}")

    # ---- printing ------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """The part of the repr between the parentheses; layers override it."""
        return ""

    def _get_name(self) -> str:
        return type(self).__name__

    def __repr__(self) -> str:
        extra = self.extra_repr()
        extra_lines = extra.split("\n") if extra else []
        child_lines = [
            f"({name}): " + repr(self.__dict__[name]).replace("\n", "\n  ")
            for name in self._module_names
        ]
        lines = extra_lines + child_lines
        head = self._get_name() + "("
        if not lines:
            return head + ")"
        if len(extra_lines) == 1 and not child_lines:
            return head + extra_lines[0] + ")"
        return head + "\n  " + "\n  ".join(lines) + "\n)"

    def compile(self, **options: Any) -> Module:
        """Compile this module's forward in place; the names of its parameters do not change."""
        import tracegrad as tg

        object.__setattr__(self, "forward", tg.compile(self.forward, **options))
        return self
