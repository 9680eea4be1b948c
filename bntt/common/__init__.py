"""Errors, atomic file writes, numbers and lists as text. Every package may import it; it imports none of them."""
