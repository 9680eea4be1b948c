"""Errors, atomic file writes, environment variables, numbers and lists as text.

Every package may import it; it imports none of them.
"""
