"""What the paper prints and claims, and what became of it here."""
