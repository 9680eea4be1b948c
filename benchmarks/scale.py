"""What a wide experiment costs besides its work: the time in which it is planned, and what a cluster adds to each job.

    python benchmarks/scale.py                                         # plans 1,000 runs
    python benchmarks/scale.py --runs 200 --profile profiles/slurm     # makes 200 runs through Slurm

Every run is one of the smallest networks with a seed of its own, so that there is hardly any work in a job.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parent.parent
EXPERIMENT = {
    "title": "As many runs as wanted, each of a second",
    "datasets": ["digits"],
    "threads": 1,
    "protocol": {
        "architecture": "vgg5",
        "width": 0.1,
        "image_size": 8,
        "train_limit": 96,
        "batch_size": 32,
        "epochs": 1,
    },
    "rows": {"ann": {"method": "ann"}},
    "evaluation": {"batch_size": 270},
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--profile", help="make the runs with this profile of a cluster, and do not only plan them")
    parser.add_argument("options", nargs="*", help="further options for Snakemake, behind --")
    parsed = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:  # the working folder, where results and data go
        folder = Path(place)
        (folder / "config").mkdir()
        wide = EXPERIMENT | {"seeds": list(range(parsed.runs))}
        (folder / "config/wide.yaml").write_text(yaml.safe_dump(wide, sort_keys=False))
        print(f"{parsed.runs} runs")
        print(f"planned in {snakemake(folder, '--cores', '1', '--dry-run', '--quiet', 'all'):.1f} s")
        if parsed.profile:
            profile = ("--workflow-profile", str(Path(parsed.profile).resolve()), *parsed.options)
            targets = [f"results/wide/runs/digits/ann/seed-{seed}/evaluate.json" for seed in wide["seeds"]]
            report(folder, snakemake(folder, *profile, "--", *targets))


def snakemake(folder: Path, *arguments: str) -> float:
    """The seconds that a command takes."""
    command = [sys.executable, "-m", "snakemake", "-s", str(PROJECT / "Snakefile"), "--config", "experiment=wide"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"BNTT_DATA": "data"}
    start = time.perf_counter()
    ran = subprocess.run([*command, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if ran.returncode:
        sys.exit(f"{ran.stdout[-3000:]}{ran.stderr[-3000:]}")
    return seconds


def report(folder: Path, seconds: float) -> None:
    """Print what the jobs took, beside what they needed for their work."""
    records = [json.loads(path.read_text()) for path in (folder / "results/wide/runs").rglob("*.json")]
    work = sum(record["seconds"] for record in records)
    print(f"{len(records)} jobs in {seconds:.0f} s, {seconds / len(records):.2f} s each; their work is {work:.0f} s")


if __name__ == "__main__":
    main()
