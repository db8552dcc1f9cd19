"""Containers: Sequential, ModuleList, ModuleDict, ParameterList, ParameterDict.

Members are read with `getattr`, never from `__dict__`: a recording then sees what was read, and
notices when it is replaced.
"""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from tracegrad.nn.members import Members
from tracegrad.nn.module import Module
from tracegrad.nn.parameter import Parameter
from tracegrad.tracer import Tensor


class _Numbered(Module):
    """Members named "0", "1", ... with list indexing.

    Subclasses say where their names are (`_kept_in`), and how one is added.
    """

    _kept_in: str
    append: Callable[[Any], Any]

    @property
    def _table(self) -> dict[str, None]:
        return getattr(self, self._kept_in)

    def _key(self, index: int) -> str:
        size = len(self)
        index = operator.index(index)
        if not -size <= index < size:
            raise IndexError(f"index {index} is out of range")
        return str(index % size)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self._slice(list(self._table)[index])
        return getattr(self, self._key(index))

    def _slice(self, names: list[str]) -> Any:
        kind: Any = type(self)
        return kind([getattr(self, name) for name in names])

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[Any]:
        return iter([getattr(self, name) for name in self._table])

    def extend(self, members: Iterable[Any]) -> Any:
        """Add several at the end; returns self."""
        for member in list(members):
            self.append(member)
        return self

    def __iadd__(self, members: Iterable[Any]) -> Any:
        return self.extend(members)


class _Indexed(_Numbered):
    """Children as a list."""

    _kept_in = "_module_names"

    def _refill(self, modules: Iterable[Module]) -> None:
        """Replace all children, numbered afresh."""
        modules = list(modules)
        for name in list(self._module_names):
            delattr(self, name)
        for index, module in enumerate(modules):
            self.add_module(str(index), module)

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, self._key(index), module)

    def __delitem__(self, index: int | slice) -> None:
        modules = list(self)
        del modules[index]
        self._refill(modules)

    def append(self, module: Module) -> Any:
        """Add a module at the end; returns self."""
        self.add_module(str(len(self)), module)
        return self

    def insert(self, index: int, module: Module) -> Any:
        """Insert before `index`."""
        modules = list(self)
        modules.insert(index, module)
        self._refill(modules)
        return self

    def pop(self, index: int = -1) -> Module:
        """Remove and return the module at `index`."""
        module = self[index]
        del self[index]
        return module


class Sequential(_Indexed):
    """Calls its children one after another. Takes modules, or one OrderedDict of named modules."""

    def __init__(self, *args: Any):
        super().__init__()
        if len(args) == 1 and isinstance(args[0], OrderedDict):
            for name, module in args[0].items():
                self.add_module(name, module)
        else:
            for index, module in enumerate(args):
                self.add_module(str(index), module)

    def _key(self, index: int) -> str:
        # Children may carry names of their own (OrderedDict), so the position decides.
        super()._key(index)
        return list(self._module_names)[index]

    def _slice(self, names: list[str]) -> Sequential:
        return type(self)(OrderedDict((name, getattr(self, name)) for name in names))

    def __add__(self, other: Sequential) -> Sequential:
        return Sequential(*self, *other)

    def forward(self, input: Any) -> Any:
        for name in self._module_names:
            input = getattr(self, name)(input)
        return input


class _Transparent:
    """A container that is never called: its children carry its name in source locations."""

    def _set_scope_name(self, name: str) -> None:
        object.__setattr__(self, "_scope_name", name)
        for key in self.__dict__["_module_names"]:
            child = self.__dict__[key]
            if child is not None:
                child._set_scope_name(f"{name}.{key}")

    def _child_scope_name(self, name: str) -> str:
        return f"{self.__dict__['_scope_name']}.{name}"


