"""The training loop, which is the same for every method, and the settings of a process."""
