"""The trace hazards equal eager, on every backend.

Falling back to eager warns, and warnings are errors here, so passing means that the program really
ran compiled (test_side_effects.py has the others).
"""

import pytest

from tests.runtime.hazards import HAZARDS
from tests.runtime.programs import BACKENDS, agree


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", HAZARDS)
def test_equals_eager(name, backend):
    agree(HAZARDS[name], backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_state_kept_under_a_name_is_recorded_once(backend):
    (compiled,) = agree(HAZARDS["state_in_a_branch"], backend)
    assert compiled.stats()["recordings"] == 2
    (compiled,) = agree(HAZARDS["previous_value"], backend)
    assert compiled.stats()["recordings"] <= 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_state_kept_in_a_dict_is_recorded_once(backend):
    (compiled,) = agree(HAZARDS["averages_in_a_dict"], backend)
    assert compiled.stats()["recordings"] == 2  # one for each dict
    (compiled,) = agree(HAZARDS["the_item_that_was_there_is_handed_out"], backend)
    assert compiled.stats()["recordings"] == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_count_of_steps_among_slots_needs_no_new_recording(backend):
    (compiled,) = agree(HAZARDS["own_adam_that_counts_its_steps"], backend)
    assert compiled.stats()["recordings"] == 2  # slots are made by the first
