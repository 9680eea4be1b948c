"""Early exit (Section 3.4): where every layer's mean gamma stays below a threshold, the rest is not computed."""

from torch import Tensor

from bntt.measurements import Rows, Subject

COLUMNS = {
    "threshold": "On the mean (signed) gamma of each layer.",
    "exit_step": "Steps used: the last at which some layer's mean gamma reaches the threshold, within 1..T.",
    "exits": "1 where the rule ends before T or could; 0 where gamma never is below the threshold: no exit.",
    "accuracy": "Test accuracy in per cent after exit_step steps, read off the anytime curve.",
}


def exit_step(mean_gammas: list[Tensor], threshold: float, time_steps: int) -> tuple[int, bool]:
    """The exit step, and whether gamma is ever below the threshold in all layers.

    ``mean_gammas`` holds for each layer the mean over channels at every step, ``[T]``.
    """
    last = 1
    always = True
    for gamma in mean_gammas:
        above = (gamma >= threshold).nonzero().flatten()
        always = always and len(above) == time_steps
        if len(above):
            last = max(last, int(above[-1]) + 1)
    return (time_steps, False) if always else (last, True)


def measure(subject: Subject) -> Rows | str:
    """One row per threshold, the paper's 0.1 among them."""
    gammas = subject.classifier.gammas()
    if not gammas:
        return "no scale that changes with time"
    means = [gamma.double().mean(1) for gamma in gammas.values()]
    evaluation = subject.run.evaluation
    accuracy = 100 * subject.observation.right.double().mean(1)
    rows: Rows = []
    for threshold in sorted({*evaluation["exit_thresholds"], evaluation["exit_threshold"]}):
        step, exits = exit_step(means, threshold, subject.classifier.time_steps)
        rows.append(
            {
                "threshold": threshold,
                "exit_step": step,
                "exits": int(exits),
                "accuracy": accuracy[step - 1].item(),
            }
        )
    return rows
