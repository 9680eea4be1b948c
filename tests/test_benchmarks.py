"""What is run when a GPU can be had, tried without one: it must not fail for the first time there."""

import importlib
import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tiny import PROJECT, write_experiment

from bntt.data._cifar import read
from bntt.experiment.schema import load

BENCHMARKS = PROJECT / "benchmarks"


def module(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def gpu_day(*arguments, **environment):
    return subprocess.run(
        [BENCHMARKS / "gpu_day.sh", *map(str, arguments)], capture_output=True, text=True, env=environment or None
    )


@pytest.mark.parametrize("steps", [(), ("second-light",)])
def test_only_known_steps_are_run(tmp_path, steps):
    done = gpu_day(tmp_path / "out", *steps)
    assert done.returncode == 2
    assert "first-light step cifar10" in done.stderr or "first-light, step and cifar10" in done.stderr


@pytest.mark.slow
def test_mosaics_become_the_binary_version(tmp_path):
    """Losslessly, in the order of the dataset, and so that the reader of CIFAR-10 takes them."""
    lease, draws = module("cifar10_lease"), np.random.default_rng(0)
    sheets, labels, pixels = tmp_path / "sheets", {}, {}
    sheets.mkdir()
    for part, count in (("train", 50), ("test", 10)):
        labels[part] = draws.integers(0, 10, 1000 * count).astype(np.uint8)
        pixels[part] = np.repeat(draws.integers(0, 256, (1000 * count, 3, 1, 1), dtype=np.uint8), 32, axis=2)
        pixels[part] = np.repeat(pixels[part], 32, axis=3)
        pixels[part][:, :, 5, 7] = 255  # so that a transposed image is another
        for number in range(count):
            tiles = pixels[part][1000 * number :][:1000].reshape(25, 40, 3, 32, 32)
            mosaic = tiles.transpose(0, 3, 1, 4, 2).reshape(800, 1280, 3)
            Image.fromarray(mosaic).save(sheets / f"{part}-{number:02}.webp", lossless=True, quality=0, method=0)
    np.savez(sheets / "labels.npz", **labels)
    lease.unpack(sheets, tmp_path)
    for part, found, classes in read("CIFAR10", tmp_path, tmp_path):
        if part in pixels:
            assert np.array_equal(found, pixels[part]) and np.array_equal(classes, labels[part])
    (sheets / "test-09.webp").unlink()
    with pytest.raises(SystemExit, match="9 mosaics"):
        lease.unpack(sheets, tmp_path / "elsewhere")


def test_a_lease_is_the_protocol_but_for_the_epochs(tmp_path):
    lease = module("cifar10_lease")
    written = load(str(lease.write(tmp_path, "cifar10-lease", 25, [0.0], {})))
    ours, theirs = written.run("cifar10", "bntt", 0), load("cifar10").run("cifar10", "bntt", 0)
    assert dict(ours.options) == {**theirs.options, "epochs": 25}
    ran = load("cifar10-lease").run("cifar10", "bntt", 0).options  # by an earlier declaration of the protocol
    assert dict(ours.options) == {**ran, "drop_last": True, "statistics": "cifar10-released"}


def test_a_quick_lease_and_its_trial_have_a_whole_batch(tmp_path):
    lease = module("cifar10_lease")
    for changed in (lease.SMALL, lease.SMALL | lease.on_trial(lease.SMALL["train_limit"])):
        options = load(str(lease.write(tmp_path, "quick", 3, [0.0], changed))).run("cifar10", "bntt", 0).options
        assert options["train_limit"] >= options["batch_size"]


def test_a_lease_ends_with_its_minutes_and_packs_what_there_is(tmp_path, monkeypatch):
    lease, commands = module("cifar10_lease"), []

    def played(command, **_):  # the evaluation of the lease itself does not come to its end
        commands.append(command[command.index("bntt") + 1 :])
        return subprocess.CompletedProcess(command, 75 if len(commands) == 4 else 0)

    monkeypatch.setattr(lease.subprocess, "run", played)
    monkeypatch.setattr(lease, "measured", lambda _: (1.0, 1.0))
    monkeypatch.setattr(lease, "pack", lambda out: commands.append(["packed"]))
    monkeypatch.setattr(sys, "argv", ["cifar10_lease.py", str(tmp_path), "--minutes", "3"])
    with pytest.raises(SystemExit, match="evaluate ended with status 75"):
        lease.main()
    assert [command[0] for command in commands] == ["train", "evaluate", "train", "evaluate", "packed"]
    assert all(0 < float(command[command.index("--minutes") + 1]) <= 3 for command in commands[:-1])


def test_packing_is_undone_by_cat_and_tar(tmp_path, monkeypatch):
    lease = module("cifar10_lease")
    monkeypatch.setattr(lease, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(lease, "PIECE", 5000)
    run = tmp_path / "results" / "cifar10-lease" / "runs" / "cifar10" / "bntt" / "seed-0"
    run.mkdir(parents=True)
    (run / "model.safetensors").write_bytes(bytes(range(256)) * 50)
    (tmp_path / "cifar10-lease.yaml").write_text("title: x\n")
    lease.pack(tmp_path)
    pieces = sorted(tmp_path.glob("results.tar.*"))
    assert len(pieces) > 1 and max(piece.stat().st_size for piece in pieces) <= 5000
    (tmp_path / "home").mkdir()
    whole = b"".join(piece.read_bytes() for piece in pieces)
    subprocess.run(["tar", "-x", "-C", tmp_path / "home"], input=whole, check=True)
    there = tmp_path / "home" / run.relative_to(tmp_path / "results") / "model.safetensors"
    assert there.read_bytes() == bytes(range(256)) * 50


@pytest.mark.slow
def test_first_light_on_the_cpu(tmp_path):
    """The same checks with small networks, and their verdict as exit status."""
    pytest.importorskip("bntt.spiking.kernels.native", exc_type=Exception)
    command = [
        sys.executable,
        BENCHMARKS / "first_light.py",
        "--device",
        "cpu",
        "--quick",
        "--json",
        tmp_path / "f.json",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\nok ") == 9


@pytest.mark.slow
def test_a_profile_lists_what_takes_longest():
    command = [sys.executable, BENCHMARKS / "train_step.py", "--profile", "1", "--batches", "2", "--steps", "2"]
    done = subprocess.run(
        [*command, "--width", "0.1", "--precisions", "fp32"], capture_output=True, text=True, check=True
    )
    first, _, *rows = done.stdout.splitlines()
    assert "ms a step" in first and any("convolution" in row for row in rows)
    shares = [float(row.split()[0]) for row in rows]
    assert shares == sorted(shares, reverse=True)


@pytest.mark.slow
def test_inference_of_a_trained_run(tmp_path, trained):
    experiment = write_experiment(tmp_path)
    command = [sys.executable, BENCHMARKS / "inference.py", "--densities", "2", "--batch", "2", "--steps", "2"]
    command += ["--repeats", "1", "--run", experiment, "bntt", "0", trained]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "input density: conv1" in done.stdout and "logits: 0 of 2 images further" in done.stdout
