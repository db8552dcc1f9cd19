"""Looking at a module's members: live views of its tables, and walks over the module tree."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

from tracegrad.nn.parameter import Parameter
from tracegrad.tracer import Tensor

if TYPE_CHECKING:
    from tracegrad.nn.module import Module


class Members(MutableMapping[str, Any]):
    """Live view of one kind of registered member: a name table over an instance dictionary."""

    def __init__(self, owner: Module, names: dict[str, None]):
        self._owner = owner
        self._names = names

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        return getattr(self._owner, name)  # by name, so that a recording sees the read

    def __setitem__(self, name: str, value: Any) -> None:
        self._names[name] = None
        object.__setattr__(self._owner, name, value)

    def __delitem__(self, name: str) -> None:
        del self._names[name]
        object.__delattr__(self._owner, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __repr__(self) -> str:
        return repr(dict(self))


class WalkMixin:
    """The walking half of Module: the members of the tree, by dotted name."""

    _parameter_names: dict[str, None]
    _buffer_names: dict[str, None]
    _module_names: dict[str, None]
    _transient_names: dict[str, None]

    if TYPE_CHECKING:  # parameters, buffers and modules stand under names of the user's

        def __getattr__(self, name: str) -> Any: ...

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """(dotted path, module) of the whole tree, this module first."""
        memo = set() if memo is None else memo
        this: Any = self
        if remove_duplicate:
            if this in memo:
                return
            memo.add(this)
        yield prefix, this
        for name in list(self._module_names):
            child = getattr(self, name)
            if child is not None:
                path = f"{prefix}.{name}" if prefix else name
                yield from child.named_modules(memo, path, remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """Every module of the tree once."""
        for _, module in self.named_modules():
            yield module

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of the direct children, each once."""
        seen: set[Module] = set()
        for name in list(self._module_names):
            child = getattr(self, name)
            if child is not None and child not in seen:
                seen.add(child)
                yield name, child

    def children(self) -> Iterator[Module]:
        """The direct children, each once."""
        for _, child in self.named_children():
            yield child

    def _named_members(
        self, table: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        modules = (
            self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate)
            if recurse
            else [(prefix, self)]
        )
        seen: set[int] = set()
        for path, module in modules:
            for name in list(getattr(module, table)):
                value = getattr(module, name)
                if value is None or (remove_duplicate and id(value) in seen):
                    continue
                seen.add(id(value))
                yield (f"{path}.{name}" if path else name), value

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """(dotted name, parameter); a shared parameter appears once, under its first name."""
        return self._named_members("_parameter_names", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Every parameter once, in registration order."""
        for _, parameter in self.named_parameters(recurse=recurse):
            yield parameter

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """(dotted name, buffer)."""
        return self._named_members("_buffer_names", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Every buffer once."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def get_submodule(self, target: str) -> Module:
        """The module at a dotted path; "" is this module."""
        module: Any = self
        for name in target.split(".") if target else ():
            child = getattr(module, name, None)
            if not isinstance(child, WalkMixin):
                raise AttributeError(f"{type(module).__name__} has no child module `{name}`")
            module = child
        return module

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a dotted path."""
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        if name not in module._parameter_names:
            raise AttributeError(f"{type(module).__name__} has no parameter `{name}`")
        return getattr(module, name)

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at a dotted path."""
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        if name not in module._buffer_names:
            raise AttributeError(f"{type(module).__name__} has no buffer `{name}`")
        return getattr(module, name)
