"""New tensors: from Python values, ranges, random numbers."""
