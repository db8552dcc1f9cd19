"""The trace hazards: programs that a tracing compiler gets silently wrong, one file a theme.

A program gets `compile` (the identity, or a backend's) and yields reports; test_hazards.py compares.
"""

from tests.runtime.hazards import (
    arguments,
    attributes,
    caches,
    captured_names,
    containers,
    control_flow,
    counters,
    dict_items,
    far_attributes,
    far_places,
    gradients,
    modules,
    nested_functions,
    nesting,
    new_objects,
    numbers,
    optimisers,
    own_optimisers,
    parameters,
    random_numbers,
    results,
    state,
    training,
    writes,
)
from tests.runtime.hazards.registry import HAZARDS
