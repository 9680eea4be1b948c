"""Measurements of many runs as tidy frames, with intervals, comparisons and energy ratios."""
