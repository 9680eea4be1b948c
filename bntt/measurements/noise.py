"""Accuracy under Gaussian noise on the input image (Fig. 4(b)).

The noise is drawn anew for each seed, so seeds are independent. Methods with the same seed see the same noisy images,
so they can be paired by image.
"""

from torch import Tensor

from bntt.measurements import Rows, Subject, per_cent, to_bits
from bntt.measurements.observation import right_at_reported_steps
from bntt.spiking import randomness

COLUMNS = {
    "sigma": "Standard deviation of the noise, which is drawn anew for each seed, and is the same for every method.",
    "space": "pixel: added to images in [0, 1], then clipped; normalised: added after scaling.",
    "time_step": "Steps used, at the reported steps.",
    "accuracy": "Test accuracy in per cent.",
    "correct": "Which test images are correct, in hexadecimal, image 0 first.",
}


def measure(subject: Subject) -> Rows | str:
    """One row per noise level and reported step. The noise is sigma times a draw keyed by seed, image and pixel."""
    if subject.data.recordings:
        return "Gaussian noise is added to images, and these are recordings of events"
    space = subject.run.evaluation["noise_space"]
    return [
        {"sigma": sigma, "space": space, "time_step": step, "accuracy": per_cent(right), "correct": to_bits(right)}
        for sigma in subject.run.evaluation["noise_sigmas"]
        for step, right in right_under_noise(subject, sigma, space).items()
    ]


def right_under_noise(subject: Subject, sigma: float, space: str, draw: int = 0) -> dict[int, Tensor]:
    """Which test images are correct after each reported step, bool ``[N]``, under noise of this standard deviation.

    ``space`` is one of ``noise_space``; each ``draw`` is another realisation of the noise.
    """
    classifier, data = subject.classifier, subject.data
    if sigma == 0:  # no noise: the shared pass over the images
        return right_at_reported_steps(subject)
    noise_key = randomness.key(subject.run.seed, "input noise", *([draw] if draw else []))

    def noisy(unit: Tensor, batch: Tensor) -> Tensor:
        noise = sigma * randomness.normal(noise_key, batch, unit[0].numel()).reshape(unit.shape)
        if space == "pixel":
            return classifier.scaled(data, (unit + noise).clamp(0, 1))
        return classifier.scaled(data, unit) + noise

    return right_at_reported_steps(subject, scaled=noisy, name=f"noise {space} {sigma!r} {draw}")
