"""Numbers and names that the paper prints in its figures of VGG9 on CIFAR-10."""

from bntt.paper.published import cells, published

DATASET = "cifar10"
ROWS = ("bntt", "surrogate", "conversion", "ann")  # in the order of the paper's legends

_EXIT = published("Section 3.4", "cifar10/exit", "exit_step")
assert _EXIT.threshold is not None
THRESHOLD = _EXIT.threshold
EXIT_STEP = int(_EXIT.number)
PEAK_STEPS = {cell.layer: int(cell.number) for cell in cells() if cell.metric == "peak_step"}  # Section 4.4
STEPS = int(published("Figure 4", "cifar10/bntt", "time_steps").number)
