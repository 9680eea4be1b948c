"""The training loop, which is the same for every method, its schedule, and the settings of a process."""
