"""`attached.pyi` tells type checkers which operators Tensor has: exactly those that are attached."""

from __future__ import annotations

import ast
from pathlib import Path

import tracegrad.tracer.methods.attach as attach
from tracegrad.tracer.tensor import Tensor


def told() -> set[str]:
    stub = ast.parse(Path(attach.__file__).with_name("attached.pyi").read_text())
    return {
        node.name
        for each in ast.walk(stub)
        if isinstance(each, ast.ClassDef)
        for node in each.body
        if isinstance(node, ast.FunctionDef)
    }


def written() -> set[str]:
    body = Path(attach.__file__).parents[1].joinpath("tensor.py").read_text()
    return {node.name for node in ast.walk(ast.parse(body)) if isinstance(node, ast.FunctionDef)}


def test_type_checkers_know_the_attached_operators():
    operators = {
        name
        for name, value in vars(Tensor).items()
        if name.startswith("__") and callable(value) and name not in written()
    }
    assert operators == told()
