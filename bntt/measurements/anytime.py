"""Accuracy as a function of the number of time-steps used: every latency statement comes from it."""

from bntt.measurements import Rows, Subject, to_bits

COLUMNS = {
    "time_step": "Time-steps used, 1..T.",
    "accuracy": "Test accuracy in per cent.",
    "loss": "Mean cross-entropy of the running logits.",
    "correct": "Which test images are right, in hexadecimal, image 0 first; beyond step 100 only at reported steps.",
}


def measure(subject: Subject) -> Rows:
    """One row per time-step."""
    right, loss = subject.observation.right, subject.observation.loss
    rows: Rows = []
    for step in range(1, len(right) + 1):
        of_step = right[step - 1]
        listed = step <= 100 or step in subject.report_steps
        rows.append(
            {
                "time_step": step,
                "accuracy": 100 * of_step.double().mean().item(),
                "loss": loss[step - 1].item(),
                "correct": to_bits(of_step) if listed else "",
            }
        )
    return rows
