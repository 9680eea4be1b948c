"""A contact sheet of a prepared dataset, which shows what the networks see."""

import functools
from pathlib import Path

import numpy as np

from bntt.common.errors import UserError
from bntt.common.files import write_atomically
from bntt.data import store

CLASSES = 10
ACROSS = 10
ON, OFF = (0.00, 0.45, 0.70), (0.84, 0.37, 0.00)  # blue and vermilion, which colour-blind readers can distinguish


def contact_sheet(name: str, out: Path) -> tuple[Path, str]:
    """Draw training images of the first classes, one class in each row, and save the sheet as ``out``.

    For event recordings, a row shows frames of one recording of the class, with time from left to right. Returns
    ``out``, and which classes are shown. Raises UserError if the file cannot be written.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    images, class_names = store.load(name, incomplete=True), store.manifest(name).get("class_names")
    pixels, labels = images.train.pixels.numpy(), images.train.labels.numpy()
    shown = range(min(CLASSES, images.classes))
    rows = []
    for label in shown:
        of_class = pixels[labels == label]
        if images.recordings:
            recording = of_class[0] if len(of_class) else np.zeros_like(pixels[0])
            rows.append(np.hstack([_coloured(frame) for frame in _spread(recording)]))
        else:
            pictures = [picture.transpose(1, 2, 0) for picture in of_class[:ACROSS]]
            blank = np.zeros_like(pixels[0].transpose(1, 2, 0))
            rows.append(np.hstack(pictures + [blank] * (ACROSS - len(pictures))))
    sheet = np.vstack(rows)
    words = [f"{label} {class_names[label]}" if class_names else str(label) for label in shown]
    drawn = f"{len(shown)} of {images.classes} classes" if len(shown) < images.classes else f"all {len(shown)} classes"
    what = "a recording; ON blue, OFF vermilion, time to the right" if images.recordings else "training images"
    with style.context("default"):  # whatever the user's own settings are
        figure = Figure(figsize=(8, 8 * sheet.shape[0] / sheet.shape[1] + 0.4), layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(sheet.squeeze(), cmap="gray", interpolation="nearest")
        axes.set_yticks((np.arange(len(rows)) + 0.5) * len(rows[0]), words)
        axes.set_xticks([])
        axes.set_ylabel("class")
        axes.set_title(f"{name}, {drawn}: {what}")
        kind = out.suffix.removeprefix(".").lower() or "png"
        if kind not in figure.canvas.get_supported_filetypes():
            raise UserError(f"{out}: a picture cannot be written as {kind}; give a name that ends in .png")
        write_atomically(out, functools.partial(figure.savefig, format=kind, dpi=150, bbox_inches="tight"))
    return out, f"{drawn}: {', '.join(words)}"


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
