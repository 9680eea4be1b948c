"""Datasets: a plug-in file each, their preparation, and images and recordings in memory."""
