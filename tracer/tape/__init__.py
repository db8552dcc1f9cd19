"""Eager gradients: the tape, and the walk back over it."""
