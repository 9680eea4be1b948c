"""Accuracy as a function of the number of time-steps used; all statements about latency use it."""

from bntt.measurements import Rows, Subject, per_cent, to_bits

COLUMNS = {
    "time_step": "Time-steps used, 1..T.",
    "accuracy": "Test accuracy in per cent.",
    "loss": "Mean cross-entropy of the running logits.",
    "correct": "Which test images are correct, in hexadecimal, image 0 first; after step 100 only at reported steps.",
}


def measure(subject: Subject) -> Rows:
    """One row per time-step."""
    seen, reported = subject.observation, subject.report_steps
    return [
        {
            "time_step": step,
            "accuracy": per_cent(right),
            "loss": loss,
            "correct": to_bits(right) if step <= 100 or step in reported else "",
        }
        for step, (right, loss) in enumerate(zip(seen.right, seen.loss.tolist(), strict=True), 1)
    ]
