"""Nested tuples, lists and dicts as flat lists of leaves, by optree.

optree is imported at the first use: `import tracegrad` does not wait for it.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable
from functools import cache
from typing import Any

NAMESPACE = "tracegrad"  # of optree's registries: the setting below is ours alone


@cache
def _optree() -> Any:
    import optree

    setting = optree.dict_insertion_ordered(True, namespace=NAMESPACE)
    setting.__enter__()
    atexit.register(setting.__exit__, None, None, None)  # left to the collector, it complains
    return optree


def flatten(tree: Any, *, none_is_leaf: bool = True) -> tuple[list[Any], Any]:
    """(leaves, treedef), dicts by sorted key; `treedef.unflatten(leaves)` puts them back."""
    optree = _optree()
    leaves, treedef = optree.tree_flatten(tree, none_is_leaf=none_is_leaf)
    return leaves, treedef


def flatten_in_order(
    tree: Any, is_leaf: Callable[[Any], bool] | None = None
) -> tuple[list[Any], Any]:
    """As `flatten`, but dicts keep their order: iterating over them is part of a program.

    is_leaf  containers that are leaves all the same
    """
    optree = _optree()
    leaves, treedef = optree.tree_flatten(tree, is_leaf, none_is_leaf=True, namespace=NAMESPACE)
    return leaves, treedef


def accessors(tree: Any) -> list[Any]:
    """Paths to the leaves, in the order of `flatten_in_order`."""
    optree = _optree()
    return optree.tree_accessors(tree, none_is_leaf=True, namespace=NAMESPACE)
