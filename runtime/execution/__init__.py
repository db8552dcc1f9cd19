"""What runs, and what it leaves behind."""
