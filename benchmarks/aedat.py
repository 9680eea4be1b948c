"""How fast AEDAT 2.0 is read and made into frames, in events per second on one core.

python benchmarks/aedat.py [--events 20000000]
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the package may not be installed

from bntt.data.events.aedat import SIDE, Events, read, write
from bntt.data.events.frames import to_frames

ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--events", type=int, default=20_000_000, help="events of the synthetic recording")
    count = parser.parse_args().events
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "synthetic.aedat"
        write(path, synthetic(count))
        seconds = [timed(lambda: read(path)) for _ in range(ROUNDS)]
        megabytes = path.stat().st_size / 1e6
        events = read(path)
        print(f"{count:,} events, {megabytes:.0f} MB")
        print(f"reading: {count / statistics.median(seconds) / 1e6:.0f} million events a second")
        framing = [timed(lambda: to_frames(events, 20, 42, None)) for _ in range(ROUNDS)]
        print(f"20 frames of 42 x 42: {count / statistics.median(framing) / 1e6:.0f} million events a second")


def synthetic(count: int) -> Events:
    draws = np.random.default_rng(0)
    x, y = draws.integers(0, SIDE, (2, count), np.uint8)
    return Events(np.arange(count) * 3, x, y, draws.integers(0, 2, count, np.uint8).astype(bool))


def timed(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
