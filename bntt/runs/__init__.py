"""One run: its directory, whether it is current, training and evaluation, provenance, cost."""
