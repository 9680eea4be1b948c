"""A contact sheet of a prepared dataset, which shows what the networks see."""

from pathlib import Path

import numpy as np

from bntt.data import store

CLASSES = 10
ACROSS = 10
ON, OFF = (0.00, 0.45, 0.70), (0.84, 0.37, 0.00)  # blue and vermilion, which colour-blind readers can distinguish


def contact_sheet(name: str, out: Path) -> Path:
    """Draw images of the first classes, one class in each row, and save the sheet as ``out``; returns ``out``.

    For event recordings, a row shows frames of one recording of the class, with time from left to right.
    """
    from matplotlib.figure import Figure

    images = store.load(name)
    pixels, labels = images.train.pixels.numpy(), images.train.labels.numpy()
    rows = []
    for label in range(min(CLASSES, images.classes)):
        of_class = pixels[labels == label]
        if images.recordings:
            rows.append(np.hstack([_coloured(frame) for frame in _spread(of_class[0])]))
        else:
            shown = [picture.transpose(1, 2, 0) for picture in of_class[:ACROSS]]
            shown += [np.zeros_like(shown[0])] * (ACROSS - len(shown))
            rows.append(np.hstack(shown))
    sheet = np.vstack(rows)
    figure = Figure(figsize=(8, 8 * sheet.shape[0] / sheet.shape[1] + 0.4), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(sheet.squeeze(), cmap="gray", interpolation="nearest")
    axes.set_yticks((np.arange(len(rows)) + 0.5) * len(rows[0]), [str(label) for label in range(len(rows))])
    axes.set_xticks([])
    axes.set_ylabel("class")
    axes.set_title(f"{name}: {'ON blue, OFF vermilion, time to the right' if images.recordings else 'training images'}")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150)
    return out


def _spread(frames: np.ndarray) -> np.ndarray:
    """At most ACROSS frames, evenly spaced."""
    return frames[np.linspace(0, len(frames) - 1, min(ACROSS, len(frames))).round().astype(int)]


def _coloured(frame: np.ndarray) -> np.ndarray:
    """A frame ``[2, H, W]``, OFF before ON, on white with a border."""
    strength = frame / max(1, frame.max())
    white = np.ones((*frame.shape[1:], 3))
    white -= strength[1][..., None] * (1 - np.array(ON)) + strength[0][..., None] * (1 - np.array(OFF))
    white = np.pad(white.clip(0, 1), ((0, 1), (0, 1), (0, 0)), constant_values=0.8)
    return white
