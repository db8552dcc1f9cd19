"""Which value lives where: storages, the order of steps, offsets in one arena."""
