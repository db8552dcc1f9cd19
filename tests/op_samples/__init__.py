"""Samples of every op: `SAMPLES[op name]`, a file for each family as in `ir/ops`.

They feed the kernel, agreement, gradient, code-generation and completeness tests.
"""

from __future__ import annotations

from tests.op_samples import (
    composite,
    contract,
    elementwise,
    index,
    linalg,
    reduce,
    select,
    shape,
    structure,
    window,
)
from tests.op_samples.builders import Table


def _merged(*tables: Table) -> Table:
    merged: Table = {}
    for table in tables:
        overlap = merged.keys() & table.keys()
        assert not overlap, f"sampled in two places: {sorted(overlap)}"
        merged.update(table)
    return merged


SAMPLES: Table = _merged(
    elementwise.unary_samples(),
    elementwise.binary_samples(),
    select.select_and_source_samples(),
    shape.shape_samples(),
    index.index_samples(),
    reduce.reduction_samples(),
    contract.contraction_samples(),
    window.window_samples(),
    linalg.linalg_samples(),
    structure.structure_samples(),
    composite.activation_samples(),
    composite.norm_samples(),
    composite.loss_samples(),
    composite.attention_samples(),
    composite.recurrent_samples(),
    composite.other_samples(),
)
