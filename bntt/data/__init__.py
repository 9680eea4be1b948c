"""Datasets: one plug-in file for each, their preparation, and images and recordings in memory."""
