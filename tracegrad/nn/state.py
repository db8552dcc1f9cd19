"""state_dict and load_state_dict: PyTorch's keys, order, strictness and messages."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

from tracegrad.errors import StateDictError
from tracegrad.tracer import Tensor, no_grad
from tracegrad.tracer.errors import ArgumentError

_EXTRA = "_extra_state"


class _IncompatibleKeys(NamedTuple):
    """What `load_state_dict(strict=False)` skipped."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return (
            f"_IncompatibleKeys(missing_keys={self.missing_keys}, "
            f"unexpected_keys={self.unexpected_keys})"
        )


class StateDictMixin:
    """The saving and loading half of Module."""

    _version = 1

    def get_extra_state(self) -> Any:
        """Override (with set_extra_state) to save something that is not a tensor."""
        raise NotImplementedError

    def set_extra_state(self, state: Any) -> None:
        """Override (with get_extra_state) to load it back."""
        raise NotImplementedError

    def _saved_member_names(self) -> list[str]:
        own = self.__dict__
        buffers = [n for n in own["_buffer_names"] if n not in own["_transient_names"]]
        return [n for n in (*own["_parameter_names"], *buffers) if own[n] is not None]

    def _has_extra_state(self) -> bool:
        return type(self).get_extra_state is not StateDictMixin.get_extra_state

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        """Write this module's own entries (not its children's)."""
        for name in self._saved_member_names():
            value = self.__dict__[name]
            destination[prefix + name] = value if keep_vars else value.detach()
        if self._has_extra_state():
            destination[prefix + _EXTRA] = self.get_extra_state()

    def state_dict(
        self,
        *,
        destination: dict[str, Any] | None = None,
        prefix: str = "",
        keep_vars: bool = False,
    ) -> dict[str, Any]:
        """Parameters and persistent buffers by dotted name, sharing storage with the module."""
        if destination is None:
            destination = OrderedDict()
            destination._metadata = OrderedDict()  # type: ignore[attr-defined]
        metadata = getattr(destination, "_metadata", None)
        if metadata is not None:
            metadata[prefix[:-1]] = {"version": self._version}
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name in self.__dict__["_module_names"]:
            child = self.__dict__[name]
            if child is not None:
                child.state_dict(
                    destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars
                )
        return destination

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Copy this module's own entries in and report what does not fit."""
        assign = local_metadata.get("assign_to_params_buffers", False)
        names = self._saved_member_names()
        for name in names:
            key = prefix + name
            if key not in state_dict:
                missing_keys.append(key)
                continue
            problem = self._load_member(name, key, state_dict[key], assign)
            if problem is not None:
                error_msgs.append(problem)
        if self._has_extra_state():
            if prefix + _EXTRA in state_dict:
                self.set_extra_state(state_dict[prefix + _EXTRA])
            else:
                missing_keys.append(prefix + _EXTRA)
        elif prefix + _EXTRA in state_dict:
            unexpected_keys.append(prefix + _EXTRA)
        for key in state_dict:
            if key.startswith(prefix):
                head, _, rest = key[len(prefix) :].partition(".")
                known = self.__dict__["_module_names"] if rest else (*names, _EXTRA)
                if head not in known:
                    unexpected_keys.append(key)

    def _load_member(self, name: str, key: str, value: Any, assign: bool) -> str | None:
        """Load one tensor; the text of the problem if it does not fit."""
        target = self.__dict__[name]
        if not isinstance(value, Tensor):
            return (
                f'While copying the parameter named "{key}", expected tracegrad.Tensor or '
                f"Tensor-like object from checkpoint but received {type(value)}"
            )
        shape, wanted = tuple(value.shape), tuple(target.shape)
        if shape != wanted:
            return (
                f"size mismatch for {key}: copying a param with shape {list(shape)} from "
                f"checkpoint, the shape in current model is {list(wanted)}."
            )
        with no_grad():
            if not assign:
                target.copy_(value)
            elif name in self.__dict__["_parameter_names"] and not isinstance(value, type(target)):
                setattr(self, name, type(target)(value, target.requires_grad))
            else:
                setattr(self, name, value)
        return None

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> _IncompatibleKeys:
        """Copy `state_dict` into this module; `assign=True` takes the tensors themselves.

        Raises StateDictError (a RuntimeError) that lists every missing and unexpected key (when
        `strict`) and every size mismatch (always); entries that fit have been copied by then.
        """
        if not isinstance(state_dict, Mapping):
            raise ArgumentError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
        missing: list[str] = []
        unexpected: list[str] = []
        errors: list[str] = []
        metadata = getattr(state_dict, "_metadata", {})

        # Not a function that calls itself: that is a cycle, and would keep the state dict.
        waiting: list[tuple[Any, str]] = [(self, "")]
        while waiting:
            module, prefix = waiting.pop()
            local = dict(metadata.get(prefix[:-1], {}))
            local["assign_to_params_buffers"] = assign
            module._load_from_state_dict(
                state_dict, prefix, local, strict, missing, unexpected, errors
            )
            children = [(name, module.__dict__[name]) for name in module.__dict__["_module_names"]]
            waiting += [(m, f"{prefix}{name}.") for name, m in reversed(children) if m is not None]

        # A key below a name that no module has is seen by that level only; several levels may
        # report the same key.
        unexpected = list(dict.fromkeys(unexpected))
        if strict:
            if unexpected:
                errors.insert(0, f"Unexpected key(s) in state_dict: {_quoted(unexpected)}. ")
            if missing:
                errors.insert(0, f"Missing key(s) in state_dict: {_quoted(missing)}. ")
        if errors:
            details = "\n\t".join(errors)
            raise StateDictError(
                f"Error(s) in loading state_dict for {type(self).__name__}:\n\t{details}"
            )
        return _IncompatibleKeys(missing, unexpected)


def _quoted(keys: list[str]) -> str:
    return ", ".join(f'"{key}"' for key in keys)
