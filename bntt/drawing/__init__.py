"""What a reader sees: figures, tables, the overview, executed notebooks, and the record of what was drawn from what."""
