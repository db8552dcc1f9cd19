"""A recording cut at its questions, compiled."""
