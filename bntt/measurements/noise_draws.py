"""Accuracy under Gaussian noise in both spaces and under several realisations of it: what Fig. 4(b) leaves open."""

from bntt.measurements import Rows, Subject, per_cent
from bntt.measurements.noise import right_under_noise

COLUMNS = {
    "sigma": "Standard deviation of the noise.",
    "space": "pixel: added to images in [0, 1], then clipped; normalised: added after scaling.",
    "draw": "Realisation of the noise, from 0, which is that of noise.csv; each seed has others, all methods the same.",
    "accuracy": "Test accuracy in per cent after all T steps.",
}
SPACES = ("pixel", "normalised")


def measure(subject: Subject) -> Rows | str:
    """One row per noise level above 0, space and realisation; the option ``noise_draws`` says how many of these."""
    if subject.data.recordings:
        return "Gaussian noise is added to images, and these are recordings of events"
    draws = range(subject.run.evaluation["noise_draws"])
    if not draws:
        return "noise_draws is 0"
    return [
        {"sigma": sigma, "space": space, "draw": draw, "accuracy": per_cent(right[subject.report_steps[-1]])}
        for space in SPACES
        for sigma in subject.run.evaluation["noise_sigmas"]
        if sigma > 0
        for draw in draws
        for right in [right_under_noise(subject, sigma, space, draw)]
    ]
