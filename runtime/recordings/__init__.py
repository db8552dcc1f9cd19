"""A finished trace as data."""
