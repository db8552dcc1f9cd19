"""What one recording saw of Python's state, and what it changed there."""
