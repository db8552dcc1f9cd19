"""Running ops as they come."""
