"""What a call is: its signature, as keys and as words."""
