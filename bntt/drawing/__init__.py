"""What a reader sees: figures, tables, the overview, executed notebooks, and records of the data behind drawings."""
