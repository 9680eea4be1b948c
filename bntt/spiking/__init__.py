"""The paper's mathematics: temporal norms, spiking neurons, layers, Poisson coding and networks.

Tensors are time-major, ``[T, N, C, ...]``. A network runs layer by layer, each layer over all time-steps. This is
possible because no later layer feeds back into an earlier one. So each convolution sees one batch of T * N images.
"""
