"""Programs that write and ask Python's state beside the graph: parameter groups, schedules, slots."""

from tests.runtime.host_state import groups, schedules, slots
