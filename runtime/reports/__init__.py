"""What a compiled function says of itself."""
