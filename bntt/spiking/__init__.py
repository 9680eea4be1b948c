"""The paper's mathematics: temporal norms, spiking neurons, layers, Poisson coding and networks.

Tensors are time-major, ``[T, N, C, ...]``. A network runs layer by layer over all time-steps: there is no
feedback through time between layers, so each convolution sees one batch of T * N images.
"""
