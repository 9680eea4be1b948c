"""Slurm and the profile give each job a GPU for itself."""

import re
from collections import Counter
from itertools import pairwise

import pytest
import yaml
from tiny import PROJECT

from .slurm import Cluster, wait_for

pytestmark = pytest.mark.cluster
# A folder is made by one process alone: who finds that of its GPU made shares it, and fails.
JOB = """#!/bin/bash -e
echo "$SLURMD_NODENAME $CUDA_VISIBLE_DEVICES start $(date +%s.%N)"
mkdir "in use $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES"
sleep 0.4
rmdir "in use $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES"
echo "$SLURMD_NODENAME $CUDA_VISIBLE_DEVICES end $(date +%s.%N)"
"""
# Rounds of two jobs on the node with one GPU, and of eight on the node with four: 50 in all.
ROUNDS = [("b", 2)] * 5 + [("a", 8)] * 5


def test_no_two_jobs_are_on_one_gpu(cluster: Cluster, tmp_path):
    profile = yaml.safe_load((PROJECT / "profiles/slurm/profile.yaml").read_text())["set-resources"]
    assert profile["train"]["gpu"] == profile["evaluate"]["gpu"] == 1  # for which the plugin says --gpus=1
    (tmp_path / "job.sh").write_text(JOB)
    for number, (node, jobs) in enumerate(ROUNDS):
        for job in range(jobs):
            cluster.run("sbatch", "--gpus=1", "--mem=50", f"--nodelist={node}", f"--chdir={tmp_path}",
                        f"--output={number}-{job}.txt", "job.sh", cwd=tmp_path)  # fmt: skip
    wait_for(lambda: not cluster.jobs(), "the end of all jobs", 120)

    said = [path.read_text() for path in sorted(tmp_path.glob("*.txt"))]
    assert len(said) == sum(jobs for _, jobs in ROUNDS) == 50
    line = r"(\w) (\d) {} ([\d.]+)\n"
    held = [re.fullmatch(line.format("start") + line.format("end"), one) for one in said]
    assert all(held), [one for one, match in zip(said, held, strict=True) if not match]
    times: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for match in held:
        node, gpu, start, also_node, also_gpu, end = match.groups()
        assert (node, gpu) == (also_node, also_gpu)
        times.setdefault((node, gpu), []).append((float(start), float(end)))
    assert set(times) == {("b", "0"), *(("a", str(gpu)) for gpu in range(4))}
    for of_one in times.values():
        of_one.sort()
        assert all(end <= start for (_, end), (start, _) in pairwise(of_one)), of_one
    assert Counter(node for (node, _), of_one in times.items() for _ in of_one) == {"a": 40, "b": 10}
