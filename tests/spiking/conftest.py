"""One thread, so that timings and sums do not depend on the machine; the same examples every time."""

import hypothesis
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile("fixed", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("fixed")
