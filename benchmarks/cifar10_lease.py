"""BNTT on all of CIFAR-10 in the minutes for which a GPU is available: as many of the paper's 120 epochs as fit.

    python benchmarks/cifar10_lease.py OUT --minutes 6 --sheets DIR     # unpack, calibrate, train, evaluate
    python benchmarks/cifar10_lease.py OUT --minutes 2 --device cpu --quick

DIR holds CIFAR-10 as lossless mosaics (`train-00.webp` ..., `test-00.webp` ..., 1,000 images each, 25 rows of 40), and
`labels.npz`; without it the dataset must be prepared already. The protocol is that of `config/cifar10.yaml`, except
for the number of epochs. A short training on a fifth of the images and an evaluation on a tenth are timed, and as many
epochs are run as fit into the minutes left. The milestones of the learning rate stay at their shares of the epochs. OUT
gets the experiment, cifar10-lease.yaml, and its results with the weights, packed into results.tar.0, ... of at most
16 MB each. If the minutes are over before the end, what is finished is packed, such as weights without measurements.
With fewer than 120 epochs it is not the paper's protocol, and gets no verdict.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the package may not be installed

from bntt.experiment.schema import EVALUATION, load  # noqa: E402
from bntt.runs.directory import RunDirectory  # noqa: E402

RESULTS = ROOT / "build" / "gpu-day" / "results"
SAFETY = 1.08  # timing some seconds misses what changes over minutes: clock rates, other users of the disk
PIECE = 16_000_000  # most bytes of a packed file
NOISE = EVALUATION["noise_sigmas"]["default"]  # if time is short, every fourth of them
SMALL = {"width": 0.125, "batch_size": 64, "train_limit": 512, "test_limit": 100}  # with --quick
EPOCHS = load("cifar10").run("cifar10", "bntt", 0).options["epochs"]  # of the paper's protocol


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("out", type=Path, help="folder for experiment, results and packed results")
    parser.add_argument("--minutes", type=float, required=True, help="for everything, from the start of this script")
    parser.add_argument("--sheets", type=Path, help="folder with the mosaics and the labels")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true", help="a small network on a few images, to see whether it runs")
    options = parser.parse_args()
    began = time.monotonic()

    def left() -> float:
        return 60 * options.minutes - (time.monotonic() - began)

    options.out.mkdir(parents=True, exist_ok=True)
    if options.sheets:
        unpack(options.sheets, ROOT / "build" / "cifar10")
        bntt("data", "prepare", "cifar10", "--from", ROOT / "build" / "cifar10")
    say(f"data ready, {left():.0f} s left")

    small = SMALL if options.quick else {}
    images = small.get("train_limit", 50_000)
    trial = write(options.out, "trial", 3, NOISE, small | on_trial(images))
    run(trial, options, left)
    seconds_of_epoch, seconds_of_evaluation = measured(trial)
    seconds_of_epoch *= 5 * SAFETY
    seconds_of_evaluation *= 10 * SAFETY
    sigmas = NOISE
    if seconds_of_evaluation > left() / 4:
        sigmas = NOISE[::4]
        seconds_of_evaluation *= len(sigmas) / len(NOISE)
    startup = 25 if options.device == "cuda" else 60  # seconds to start two processes, and to pack
    epochs = min(EPOCHS, int((left() - startup - seconds_of_evaluation) / seconds_of_epoch))
    say(
        f"an epoch takes about {seconds_of_epoch:.1f} s ({images / seconds_of_epoch:.0f} images/s), the evaluation "
        f"{seconds_of_evaluation:.0f} s; {left():.0f} s left: {epochs} epochs"
    )
    if epochs < 1:
        sys.exit("too little time for one epoch")
    lease = write(options.out, "cifar10-lease", epochs, sigmas, small)
    try:
        run(lease, options, left)
    finally:
        pack(options.out)
    say(f"done, {left():.0f} s left")


def say(line: str) -> None:
    print(f"[cifar10-lease] {line}", flush=True)


def on_trial(images: int) -> dict[str, int]:
    """What is timed: a fifth of the training images, and a tenth as many test images."""
    return {"train_limit": images // 5, "test_limit": images // 50}


def unpack(sheets: Path, target: Path) -> None:
    """Write the mosaics as CIFAR-10's binary version: a label byte and 3,072 pixel bytes per image."""
    import numpy as np
    from PIL import Image

    folder = target / "cifar-10-batches-bin"
    if (folder / "test_batch.bin").is_file():  # it is written last
        return
    folder.mkdir(parents=True, exist_ok=True)

    def records(part: str) -> Any:
        labels = np.load(sheets / "labels.npz")[part]
        tiles = []
        for path in sorted(sheets.glob(f"{part}-*.webp")):
            mosaic = np.asarray(Image.open(path))
            tiles.append(mosaic.reshape(25, 32, 40, 32, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3072))
        if len(tiles) * 1000 != len(labels):
            sys.exit(f"{sheets} holds {len(tiles)} mosaics {part}-*.webp, and {len(labels)} labels")
        return np.concatenate([labels[:, None].astype(np.uint8), np.concatenate(tiles)], axis=1)

    train = records("train")
    for number in range(5):
        train[number * 10_000 : (number + 1) * 10_000].tofile(folder / f"data_batch_{number + 1}.bin")
    records("test").tofile(folder / "test_batch.bin")