class ModuleList(_Transparent, _Indexed):
    """A list of registered modules."""

    def __init__(self, modules: Iterable[Module] | None = None):
        super().__init__()
        if modules is not None:
            self.extend(modules)

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList([*self, *other])

    def __repr__(self) -> str:
        """As PyTorch: equal neighbours print once, "(0-3): 4 x Linear(...)"."""
        runs: list[tuple[int, int, str]] = []
        for index, module in enumerate(self):
            text = repr(module)
            if runs and runs[-1][2] == text:
                runs[-1] = (runs[-1][0], index, text)
            else:
                runs.append((index, index, text))
        if not runs:
            return "ModuleList()"
        lines = [
            f"({first}): {text}"
            if first == last
            else f"({first}-{last}): {last - first + 1} x {text}"
            for first, last, text in runs
        ]
        body = "\n  ".join(line.replace("\n", "\n  ") for line in lines)
        return f"{self._get_name()}(\n  {body}\n)"


class _Keyed(Module):
    """Members as a dictionary, in insertion order; subclasses say which (`_kept_in`)."""

    _kept_in: str

    @property
    def _members(self) -> Members:
        return getattr(self, self._kept_in)

    def __getitem__(self, key: str) -> Any:
        return self._members[key]

    def __delitem__(self, key: str) -> None:
        del self._members[key]

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __contains__(self, key: object) -> bool:
        return key in self._members

    def clear(self) -> None:
        """Remove every member."""
        for name in list(self._members):
            delattr(self, name)

    def pop(self, key: str) -> Any:
        """Remove and return what stands under `key`."""
        member = self[key]
        del self[key]
        return member

    def keys(self) -> Iterable[str]:
        """Names in order."""
        return self._members.keys()

    def items(self) -> Iterable[tuple[str, Any]]:
        """(name, member) pairs in order."""
        return self._members.items()

    def values(self) -> Iterable[Any]:
        """Members in order."""
        return self._members.values()


class ModuleDict(_Transparent, _Keyed):
    """A dictionary of registered modules, in insertion order."""

    _kept_in = "_modules"

    def __init__(self, modules: Mapping[str, Module] | Iterable[Any] | None = None):
        super().__init__()
        if modules is not None:
            self.update(modules)

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def update(self, modules: Mapping[str, Module] | Iterable[Any]) -> None:
        """Add or replace modules from a mapping or (name, module) pairs."""
        pairs: Any = modules.items() if isinstance(modules, Mapping | ModuleDict) else modules
        for name, module in pairs:
            self[name] = module


class ParameterList(_Numbered):
    """A list of registered parameters; plain tensors are wrapped in Parameter."""

    _kept_in = "_parameter_names"

    def __init__(self, values: Iterable[Tensor] | None = None):
        super().__init__()
        if values is not None:
            self.extend(values)

    def __setitem__(self, index: int, value: Tensor) -> None:
        setattr(self, self._key(index), _as_parameter(value))

    def append(self, value: Tensor) -> ParameterList:
        """Add a parameter at the end; returns self."""
        self.register_parameter(str(len(self)), _as_parameter(value))
        return self

    def extra_repr(self) -> str:
        return "\n".join(_described(str(i), p) for i, p in enumerate(self))


class ParameterDict(_Keyed):
    """A dictionary of registered parameters; plain tensors are wrapped in Parameter."""

    _kept_in = "_parameters"

    def __init__(self, values: Mapping[str, Tensor] | Iterable[Any] | None = None):
        super().__init__()
        if values is not None:
            self.update(values)

    def update(self, values: Mapping[str, Tensor] | Iterable[Any] | ParameterDict) -> None:
        """Add or replace parameters. As in PyTorch those of a plain dict come in the order of their
        names; an OrderedDict, a ParameterDict and (name, value) pairs keep their own.
        """
        pairs: Any = values.items() if isinstance(values, Mapping | ParameterDict) else values
        if isinstance(values, Mapping) and not isinstance(values, OrderedDict):
            pairs = sorted(pairs, key=lambda pair: pair[0])
        for key, value in pairs:
            self[key] = value

    def __setitem__(self, key: str, value: Tensor) -> None:
        self.register_parameter(key, _as_parameter(value))

    def extra_repr(self) -> str:
        return "\n".join(_described(key, p) for key, p in self.items())


def _as_parameter(value: Tensor) -> Parameter:
    return value if isinstance(value, Parameter) else Parameter(value)


def _described(name: str, parameter: Parameter) -> str:
    size = "x".join(map(str, parameter.shape))
    return f"({name}): Parameter containing: [{parameter.dtype} of size {size}]"
