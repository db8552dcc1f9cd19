"""Rewrite rules as data, what applies them, and what tries them."""
