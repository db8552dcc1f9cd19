"""The text of one executable while it is written: names, views, constants, workspaces.

The text is `def bind(arena)`: views of the arena are made there, once; inside stands `def run`, one
straight line of calls that write into them.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from tracegrad.backends.numpy.cores import Cores
from tracegrad.backends.numpy.kernels import KERNELS
from tracegrad.ir.graph import INPUT, Graph, Node
from tracegrad.ir.types import DType, TensorType, u8
from tracegrad.passes.memory.place import Placed
from tracegrad.passes.memory.storage import Shape, Storage, Strides, View, c_strides, reshaped
from tracegrad.passes.views import VIEW_OPS, viewed

Emitter = Callable[["Writer", Node], None]
EMITTERS: dict[str, Emitter] = {}


def emits(*names: str) -> Callable[[Emitter], Emitter]:
    """Register the decorated function as the code of the ops `names`."""

    def register(function: Emitter) -> Emitter:
        for name in names:
            EMITTERS[name] = function
        return function

    return register


_RESERVED = frozenset(["arena", "run", "bind", "np", "view", "empty"])


def _identifier(text: str) -> str:
    name = re.sub(r"\W", "_", text, flags=re.ASCII)
    if not name or name[0].isdigit() or keyword.iskeyword(name):
        name = "_" + name
    return name


class Writer:
    """Collects the lines of `bind` and `run` for the steps of a placed graph."""

    def __init__(
        self,
        placed: Placed,
        tile_bytes: int,
        cores: Cores,
        compile: Callable[[Graph], Callable[..., Any]],
    ):
        self.placed, self.compile = placed, compile  # `compile` is for sub-graphs
        self.tile_bytes, self.cores = tile_bytes, cores
        self.namespace: dict[str, Any] = {}  # globals of the generated module
        self.workspaces: list[Storage] = []
        self.plan_bytes: dict[str, int] = {}  # workspaces that plans own
        self.step = 0
        self.lines: list[str] = []  # body of run
        self.lines_before = 0  # lines of the text before `lines`
        self._prologue: list[str] = []  # of run: fresh results, views of arguments
        self._bound: dict[tuple[Any, ...], tuple[str, View]] = {}  # views of the arena
        self._view_named: dict[str, View] = {}
        self._prebuilt: list[tuple[str, str]] = []  # other names made in bind
        self._called: dict[Any, str] = {}  # names made in the prologue
        self._constants: dict[Any, str] = {}
        self._taken: set[str] = set(_RESERVED)
        self.number = {node: index for index, node in enumerate(placed.graph.nodes)}
        self.arguments = [
            self.new_name(_identifier(name), bare=True) for name in placed.graph.input_names
        ]
        self._argument_of = dict(zip(placed.graph.inputs, self.arguments))

    # ------------------------------------------------------------------ names

    def new_name(self, stem: str, bare: bool = False) -> str:
        """`stem`, with a number behind it where it is taken."""
        name, count = stem, 0
        while name in self._taken or (bare and (name in self.namespace or _generated(name))):
            count += 1
            name = f"{stem}_{count}"
        self._taken.add(name)
        return name

    def use(self, name: str, value: Any) -> str:
        """Make `value` (a function, a dtype) known to the generated code under `name`."""
        if self.namespace.setdefault(name, value) is not value:
            raise AssertionError(f"two values are called {name} in generated code")
        return name

    def np(self, name: str) -> str:
        """A function of NumPy, by its own name."""
        return self.use(name, getattr(np, name))

    def constant(self, array: Any, key: Any = None) -> str:
        """Name of a read-only array made once."""
        array = np.asarray(array)
        key = key or (array.dtype.str, array.shape, array.tobytes())
        name = self._constants.get(key)
        if name is None:
            name = self._constants[key] = f"k{len(self._constants)}"
            array = array.copy() if array.size <= 16 and array.flags.writeable else array
            if array.flags.writeable:
                array.flags.writeable = False
            self.namespace[name] = array
        return name

    def scalar(self, value: Any, dtype: DType) -> str:
        """A 0-d array: a ufunc takes one faster than a Python number."""
        return self.constant(np.array(value, dtype.np))

    def dtype(self, dtype: DType) -> str:
        return self.use(f"dtype_{dtype.name}", dtype.np)

    # ------------------------------------------------------------------ values

    def ref(self, node: Node) -> str:
        """Name of the array that holds `node`, in its full shape."""
        view = self.placed.view(node)
        kind = view.storage.kind
        if kind == "constant":
            return self._constant_ref(node)
        if kind == "input":
            return self._input_ref(node)
        return self.view(view)

    def out(self, node: Node, part: int = 0) -> str:
        """Name of the array that `node` (its part `part`) must be written to."""
        view = self.placed.parts(node)[part]
        if view.storage.kind == "input":
            return self.arguments[view.storage.index]
        return self.view(view)

    def operand(self, node: Node) -> str:
        """Like `ref`, but may have axes of size 1, or none, where the value is the same along them.

        For ufuncs, which broadcast by themselves.
        """
        base = node
        while base.op.name in ("broadcast_to", "fence") and base not in self.placed.copies:
            base = viewed(base)
        if base.op.name == "constant" and base.type.size and base.attrs["value"].is_splat:
            return self.constant(base.attrs["value"].array.reshape(-1)[:1].reshape(()))
        view = self.placed.view(node)
        if node.op.name == "broadcast_to" and view.storage.kind == "input":
            name = self.ref(viewed(node))
            aligned = self._aligned(node, name)
            return name if aligned == name else self.prologue(aligned, name.rstrip("_"))
        return self.ref(node)

    def reshape(self, node: Node, shape: Shape) -> str:
        """`node` as `shape`; a view wherever NumPy has one."""
        name = self.ref(node)
        if shape == node.shape:
            return name
        view = self.placed.view(node)
        if view.storage.kind == "constant":
            return self.prebuilt(f"{name}.reshape({shape})")
        if view.storage.kind == "input":
            return self.prologue(f"{name}.reshape({shape})", name)
        new = reshaped(view, shape)
        return self.view(new) if new is not None else f"{name}.reshape({shape})"

    def view(self, view: View) -> str:
        """Name of a view of the arena (bound once) or of a result (made at every call)."""
        storage = view.storage.root()
        if 0 in view.shape:  # nowhere: its offset may lie behind the end of an empty storage
            view = View(view.storage, view.shape, view.strides, 0, view.dtype)
        if storage.kind == "result":
            return self._result_view(view, storage)
        assert storage.kind == "arena", storage
        key = (id(storage), view.offset, view.shape, view.strides, view.dtype)
        if key not in self._bound:
            stem = f"v{len(self._bound)}"
            self._bound[key] = (stem, view)
            self._view_named[stem] = view
        return self._bound[key][0]

    def as_dtype(self, name: str, dtype: DType) -> str:
        """The array `name` read bit by bit as `dtype`, of the same size."""
        view = self._view_named.get(name)
        if view is None:
            return f"{name}.view({self.dtype(dtype)})"
        return self.view(View(view.storage, view.shape, view.strides, view.offset, dtype))

    def prologue(self, expression: str, stem: str) -> str:
        """Name of `expression`, evaluated at the start of every call."""
        name = self._called.get(expression)
        if name is None:
            name = self._called[expression] = self.new_name(f"{stem}_")
            self._prologue.append(f"{name} = {expression}")
        return name

    def prebuilt(self, expression: str) -> str:
        """Name of `expression`, evaluated once, when the code is bound to an arena."""
        name = self._called.get(expression)
        if name is None:
            name = self._called[expression] = f"p{len(self._prebuilt)}"
            self._prebuilt.append((name, expression))
        return name

    def workspace(self, shape: Shape, dtype: DType) -> View:
        """Memory for the current step alone."""
        node_type = TensorType(shape, dtype)
        storage = Storage(
            "arena", node_type.nbytes, label="workspace", start=self.step, end=self.step
        )
        self.workspaces.append(storage)
        return View(storage, shape, c_strides(shape), 0, dtype)

    def _constant_ref(self, node: Node) -> str:
        """A constant and its views are arrays made once."""
        chain = []
        base = node
        while base.op.name in VIEW_OPS:
            chain.append(base)
            base = viewed(base)
        array = KERNELS[base.op.name](**base.attrs)
        for step in reversed(chain):
            array = KERNELS[step.op.name](array, **step.attrs)
        return self.constant(array, key=node if chain else base.attrs)

    def _input_ref(self, node: Node) -> str:
        chain = []
        base = node
        while base.op.name in VIEW_OPS:
            chain.append(base)
            base = viewed(base)
        name = self.arguments[self.placed.view(base).storage.index]
        if base.op is INPUT:
            name = self._argument_of[base]
        for step in reversed(chain):
            expression = self._view_expression(step, name)
            if expression != name:
                name = self.prologue(expression, name.rstrip("_"))
        return name

    def _view_expression(self, node: Node, name: str) -> str:
        op, attrs = node.op.name, node.attrs
        if op == "reshape":
            return f"{name}.reshape({attrs['shape']})"
        if op == "transpose":
            return f"{name}.transpose({attrs['perm']})"
        if op == "slice":
            return f"{name}[{slice_text(attrs['start'], attrs['stop'], attrs['step'])}]"
        if op == "broadcast_to":
            aligned = self._aligned(node, name)
            self.np("broadcast_to")
            return f"broadcast_to({aligned}, {attrs['shape']})"
        return name  # markers

    def _aligned(self, node: Node, name: str) -> str:
        """The operand `name` of a broadcast_to, its axes in place, size 1 for the new ones."""
        source, dims = viewed(node), node.attrs["dims"]
        shape = [1] * node.ndim
        for axis, target in enumerate(dims):
            shape[target] = source.shape[axis]
        order = tuple(sorted(range(len(dims)), key=dims.__getitem__))
        if list(order) != sorted(order):
            name = f"{name}.transpose({order})"
        lead = next((axis for axis, size in enumerate(shape) if size != 1), node.ndim)
        return (
            name
            if tuple(shape[lead:]) == source.shape
            else f"{name}.reshape({tuple(shape[lead:])})"
        )

    def _result_view(self, view: View, storage: Storage) -> str:
        base = f"r{storage.index}"
        if base not in self._called:
            self._called[base] = base
            type_ = self._result_type(storage)
            self._prologue.append(f"{base} = fresh({type_.shape}, {self.dtype(type_.dtype)})")
        type_ = self._result_type(storage)
        if view.offset == 0 and view.shape == type_.shape and view.contiguous:
            return base
        size = view.dtype.itemsize
        strides = tuple(stride * size for stride in view.strides)
        self.np("ndarray")
        dtype, offset = self.dtype(view.dtype), view.offset * size
        return self.prologue(f"ndarray({view.shape}, {dtype}, {base}, {offset}, {strides})", base)

    def _result_type(self, storage: Storage) -> TensorType:
        type_ = self.placed.graph.outputs[storage.index].type
        assert isinstance(type_, TensorType)
        return type_

    # ------------------------------------------------------------------ lines

    def line(self, text: str) -> None:
        self.lines.append(text)

    def call(self, function: str, *arguments: str) -> None:
        self.lines.append(f"{function}({', '.join(arguments)})")

    def poison_view(self, storage: Storage) -> str:
        return self.view(View(storage, (storage.nbytes,), (1,), 0, u8))

    def text(self) -> str:
        """The module. Call after every storage has its offset."""
        placed = self.placed
        returned = []
        for node in placed.graph.outputs:
            view = placed.view(node)
            if view.storage.kind == "input":
                returned.append(self.arguments[view.storage.index])
            else:
                returned.append(self.view(view))
        head = []
        for name, view in self._bound.values():
            offset = view.storage.root().offset + view.offset * view.dtype.itemsize
            head.append(f"    {name} = {self._array(view.shape, view.strides, offset, view.dtype)}")
        head += [f"    {name} = {expression}" for name, expression in self._prebuilt]
        unpack = f"{', '.join(self.arguments)}{',' if len(self.arguments) == 1 else ''} = arrays"
        body = [unpack] if self.arguments else []
        self.lines_before = 3 + len(head) + len(body) + len(self._prologue)
        body += self._prologue + self.lines + [f"return [{', '.join(returned)}]"]
        return "\n".join(
            [f"# cores: {self.cores}", "def bind(arena):", *head, "    def run(arrays):"]
            + [f"        {line}" for line in body]
            + ["    return run", ""]
        )

    def _array(self, shape: Shape, strides: Strides, offset: int, dtype: DType) -> str:
        self.np("ndarray")
        given = f"ndarray({shape}, {self.dtype(dtype)}, arena, {offset}"
        if strides != c_strides(shape) and 0 not in shape:
            given += f", {tuple(stride * dtype.itemsize for stride in strides)}"
        return given + ")"


def _generated(name: str) -> bool:
    """Whether generated names look like this: v12, k3, r0, p5, s1."""
    return re.fullmatch(r"[a-z]\d+", name) is not None


def slice_text(start: Shape, stop: Shape, step: Shape) -> str:
    """The subscript of a canonical slice, an ellipsis for 0-d."""
    parts = []
    for first, last, by in zip(start, stop, step):
        end = "" if last < 0 else str(last)
        parts.append(f"{first}:{end}" + (f":{by}" if by != 1 else ""))
    return ", ".join([*parts, "..."])
