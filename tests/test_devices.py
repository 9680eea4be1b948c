"""Locks on devices: one owner each, waiting in turn, free when the owner dies; and the energy that a GPU used."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from tiny import PROJECT, assert_one_line, environment

from bntt.common.errors import UserError
from bntt.runs import devices
from bntt.runs.devices import joules, lease, lock_one

# Neither a lock nor a counter needs torch; standing in for it saves the seconds that loading it takes.
WITHOUT_TORCH = """
import sys, types
properties = lambda device: types.SimpleNamespace(uuid=device.uuid)
cuda = types.SimpleNamespace(get_device_properties=properties)
sys.modules["torch"] = types.SimpleNamespace(device=None, cuda=cuda)
"""
HOLD = f"""{WITHOUT_TORCH}
from bntt.runs.devices import lock_one
with lock_one(sys.argv[1:]) as index:
    print("holds", index, flush=True)
    sys.stdin.read()
"""
# A folder is made by one process alone: who finds that of its device made shares it, and fails.
USE = f"""{WITHOUT_TORCH}
import os, time
from bntt.runs.devices import lock_one
print("ready", flush=True)
sys.stdin.readline()
for _ in range(10):
    with lock_one(sys.argv[1:], poll_seconds=0.01) as index:
        os.mkdir(os.path.join(os.environ["TMPDIR"], f"in use {{index}}"))
        time.sleep(0.01)
        os.rmdir(os.path.join(os.environ["TMPDIR"], f"in use {{index}}"))
        print(index)
"""


@pytest.fixture
def holder(tmp_path, monkeypatch):
    """Start processes that take a lock and keep it until they are told to end."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    started = []

    def start(*names: str, holds: int) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, *names], cwd=PROJECT, env=environment(TMPDIR=str(tmp_path)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        assert select.select([process.stdout], [], [], 60)[0], "nothing was said for a minute"
        assert process.stdout.readline() == f"holds {holds}\n"
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            stream.close()


class Waits(Exception):
    """Ends a wait for a lock."""


@pytest.fixture
def while_waiting(monkeypatch):
    """What to do at each poll in place of sleeping; counts the polls."""
    polls = []

    def install(act) -> list[float]:
        def sleep(seconds: float) -> None:
            polls.append(seconds)
            act(len(polls))

        monkeypatch.setattr(devices.time, "sleep", sleep)
        return polls

    return install


def give_up(polls: int) -> None:
    raise Waits


def test_who_comes_second_waits_says_so_once_and_follows(holder, while_waiting, capsys):
    first = holder("GPU-a", holds=0)

    def end_at_the_third(polls):
        if polls == 3:
            first.stdin.close()
            assert first.wait() == 0

    polls = while_waiting(end_at_the_third)
    with lock_one(["GPU-a"], poll_seconds=7) as index:
        assert index == 0
    assert polls == [7, 7, 7]
    assert capsys.readouterr().err == "waiting for one of 1 GPUs to be free\n"


def test_a_lock_is_free_when_its_owner_is_killed(holder, while_waiting):
    first = holder("GPU-a", holds=0)

    def kill(polls):
        assert polls == 1
        os.kill(first.pid, signal.SIGKILL)
        first.wait()

    polls = while_waiting(kill)
    with lock_one(["GPU-a"]) as index:
        assert index == 0
    assert len(polls) == 1


def test_two_devices_have_two_owners_and_the_third_waits(holder, while_waiting, capsys):
    for index in range(2):
        holder("GPU-a", "GPU-b", holds=index)
    while_waiting(give_up)
    with pytest.raises(Waits), lock_one(["GPU-a", "GPU-b"]):
        pass
    assert capsys.readouterr().err == "waiting for one of 2 GPUs to be free\n"


def test_eight_processes_on_four_devices_are_never_two_on_one(tmp_path):
    names = ["GPU-a", "GPU-b", "GPU-c", "GPU-d"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", USE, *names], cwd=PROJECT, env=environment(TMPDIR=str(tmp_path)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(8)
    ]  # fmt: skip
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 8
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    ended = [(*process.communicate(timeout=120), process.returncode) for process in processes]
    assert [status for *_, status in ended] == [0] * 8, [error for _, error, _ in ended]
    used = [index for output, *_ in ended for index in output.split()]
    assert len(used) == 80
    assert set(used) <= set("0123")


def test_processes_that_see_different_devices_still_meet(holder, while_waiting):
    """Locks are named by the device and not by its place in CUDA_VISIBLE_DEVICES."""
    holder("GPU-b", holds=0)
    holder("GPU-a", "GPU-b", holds=0)
    while_waiting(give_up)
    with pytest.raises(Waits), lock_one(["GPU-b", "GPU-a"]):
        pass


def test_locks_are_in_a_folder_of_the_user_that_no_other_can_enter(holder, tmp_path):
    with lock_one(["GPU-a"]):
        folder = tmp_path / f"bntt-gpu-{os.getuid()}"
        assert [path.name for path in tmp_path.iterdir()] == [folder.name]
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_lock_is_given_back_at_the_end_and_after_an_error(holder, while_waiting):
    while_waiting(give_up)
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
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid=f"uuid-{i}"))
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    holder("uuid-0", holds=0)
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
int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlDeviceGetHandleByUUID(const char* uuid, void** handle) {
  *handle = (void*)1234;
  return strcmp(uuid, "GPU-1") ? 6 : 0;
}
"""
COUNTER = """
int nvmlDeviceGetTotalEnergyConsumption(void* handle, unsigned long long* energy) {
  *energy = 5000001500ull;
  return handle != (void*)1234;
}
"""
READ = f"""{WITHOUT_TORCH}
import json
from bntt.runs.devices import joules
print(json.dumps([joules(types.SimpleNamespace(type="cuda", uuid=uuid)) for uuid in "12"]))
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc to build a stand-in for NVML")
@pytest.mark.parametrize(("source", "expected"), [(NVML + COUNTER, [5_000_001.5, None]), (NVML, [None, None])])
def test_the_energy_counter_is_read_in_joules(tmp_path, source, expected):
    """A library with NVML's interface in the real one's place, which comes with the driver; the second has no counter.

    It knows GPU-1 and not GPU-2.
    """
    (tmp_path / "nvml.c").write_text(source)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", tmp_path / "libnvidia-ml.so.1", tmp_path / "nvml.c"], check=True)
    read = subprocess.run(
        [sys.executable, "-c", READ], cwd=PROJECT, env=environment(LD_LIBRARY_PATH=str(tmp_path)),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(read.stdout) == expected


def test_without_the_package_or_a_gpu_there_is_no_energy(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert joules(torch.device("cuda")) is None
    assert joules(torch.device("cpu")) is None


def test_without_a_driver_there_is_no_energy(monkeypatch):
    import pynvml

    def init():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", init)
    assert joules(torch.device("cuda")) is None