def write(out: Path, name: str, epochs: int, sigmas: list[float], changed: dict[str, Any]) -> Path:
    """Write the experiment, row bntt of config/cifar10.yaml with ``epochs`` epochs; return its path."""
    whole = yaml.safe_load((ROOT / "config" / "cifar10.yaml").read_text())
    whole["title"] = f"BNTT on CIFAR-10, {epochs} of the paper's {EPOCHS} epochs, as long as a GPU could be had"
    whole["notes"] = "Written by benchmarks/cifar10_lease.py. All else is as in config/cifar10.yaml."
    whole["datasets"]["cifar10"] |= {"epochs": epochs}
    whole["seeds"] = [0]
    whole["protocol"] |= changed
    whole["rows"] = {"bntt": whole["rows"]["bntt"]}
    whole["evaluation"] |= {"report_steps": [20, 25], "noise_sigmas": sigmas}
    path = out / f"{name}.yaml"
    path.write_text(yaml.safe_dump(whole, sort_keys=False))
    return path


def run(experiment: Path, options: argparse.Namespace, left: Callable[[], float]) -> None:
    """Train and evaluate, each until it ends or the minutes are over."""
    of = ["--experiment", experiment, "--row", "bntt", "--seed", "0", "--results", RESULTS, "--device", options.device]
    for command in ("train", "evaluate"):
        bntt(command, *of, "--minutes", max(left(), 1) / 60)


def bntt(*arguments: object) -> None:
    """Run a command; end this script if it fails, or stops before its end."""
    began = time.monotonic()
    status = subprocess.run([sys.executable, "-m", "bntt", *map(str, arguments)], cwd=ROOT).returncode
    if status:
        sys.exit(f"[cifar10-lease] {arguments[0]} ended with status {status}; its last line says why")
    say(f"{arguments[0]}: {time.monotonic() - began:.1f} s")


def measured(experiment: Path) -> tuple[float, float]:
    """Seconds of the last epoch, which compiles nothing, and of the evaluation."""
    directory = RunDirectory.of(load(str(experiment)).run("cifar10", "bntt", 0), RESULTS)
    return float(directory.table("history.csv")["seconds"].iloc[-1]), float(directory.evaluation()["seconds"])


def pack(out: Path) -> None:
    """Write everything of the run in pieces: results.tar.0, results.tar.1, ..."""
    import io
    import tarfile

    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for path in sorted(RESULTS.glob("cifar10-lease/runs/**/*")):
            if path.is_file():
                archive.add(path, path.relative_to(RESULTS))
        archive.add(out / "cifar10-lease.yaml", "cifar10-lease.yaml")
    packed = stream.getvalue()
    for number in range(0, -(-len(packed) // PIECE)):
        (out / f"results.tar.{number}").write_bytes(packed[number * PIECE : (number + 1) * PIECE])
    say(f"packed {len(packed) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
