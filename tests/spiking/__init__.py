"""Proofs of the mathematics in ``bntt/spiking`` and ``bntt/randomness.py`` against independent computation."""
