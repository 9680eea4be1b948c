"""Locks on devices: one owner each, waiting in turn, free when the owner dies."""

import os
import select
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from tiny import PROJECT, assert_one_line, environment

from bntt.common.errors import UserError
from bntt.runs import devices
from bntt.runs.devices import lease, lock_one

# A lock needs no torch; standing in for it saves the seconds that loading it takes.
HOLD = """
import sys, types
sys.modules["torch"] = types.SimpleNamespace(device=None)
from bntt.runs.devices import lock_one
with lock_one(sys.argv[1:], poll_seconds=0.02) as index:
    print("holds", index, flush=True)
    sys.stdin.read()
"""


def line(stream) -> str:
    """The next line that a process writes, but not for ever."""
    ready, _, _ = select.select([stream], [], [], 30)
    assert ready, "nothing was said for half a minute"
    return stream.readline()


@pytest.fixture
def holder(tmp_path, monkeypatch):
    """Start processes that take a lock and keep it until they are told to end."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    started = []

    def start(*names: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, *names], cwd=PROJECT, env=environment(TMPDIR=str(tmp_path)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()


def test_a_second_process_waits_says_so_once_and_follows(holder):
    first = holder("GPU-a")
    assert line(first.stdout) == "holds 0\n"
    second = holder("GPU-a")
    assert line(second.stderr) == "waiting for one of 1 GPUs to be free\n"
    time.sleep(0.15)  # several polls
    assert second.poll() is None
    first.stdin.close()
    assert line(second.stdout) == "holds 0\n"
    second.stdin.close()
    assert second.stderr.read() == ""
    assert first.wait() == second.wait() == 0


def test_a_lock_is_free_when_its_owner_is_killed(holder):
    first = holder("GPU-a")
    assert line(first.stdout) == "holds 0\n"
    second = holder("GPU-a")
    assert "waiting" in line(second.stderr)
    os.kill(first.pid, signal.SIGKILL)
    assert line(second.stdout) == "holds 0\n"


def test_two_devices_have_two_owners_and_the_third_waits(holder):
    processes = [holder("GPU-a", "GPU-b") for _ in range(2)]
    assert {line(process.stdout) for process in processes} == {"holds 0\n", "holds 1\n"}
    third = holder("GPU-a", "GPU-b")
    assert line(third.stderr) == "waiting for one of 2 GPUs to be free\n"


def test_processes_that_see_different_devices_still_meet(holder):
    """Locks are named by the device and not by its place in CUDA_VISIBLE_DEVICES."""
    first = holder("GPU-b")
    assert line(first.stdout) == "holds 0\n"
    second = holder("GPU-a", "GPU-b")
    assert line(second.stdout) == "holds 0\n"
    third = holder("GPU-b", "GPU-a")
    assert "waiting" in line(third.stderr)


def test_a_lock_is_given_back_at_the_end_and_after_an_error(holder):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), lock_one(["GPU-a"]):
            raise ZeroDivisionError
    with lock_one(["GPU-a"]) as index:
        assert index == 0
    with lock_one(["GPU/with a slash"]) as index:
        assert index == 0


def test_the_processor_needs_no_lock():
    with lease("cpu") as one, lease("cpu") as other:
        assert one == other == torch.device("cpu")


def test_where_there_is_no_gpu_auto_is_the_processor_and_cuda_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with lease("auto") as device:
        assert device.type == "cpu"
    with pytest.raises(UserError) as raised, lease("cuda"):
        pass
    assert_one_line(raised.value, "no CUDA device", "--device cpu")
    with pytest.raises(UserError) as raised, lease("gpu"):
        pass
    assert_one_line(raised.value, "auto, cpu or cuda", "'gpu'")


def test_a_lease_takes_the_device_whose_lock_is_free(holder, monkeypatch):
    """As on a machine with two GPUs, one of them in use by a process that sees that one alone."""
    from types import SimpleNamespace

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid=f"uuid-{i}"))
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    other = holder("uuid-0")
    assert line(other.stdout) == "holds 0\n"
    with lease("auto") as device:
        assert device == torch.device("cuda", 1)
    assert chosen == [1]


@pytest.mark.gpu
def test_a_real_gpu_is_held_by_one():
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    with lease("cuda") as device:
        assert torch.zeros(1, device=device).device.type == "cuda"


# -- energy -----------------------------------------------------------------------------------------------

NVML = """
#include <string.h>
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetHandleByUUID(const char* uuid, void** handle) {
  *handle = (void*)1234;
  return strcmp(uuid, "GPU-1") ? 6 : 0;
}
int nvmlDeviceGetTotalEnergyConsumption(void* handle, unsigned long long* energy) {
  *energy = 5000001500ull;
  return handle != (void*)1234;
}
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc to build a stand-in for NVML")
def test_the_energy_counter_is_read_in_joules(tmp_path):
    """A library with NVML's interface; the real one comes with the driver."""
    (tmp_path / "nvml.c").write_text(NVML)
    library = str(tmp_path / "libnvidia-ml.so")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, tmp_path / "nvml.c"], check=True)
    assert devices._counted_joules("GPU-1", library) == 5_000_001.5
    assert devices._counted_joules("GPU-2", library) is None


def test_without_a_counter_there_is_no_energy(tmp_path):
    assert devices._counted_joules("GPU-1", str(tmp_path / "none.so")) is None
    assert devices._counted_joules("GPU-1", "libc.so.6") is None  # a library without the functions
    assert devices.joules(torch.device("cpu")) is None
