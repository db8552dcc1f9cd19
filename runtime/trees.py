"""Arguments and results as trees of leaves.

Dicts keep their order: iterating over them is part of a program.
"""

from __future__ import annotations

from typing import Any

import optree

NAMESPACE = "tracegrad"  # of optree's registries: the setting below is ours alone
_setting = optree.dict_insertion_ordered(True, namespace=NAMESPACE)  # ends when it is collected
_setting.__enter__()


def flatten(tree: Any) -> tuple[list[Any], Any]:
    """(leaves, what is needed to put them back); None is a leaf."""
    leaves, treedef = optree.tree_flatten(tree, none_is_leaf=True, namespace=NAMESPACE)
    return leaves, treedef


def accessors(tree: Any) -> list[Any]:
    """Paths to the leaves, in the order of `flatten`."""
    return optree.tree_accessors(tree, none_is_leaf=True, namespace=NAMESPACE)
