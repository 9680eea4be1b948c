"""How fast HATS and HOTS are, in events per second on one core: compiled, and as the numpy reference.

python benchmarks/event_features.py [--events 1000000]

The events are those of a simulated camera before scikit-learn's digits. HOTS has three layers, with radii 2, 4, 8 and
4, 8, 16 prototypes, which are random.
"""

import argparse
import os
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the package may not be installed

from bntt.data import digits
from bntt.data.digits_dvs import CAMERA
from bntt.data.events.camera import record
from bntt.data.events.streams import Streams, joined, packed
from bntt.features import hats, hots

ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--events", type=int, default=1_000_000, help="least number of events for the compiled code")
    count = parser.parse_args().events
    torch.set_num_threads(1)
    streams, one = recordings(count), recordings(1)
    draws = np.random.default_rng(0)
    known = [2, 4, 8, 16]
    layers = [
        hots.Layer(draws.random((n, q, 2 ** (2 + i) + 1, 2 ** (2 + i) + 1)), 1e4 * 10**i)
        for i, (q, n) in enumerate(pairwise(known))
    ]

    def assigned(given: Streams) -> None:
        features = hots.first_features(given)
        for layer in layers:
            features = hots.numbers(given, features, layer)

    for name, work in (("HATS", lambda given: hats.surfaces(given, hats.Surface())), ("HOTS", assigned)):
        os.environ.pop("BNTT_KERNELS", None)
        work(one)  # compiles and checks
        fast = speed(work, streams)
        os.environ["BNTT_KERNELS"] = "plain"
        print(f"{name}: {fast:.2f} million events a second, numpy {speed(work, one):.4f}", flush=True)


def recordings(events: int) -> Streams:
    """The first recordings that have this number of events together."""
    pixels, _ = digits.scans()
    found: list[np.ndarray] = []
    while sum(map(len, found)) < events:
        found.append(packed(record(pixels[len(found), 0], CAMERA, len(found)), 100_000))
    return joined(found)


def speed(work, streams: Streams) -> float:
    """Million events per second of the processor's time, the median of some rounds."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work(streams)
        seconds.append(time.process_time() - start)
    return len(streams.words) / statistics.median(seconds) / 1e6


if __name__ == "__main__":
    main()
